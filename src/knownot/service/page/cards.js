// One card per image: what is known of it, and how it looks under a rule.

import { place, small, statusOf, sure } from "./rules.js";

const template = document.getElementById("card");

export class Card {
  constructor(file, number) {
    this.file = file;
    this.number = number;
    this.verdict = null;
    this.status = "waiting";
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.card = this;
    this.url = URL.createObjectURL(file);
    const image = this.element.querySelector("img");
    image.addEventListener("load", () => { if (Math.max(image.naturalWidth, image.naturalHeight) <= 96) image.classList.add("tiny"); });
    image.addEventListener("error", () => { image.remove(); this.element.querySelector(".picture").classList.add("blank"); });
    image.src = this.url;
    this.element.querySelector(".id").textContent = file.name;
    this.element.querySelector(".id").title = file.name;
    this.element.querySelector("details").addEventListener("toggle", () => this.#why());
    this.show(null);
  }

  answered(verdict) { this.verdict = verdict; this.error = null; this.element.querySelector(".why").replaceChildren(); }

  again() { this.verdict = null; this.error = null; }

  failed(words) { this.error = words; }

  show(rule) {
    this.rule = rule;
    const v = this.verdict;
    this.status = this.error ? "unreadable" : v ? statusOf(v, rule) : "waiting";
    this.element.className = `card ${this.status}`;
    const title = this.element.querySelector("strong"), reason = this.element.querySelector(".reason");
    if (this.status === "waiting") { title.textContent = "Waiting …"; reason.textContent = ""; return; }
    if (this.status === "unreadable") {
      title.textContent = this.error ? "Not answered" : "Unreadable";
      reason.textContent = this.error ?? v.error;
      return;
    }
    const unknown = this.status === "unknown";
    title.textContent = unknown ? "Unknown" : v.closed_class;
    const compared = `p = ${small(v.p_value)} ${unknown ? "≤" : ">"} ${small(rule.p_threshold)}`;
    reason.textContent = unknown
      ? `${compared}. The classifier alone would say ${v.closed_class}, ${sure(v.confidence)} sure.`
      : `${compared}. The classifier is ${sure(v.confidence)} sure.`;
    const at = place(rule.p_threshold);
    this.element.querySelector(".below").style.width = `${at}%`;
    this.element.querySelector(".line").style.left = `${at}%`;
    this.element.querySelector(".dot").style.left = `${place(v.p_value)}%`;
    if (this.element.querySelector("details").open) this.#why(true);
  }

  #why(anew = false) {
    const box = this.element.querySelector(".why"), why = this.verdict?.explanation;
    if (!why || (box.childElementCount && !anew)) return;
    const parts = [];
    if (why.nearest.length) parts.push(part("Known images that are most alike to the classifier", near(why.nearest)));
    parts.push(part("What the classifier alone says", bars(why.top.map((c) => [c.class_name, c.probability, sure(c.probability), false]))));
    const members = Object.entries(why.members);
    if (members.length) {
      const rows = members.map(([name, p]) => [name, p, small(p), p <= this.rule.p_threshold]);
      parts.push(part("p-value of each detector; small speaks for unknown", bars(rows)));
    }
    box.replaceChildren(...parts);
  }

  remove() { URL.revokeObjectURL(this.url); this.element.remove(); }
}

function part(title, content) {
  const section = document.createElement("section"), head = document.createElement("h3");
  head.textContent = title;
  section.append(head, content);
  return section;
}

function bars(rows) {
  const list = document.createElement("dl");
  list.className = "bars";
  for (const [name, share, words, low] of rows) {
    const dt = document.createElement("dt"), bar = document.createElement("dd"), fill = document.createElement("i"), n = document.createElement("dd");
    dt.textContent = name;
    bar.className = low ? "bar low" : "bar";
    bar.setAttribute("aria-hidden", "true");
    fill.style.width = `${100 * share}%`;
    bar.append(fill);
    n.className = "n";
    n.textContent = words;
    list.append(dt, bar, n);
  }
  return list;
}

function near(known) {
  const list = document.createElement("ul");
  list.className = "near";
  for (const { class_name: name, image } of known) {
    const item = document.createElement("li"), picture = document.createElement("img"), words = document.createElement("span");
    picture.src = image;
    picture.alt = "";
    words.textContent = name || "without a label";
    item.append(picture, words);
    list.append(item);
  }
  return list;
}

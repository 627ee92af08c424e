// The page: images in by any way, sent in small lots, shown as cards; a rule that can be tried without asking again.

import * as api from "./api.js";
import { camera } from "./camera.js";
import { Card } from "./cards.js";
import { percent, small } from "./rules.js";

const $ = (id) => document.getElementById(id);
const state = { models: [], model: null, limits: { max_body: 8e6, max_images: 8 }, rule: 0, cards: [], queue: [], sending: 0, show: "all", number: 0 };
const LOT = 8, AT_ONCE = 2;

const rule = () => state.model.rules[state.rule];

// ---- images in

function add(files) {
  const list = [...files].filter((file) => file.size || file.type.startsWith("image/"));
  if (!list.length || !state.model) return;
  const fresh = list.map((file) => new Card(file, state.number++));
  state.cards.push(...fresh);
  state.queue.push(...fresh);
  document.body.classList.add("some");
  $("rule").hidden = $("results").hidden = false;
  $("cards").append(...fresh.map((card) => card.element));
  send();
  redraw();
}

function send() {
  while (state.sending < AT_ONCE && state.queue.length) {
    const lot = [];
    let bytes = 0;
    while (state.queue.length && lot.length < Math.min(LOT, state.limits.max_images)) {
      const next = state.queue[0];
      if (next.file.size > 0.98 * state.limits.max_body - 1000) {
        state.queue.shift().failed(`The file is larger than the service takes: ${Math.floor(state.limits.max_body / 2 ** 20)} MiB.`);
        continue;
      }
      if (lot.length && bytes + next.file.size > 0.9 * state.limits.max_body) break;
      bytes += next.file.size;
      lot.push(state.queue.shift());
    }
    if (!lot.length) { redraw(); return; }
    state.sending++;
    const model = state.model.name;
    api.predict(model, lot.map((card) => card.file)).then(
      (answer) => {
        if (model !== state.model.name) { state.queue.push(...lot.filter((card) => !card.verdict)); return; }
        if (answer.digest !== state.model.digest) refresh();
        lot.forEach((card, i) => card.answered(answer.verdicts[i]));
      },
      (why) => lot.forEach((card) => card.failed(why.message)),
    ).finally(() => { state.sending--; redraw(); send(); });
  }
}

// ---- what is shown

function redraw() {
  const counts = { all: state.cards.length, known: 0, unknown: 0, unreadable: 0, waiting: 0 };
  for (const card of state.cards) { card.show(rule()); counts[card.status]++; }
  for (const button of document.querySelectorAll("[data-show]")) {
    button.querySelector("span").textContent = counts[button.dataset.show];
    button.setAttribute("aria-pressed", String(button.dataset.show === state.show));
    button.hidden = button.dataset.show === "unreadable" && !counts.unreadable && state.show !== "unreadable";
  }
  let shown = 0;
  for (const card of state.cards) {
    const hide = state.show !== "all" && card.status !== state.show;
    card.element.hidden = hide;
    shown += !hide;
  }
  $("none").hidden = shown > 0 || !state.cards.length;
  order();
  $("progress").textContent = counts.waiting ? `${counts.all - counts.waiting} of ${counts.all} answered …` : `${counts.all} image${counts.all === 1 ? "" : "s"}: ${counts.known} known, ${counts.unknown} unknown${counts.unreadable ? `, ${counts.unreadable} unreadable` : ""}`;
  $("save").disabled = counts.waiting === counts.all;
}

const last = "\uffff";
const SORTS = {
  given: (card) => [card.number],
  unknown: (card) => [card.verdict?.p_value ?? 2, -(card.verdict?.score ?? 0)],
  near: (card) => [card.verdict?.p_value ? Math.abs(Math.log(card.verdict.p_value / rule().p_threshold)) : 1e9],
  class: (card) => [card.status === "known" ? card.verdict.closed_class : last, card.status === "unreadable" ? 1 : 0, card.verdict?.p_value ?? 0],
  name: (card) => [card.file.name],
};

function order() {
  const key = SORTS[$("sort").value];
  const keyed = state.cards.map((card) => [...key(card), card.number, card]);
  keyed.sort((a, b) => {
    for (let i = 0; i < a.length - 1; i++) if (a[i] !== b[i]) return typeof a[i] === "string" ? a[i].localeCompare(b[i], undefined, { numeric: true }) : a[i] - b[i];
    return 0;
  });
  const list = $("cards"), wanted = keyed.map((row) => row.at(-1).element);
  if (wanted.some((element, i) => list.children[i] !== element)) {
    const focused = document.activeElement;
    list.append(...wanted);
    if (list.contains(focused)) focused.focus({ preventScroll: true });
  }
}

// ---- classifier and rule

async function refresh() {
  const said = await api.models();
  state.models = said.models;
  state.limits = said.limits;
  const before = state.model?.name ?? new URLSearchParams(location.search).get("model") ?? said.default;
  const alpha = state.model && state.model.rules[state.rule].alpha;
  $("model").replaceChildren(...said.models.map((m) => new Option(m.name, m.name)));
  $("model").parentElement.querySelector("label").hidden = $("model").hidden = said.models.length < 2;
  choose(said.models.find((m) => m.name === before)?.name ?? said.default, alpha);
  $("examples").hidden = !said.examples;
  $("streams").hidden = !said.streams;
  return said;
}

function choose(name, alpha) {
  state.model = state.models.find((m) => m.name === name);
  $("model").value = name;
  const m = state.model, one = state.models.length === 1;
  const accuracy = m.accuracy === null ? "" : `, ${percent(m.accuracy)} accurate`;
  $("about").textContent = `${one ? `${m.name}: ` : ""}${m.classes.length} classes${accuracy}`;
  $("about").title = m.classes.join(", ");
  const some = m.classes.slice(0, 40).join(", ");
  $("classes").textContent = `Its classes: ${some}${m.classes.length > 40 ? ` and ${m.classes.length - 40} more` : ""}.`;
  const slider = $("alpha");
  slider.max = m.rules.length - 1;
  const at = m.rules.findIndex((r) => r.alpha === alpha);
  setRule(at >= 0 ? at : own());
}

const own = () => state.model.rules.findIndex((r) => r.alpha === state.model.alpha);

function setRule(i) {
  state.rule = Math.max(0, Math.min(state.model.rules.length - 1, i));
  const r = rule(), slider = $("alpha");
  slider.value = state.rule;
  slider.setAttribute("aria-valuetext", percent(r.alpha));
  slider.disabled = state.model.rules.length < 2;
  $("alpha-now").textContent = percent(r.alpha);
  $("alpha-own").hidden = state.rule === own();
  const none = r.promise.startsWith("none");
  const text = document.createElement("b");
  text.textContent = none ? `Promise: ${r.promise}` : `Promise: ${r.promise}.`;
  $("promise").replaceChildren(text, ` An image is unknown when p ≤ ${small(r.p_threshold)}${state.rule === own() ? "." : "; the service itself goes on with its own threshold."}`);
  redraw();
}

// ---- words for machines and people

function csv() {
  const names = ["id", "status", "class_name", "p_value", "score", "closed_class", "confidence", "error"];
  const cell = (x) => { const t = String(x ?? ""); const safe = /^[=+\-@\t]/.test(t) && Number.isNaN(Number(t)) ? `'${t}` : t; return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe; };
  const rows = state.cards.filter((card) => card.verdict).map((card) => {
    const v = { ...card.verdict, id: card.file.name, status: card.status };
    v.class_name = v.status === "known" ? v.closed_class : v.status === "unknown" ? "unknown" : "";
    return names.map((name) => cell(v[name])).join(",");
  });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([[names.join(","), ...rows].join("\r\n") + "\r\n"], { type: "text/csv" }));
  link.download = "verdicts.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

let fading = 0;
function notice(words) {
  $("notice").textContent = words;
  $("notice").hidden = !words;
  clearTimeout(fading);
  fading = setTimeout(() => { $("notice").hidden = true; }, 8000);
}

function clear() {
  for (const card of state.cards) card.remove();
  state.cards = []; state.queue = [];
  document.body.classList.remove("some");
  $("rule").hidden = $("results").hidden = true;
  $("choose").focus();
}

function drop(card) {
  const visible = shown(), at = visible.indexOf(card.element);
  state.cards = state.cards.filter((c) => c !== card);
  state.queue = state.queue.filter((c) => c !== card);
  card.remove();
  if (!state.cards.length) { clear(); return; }
  (visible[at + 1] ?? visible[at - 1])?.focus();
  redraw();
}

// ---- keyboard

const shown = () => [...$("cards").children].filter((element) => !element.hidden);

function move(key) {
  const all = shown();
  if (!all.length) return;
  const at = all.findIndex((element) => element.contains(document.activeElement));
  if (at < 0) { all[0].focus(); return; }
  const columns = all.filter((element) => element.offsetTop === all[0].offsetTop).length;
  const next = at + { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  all[Math.max(0, Math.min(all.length - 1, next))].focus();
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const card = event.target.classList?.contains("card") ? event.target.card : null, key = event.key;
  if (key.startsWith("Arrow") && state.cards.length) move(key);
  else if (card && (key === "Enter" || key === " ")) { const why = card.element.querySelector("details"); why.open = !why.open; }
  else if (card && (key === "Delete" || key === "Backspace")) drop(card);
  else if (key === "o" || key === "O") $("files").click();
  else if (key === "c" || key === "C") $("shoot").click();
  else if ("1234".includes(key) && state.cards.length) { state.show = ["all", "unknown", "known", "unreadable"][key - 1]; redraw(); }
  else if ((key === "-" || key === "+" || key === "=") && state.cards.length) setRule(state.rule + (key === "-" ? -1 : 1));
  else if (key === "?") $("help").showModal();
  else return;
  event.preventDefault();
}

// ---- wiring

async function begin() {
  $("choose").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => { add($("files").files); $("files").value = ""; });
  const open = camera(add);
  $("shoot").addEventListener("click", () => notice(open()));
  $("examples").addEventListener("click", async () => {
    $("examples").disabled = true;
    try { add(await api.examples()); } catch (why) { notice(why.message); }
    $("examples").disabled = false;
  });
  let depth = 0;
  const over = (yes) => $("drop").classList.toggle("over", yes);
  document.addEventListener("dragenter", (e) => { e.preventDefault(); depth++; over(true); });
  document.addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); over(depth > 0); });
  document.addEventListener("dragover", (e) => e.preventDefault());
  document.addEventListener("drop", (e) => { e.preventDefault(); depth = 0; over(false); add(e.dataTransfer.files); });
  document.addEventListener("paste", (e) => { if (e.clipboardData.files.length) add(e.clipboardData.files); });
  document.addEventListener("keydown", pressed);
  for (const button of document.querySelectorAll("[data-show]")) button.addEventListener("click", () => { state.show = button.dataset.show; redraw(); });
  $("sort").addEventListener("change", redraw);
  $("alpha").addEventListener("input", () => setRule(Number($("alpha").value)));
  $("alpha-own").addEventListener("click", () => setRule(own()));
  $("save").addEventListener("click", csv);
  $("clear").addEventListener("click", clear);
  $("keys").addEventListener("click", () => $("help").showModal());
  $("model").addEventListener("change", () => {
    choose($("model").value);
    for (const card of state.cards) card.again();
    state.queue = [...state.cards];
    redraw();
    send();
  });
  try {
    const said = await refresh();
    document.documentElement.dataset.ready = "yes";
    if (said.examples && new URLSearchParams(location.search).has("examples")) add(await api.examples());
  } catch (why) {
    notice(why.message);
  }
}

begin();

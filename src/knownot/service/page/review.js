// The review desk: images in groups, a selection, one key for each mark, undo.

import { ask, models } from "./api.js";
import { lasso } from "./map.js";
import { percent, small } from "./rules.js";

const $ = (id) => document.getElementById(id);
const state = { model: null, classes: [], rows: [], groups: [], map: [], selected: new Set(), show: "unmarked", done: [], last: null, lastNew: "", threshold: 0.05, first: null };

const query = (more = "") => `model=${encodeURIComponent(state.model)}&show=${state.show}${more}`;
const get = async (url) => (await ask(`v1/review/${url}`)).json();
const post = async (url, body) => (await ask(`v1/review/${url}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).json();

// ---- what is there

async function load() {
  const [kept, found] = await Promise.all([get(`images?${query("&limit=1000")}`), get(`clusters?${query()}`)]);
  state.rows = kept.rows ?? kept.images;
  state.classes = kept.classes;
  state.map = found.map;
  state.clusters = found.clusters;
  const ids = new Set(state.rows.map((row) => row.id));
  for (const id of state.selected) if (!ids.has(id)) state.selected.delete(id);
  $("progress").textContent = `${kept.count} image${kept.count === 1 ? "" : "s"}${kept.count > state.rows.length ? `, the first ${state.rows.length} are shown` : ""}. ${found.note}`;
  buttons();
  draw();
  run(rate);
}

async function rate() {
  const r = await get(`rate?${query()}`);
  $("rate").textContent = `Measured on a random ${percent(r.share)} of all images: ${r.sentence}`;
}

function grouped() {
  const rows = [...state.rows], order = $("order").value;
  if (state.first) {
    const place = new Map(state.first.map((id, i) => [id, i]));
    rows.sort((a, b) => (place.get(a.id) ?? 1e9) - (place.get(b.id) ?? 1e9) || a.id - b.id);
    return [{ title: "Those most alike to the one in focus, first", rows }];
  }
  if (order === "cluster") {
    const byId = new Map(rows.map((row) => [row.id, row])), groups = [];
    for (const [i, c] of state.clusters.entries()) {
      const mine = c.ids.map((id) => byId.get(id)).filter(Boolean);
      for (const row of mine) byId.delete(row.id);
      if (mine.length) groups.push({ title: `Cluster ${i + 1}`, more: `the classifier would say ${c.like} for ${percent(c.like_share)}`, rows: mine });
    }
    const rest = [...byId.values()].sort((a, b) => a.p_value - b.p_value || b.score - a.score);
    if (rest.length) groups.push({ title: groups.length ? "In no cluster" : "Images", rows: rest });
    return groups;
  }
  const far = (row) => Math.abs(Math.log(row.p_value / state.threshold));
  rows.sort({ unknown: (a, b) => a.p_value - b.p_value || b.score - a.score, near: (a, b) => far(a) - far(b), new: (a, b) => b.id - a.id }[order]);
  return [{ title: "Images", rows }];
}

function words(row) {
  if (row.kind === null) return "";
  return { class: row.name, new: `new: ${row.name}`, none: "none of the above", unusable: "not usable" }[row.kind] + ` (${row.who})`;
}

function tile(row) {
  const item = document.createElement("li"), image = document.createElement("img"), verdict = document.createElement("span"), p = document.createElement("span");
  item.className = "tile";
  item.tabIndex = -1;
  item.dataset.id = row.id;
  item.setAttribute("role", "option");
  item.setAttribute("aria-selected", String(state.selected.has(row.id)));
  image.src = row.thumb;
  image.alt = `image ${row.id}`;
  image.loading = "lazy";
  verdict.textContent = row.status === "known" ? row.closed_class : `like ${row.closed_class}`;
  verdict.title = row.status === "known" ? "accepted as this class" : "rejected; the classifier alone would say this class";
  p.textContent = `p = ${small(row.p_value)}`;
  item.append(image, verdict, p);
  if (row.audited) {
    const drawn = document.createElement("span");
    drawn.textContent = "random share";
    item.append(drawn);
  }
  if (row.kind !== null) {
    const mark = document.createElement("span");
    mark.className = "mark";
    mark.textContent = words(row);
    item.append(mark);
  }
  return item;
}

function draw() {
  const focused = document.activeElement?.dataset?.id;
  state.groups = grouped();
  $("groups").replaceChildren(...state.groups.map((group, g) => {
    const section = document.createElement("section"), head = document.createElement("h2"), list = document.createElement("ul"), all = document.createElement("button"), more = document.createElement("span");
    section.className = "group";
    head.textContent = `${group.title} (${group.rows.length})`;
    more.className = "soft";
    more.textContent = group.more ?? "";
    all.className = "quiet";
    all.textContent = "Select all";
    all.addEventListener("click", () => selectGroup(g));
    head.append(more, all);
    list.className = "tiles";
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-multiselectable", "true");
    list.setAttribute("aria-label", group.title);
    list.append(...group.rows.map(tile));
    section.append(head, list);
    return section;
  }));
  if (!state.rows.length) {
    const none = document.createElement("p");
    none.className = "soft";
    none.textContent = state.show === "unmarked" ? "Nothing waits for a mark." : "There is nothing here.";
    $("groups").append(none);
  }
  const first = $("groups").querySelector(".tile");
  if (first) first.tabIndex = 0;
  if (focused) document.querySelector(`.tile[data-id="${focused}"]`)?.focus({ preventScroll: true });
  selection();
}

function selection() {
  for (const element of tiles()) element.setAttribute("aria-selected", String(state.selected.has(Number(element.dataset.id))));
  const n = targets().length;
  $("count").textContent = state.selected.size ? `${n} image${n === 1 ? "" : "s"}` : n ? "the image in focus" : "nothing";
  for (const button of $("marks").children) button.disabled = !n;
  $("delete").disabled = !state.selected.size;
  $("alike").disabled = !focusedRow();
  $("undo").disabled = !state.done.length;
  paint(state.map, state.selected);
}

const tiles = () => [...document.querySelectorAll(".tile")];
const rowOf = (element) => state.rows.find((row) => row.id === Number(element?.dataset?.id));
const focusedRow = () => rowOf(document.activeElement) ?? rowOf(document.querySelector(`.tile[data-id="${state.last}"]`));

function targets() {
  if (state.selected.size) return state.rows.filter((row) => state.selected.has(row.id));
  const row = focusedRow();
  return row ? [row] : [];
}

function selectGroup(g) {
  const ids = state.groups[g].rows.map((row) => row.id), all = ids.every((id) => state.selected.has(id));
  state.selected = new Set(all ? [] : ids);
  selection();
}

function select(element, shift, only) {
  const all = tiles(), at = all.indexOf(element), id = Number(element.dataset.id);
  if (shift && state.last !== null) {
    const from = all.findIndex((one) => Number(one.dataset.id) === state.last);
    for (const one of all.slice(Math.min(at, from), Math.max(at, from) + 1)) state.selected.add(Number(one.dataset.id));
  } else if (state.selected.has(id) && !only) state.selected.delete(id);
  else state.selected.add(id);
  state.last = id;
  selection();
}

// ---- marks

function buttons() {
  const list = [
    ["N", "new class …", newClass],
    ...(state.lastNew ? [["R", `new class ${state.lastNew}`, () => mark("new", state.lastNew)]] : []),
    ["0", "none of the above", () => mark("none")],
    ["U", "not usable", () => mark("unusable")],
    ...state.classes.map((name, i) => [i < 9 ? String(i + 1) : "", name, () => mark("class", name)]),
  ];
  $("marks").replaceChildren(...list.map(([key, text, act]) => {
    const button = document.createElement("button"), kbd = document.createElement("kbd"), span = document.createElement("span");
    kbd.textContent = key;
    span.textContent = text;
    button.append(kbd, span);
    button.dataset.key = key;
    button.addEventListener("click", act);
    return button;
  }));
}

function who() {
  const name = $("who").value.trim();
  if (!name) { $("who").focus(); notice("Say who you are first: every mark has a name."); return null; }
  localStorage.setItem("who", name);
  return name;
}

async function mark(kind, name = null) {
  const rows = targets(), me = who();
  if (!rows.length || !me) return;
  await changed(await post(`marks?${query()}`, { who: me, mark: { kind, name }, images: rows.map((row) => ({ id: row.id, version: row.version })) }), (row) => Object.assign(row, { kind, name, who: me }), rows);
}

async function changed(said, apply, rows) {
  const versions = new Map(said.changed.map((one) => [one.id, one.version]));
  const order = tiles().map((one) => Number(one.dataset.id)), lastOf = Math.max(...rows.map((row) => order.indexOf(row.id)));
  for (const row of state.rows) if (versions.has(row.id)) { row.version = versions.get(row.id); apply(row); }
  if (versions.size) state.done.push(said.batch);
  state.selected.clear();
  const next = order.slice(lastOf + 1).concat(order.slice(0, lastOf + 1).reverse()).find((id) => !versions.has(id));
  if (state.show === "unmarked") {
    const gone = (row) => row.kind !== null;
    const ids = new Set(state.rows.filter(gone).map((row) => row.id));
    state.rows = state.rows.filter((row) => !gone(row));
    state.map = state.map.filter(([id]) => !ids.has(id));
  }
  if (said.conflicts.length) {
    const one = said.conflicts[0];
    notice(`${said.conflicts.length} image${said.conflicts.length === 1 ? " was" : "s were"} marked meanwhile${one.who ? ` by ${one.who}` : ""} and keep${said.conflicts.length === 1 ? "s" : ""} that mark.`);
    await load();
  } else draw();
  state.last = next ?? null;
  document.querySelector(`.tile[data-id="${next}"]`)?.focus();
  run(rate);
}

async function undo() {
  const batch = state.done.pop(), me = who();
  if (!batch || !me) return;
  const said = await post("undo", { who: me, batch });
  if (said.conflicts.length) notice(`${said.conflicts.length} of them were marked again meanwhile and stay as they are.`);
  await load();
  const back = said.changed[0]?.id;
  document.querySelector(`.tile[data-id="${back}"]`)?.focus();
}

function newClass() {
  if (!targets().length || !who()) return;
  const names = new Set(state.rows.filter((row) => row.kind === "new").map((row) => row.name));
  if (state.lastNew) names.add(state.lastNew);
  $("new-names").replaceChildren(...[...names].map((name) => new Option(name)));
  $("new-name").value = "";
  $("naming").returnValue = "";
  $("naming").showModal();
}

async function remove() {
  const ids = [...state.selected];
  if (!ids.length || !confirm(`Delete ${ids.length} image${ids.length === 1 ? "" : "s"} and their marks for good?`)) return;
  await post("delete", { images: ids });
  state.selected.clear();
  await load();
}

async function alike() {
  const row = focusedRow();
  if (!row) return;
  state.first = (await get(`images/${row.id}/alike?${query()}`)).ids;
  state.last = row.id;
  draw();
  document.querySelector(`.tile[data-id="${row.id}"]`)?.focus();
}

async function take(form) {
  const blob = await (await ask(`v1/review/export?${query(`&form=${form}`)}`)).blob(), link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `marked.${form}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// ---- one image large

let shown = null;
async function look(row) {
  if (!row || shown === row.id) return;
  shown = row.id;
  const image = $("focus").querySelector("img");
  $("focus").querySelector("figcaption").textContent = `${row.status}, p = ${small(row.p_value)}; the classifier alone would say ${row.closed_class}, ${percent(row.confidence)} sure. ${words(row)}`;
  try {
    const blob = await (await ask(`v1/review/images/${row.id}/file`)).blob();
    if (shown !== row.id) return;
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(blob);
    $("focus").hidden = false;
  } catch { $("focus").hidden = true; }
}

// ---- keyboard and wiring

let fading = 0;
function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
  clearTimeout(fading);
  fading = setTimeout(() => { $("notice").hidden = true; }, 8000);
}

function move(key) {
  const all = tiles();
  if (!all.length) return;
  const at = all.indexOf(document.activeElement);
  if (at < 0) { all[0].focus(); return; }
  if (key === "ArrowLeft" || key === "ArrowRight") { all[Math.max(0, Math.min(all.length - 1, at + (key === "ArrowLeft" ? -1 : 1)))].focus(); return; }
  const own = all[at].getBoundingClientRect(), down = key === "ArrowDown";
  const rows = all.map((one) => [one, one.getBoundingClientRect()]).filter(([, box]) => (down ? box.top > own.top + 5 : box.top < own.top - 5));
  rows.sort((a, b) => Math.abs(a[1].top - own.top) - Math.abs(b[1].top - own.top) || Math.abs(a[1].left - own.left) - Math.abs(b[1].left - own.left));
  rows[0]?.[0].focus();
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
  const key = event.key.length === 1 ? event.key.toUpperCase() : event.key, tile_ = event.target.classList?.contains("tile") ? event.target : null;
  const button = [...$("marks").children].find((one) => one.dataset.key && one.dataset.key === key);
  if (key.startsWith("Arrow")) move(key);
  else if (key === " " && tile_) select(tile_, event.shiftKey);
  else if (key === "A") { const g = state.groups.findIndex((group) => group.rows.includes(focusedRow())); if (g >= 0) selectGroup(g); }
  else if (key === "Escape") { state.selected.clear(); selection(); }
  else if (key === "Z") run(undo);
  else if (key === "S") run(alike);
  else if (key === "?") $("help").showModal();
  else if (button) button.click();
  else return;
  event.preventDefault();
}

const run = (act) => act().catch((why) => notice(why.message));
addEventListener("unhandledrejection", (event) => notice(event.reason?.message ?? "Something went wrong."));
const paint = lasso($("map"), (ids) => { state.selected = new Set(ids.filter((id) => state.rows.some((row) => row.id === id))); selection(); });

async function begin() {
  $("who").value = localStorage.getItem("who") ?? "";
  $("groups").addEventListener("click", (event) => { const one = event.target.closest(".tile"); if (one) { one.focus(); select(one, event.shiftKey); } });
  $("groups").addEventListener("focusin", (event) => { const row = rowOf(event.target); if (row) { look(row); selection(); } });
  document.addEventListener("keydown", pressed);
  for (const button of document.querySelectorAll("[data-show]")) {
    button.addEventListener("click", () => {
      state.show = button.dataset.show;
      state.first = null;
      for (const one of document.querySelectorAll("[data-show]")) one.setAttribute("aria-pressed", String(one === button));
      run(load);
    });
  }
  $("order").addEventListener("change", () => { state.first = null; draw(); });
  $("undo").addEventListener("click", () => run(undo));
  $("alike").addEventListener("click", () => run(alike));
  $("delete").addEventListener("click", () => run(remove));
  $("zip").addEventListener("click", () => run(() => take("zip")));
  $("parquet").addEventListener("click", () => run(() => take("parquet")));
  $("keys").addEventListener("click", () => $("help").showModal());
  $("naming").addEventListener("close", () => {
    const name = $("new-name").value.trim();
    if ($("naming").returnValue !== "ok" || !name) return;
    state.lastNew = name;
    run(() => mark("new", name)).then(() => { buttons(); selection(); });
  });
  $("model").addEventListener("change", () => { choose($("model").value); run(load); });
  const said = await models();
  state.models = said.models;
  $("model").replaceChildren(...said.models.map((m) => new Option(m.name, m.name)));
  choose(said.default);
  await load();
  document.documentElement.dataset.ready = "yes";
}

function choose(name) {
  state.model = name;
  state.threshold = state.models.find((m) => m.name === name).p_threshold;
  state.selected.clear();
  state.done = [];
  state.first = null;
}

run(begin);

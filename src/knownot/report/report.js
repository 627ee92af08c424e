(() => {
  "use strict";
  const at = id => document.getElementById(id);
  const tools = at("tools");
  if (!tools) return;
  const tiles = [...document.querySelectorAll(".tile")];
  const groups = [...document.querySelectorAll(".group")];
  const homes = new Map(tiles.map(tile => [tile, tile.parentNode]));
  const flat = at("flat"), search = at("search"), by = at("by"), only = at("only"), slider = at("slider");
  const steps = slider ? JSON.parse(slider.dataset.steps) : [];
  const total = Number(tools.dataset.total);
  for (const name of [...new Set(tiles.map(tile => tile.dataset.class))].sort()) {
    only.append(new Option(name, name));
  }
  const orders = {
    p: (a, b) => a.dataset.p - b.dataset.p || a.dataset.order - b.dataset.order,
    sure: (a, b) => b.dataset.sure - a.dataset.sure,
    name: (a, b) => a.dataset.name.localeCompare(b.dataset.name, undefined, {numeric: true}),
  };
  const marks = new Map([...document.querySelectorAll("#map a")].map(mark =>
    [at("card-" + mark.dataset.tile).closest(".tile"), mark]));
  function show() {
    const words = search.value.trim().toLowerCase();
    const limit = steps.length ? steps[slider.value][0] : 1;
    let shown = 0;
    for (const tile of tiles) {
      const fits = (!words || (tile.dataset.name + " " + tile.dataset.class).toLowerCase().includes(words))
        && (!only.value || tile.dataset.class === only.value);
      tile.hidden = !fits;
      tile.classList.toggle("beyond", Number(tile.dataset.p) > limit * (1 + 1e-9));
      marks.get(tile)?.classList.toggle("away", !fits);
      shown += fits;
    }
    for (const group of groups) {
      group.hidden = by.value !== "group" || ![...group.querySelectorAll(".tile")].some(tile => !tile.hidden);
    }
    at("shown").textContent = shown + " of " + tiles.length + " shown";
    if (steps.length) {
      const [p, count, known] = steps[slider.value];
      at("limit").textContent = "p ≤ " + p.toPrecision(2) + ": " + count.toLocaleString("en") + " of "
        + total.toLocaleString("en") + " unknown, at most " + known.toLocaleString("en") + " of them known";
    }
  }
  function sort() {
    if (by.value === "group") {
      for (const tile of tiles) homes.get(tile).append(tile);
    } else {
      flat.append(...[...tiles].sort(orders[by.value]));
    }
    flat.hidden = by.value === "group";
    show();
  }
  search.addEventListener("input", show);
  only.addEventListener("change", show);
  by.addEventListener("change", sort);
  if (slider) slider.addEventListener("input", show);
  for (const link of document.querySelectorAll("a[data-class]")) {
    link.addEventListener("click", () => { only.value = link.dataset.class; show(); });
  }
  for (const [tile, mark] of marks) {
    mark.addEventListener("click", event => {
      event.preventDefault();
      tile.open = true;
      tile.scrollIntoView({block: "center"});
      tile.querySelector("summary").focus({preventScroll: true});
    });
  }
  tools.hidden = false;
  show();
})();

(() => {
  "use strict";
  const at = id => document.getElementById(id);
  const body = at("table").tBodies[0], rows = [...body.rows];
  const heads = [...at("table").tHead.rows[0].cells];
  const key = (row, column) => column ? Number(row.cells[column].dataset.by) : row.dataset.name;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
      const order = (a, b) => column ? key(a, column) - key(b, column) : key(a, 0).localeCompare(key(b, 0));
      body.append(...rows.sort((a, b) => down * order(a, b)));
    });
  });
  const passes = heads.findIndex(head => head.textContent === "passes");
  const filter = () => {
    const part = at("filter").value.toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !row.dataset.name.toLowerCase().includes(part) || (at("one-pass").checked && key(row, passes) > 0);
      shown += !row.hidden;
    }
    at("count").textContent = `${shown} of ${rows.length}`;
  };
  at("filter").addEventListener("input", filter);
  at("one-pass").addEventListener("input", filter);
  at("tools").hidden = false;
  filter();
  const sections = [...document.querySelectorAll(".disagree")];
  if (sections.length) {
    for (const section of sections) at("pair").append(new Option(section.dataset.title));
    const show = () => sections.forEach((section, i) => { section.hidden = i !== at("pair").selectedIndex; });
    at("pair").addEventListener("input", show);
    at("choose").hidden = false;
    show();
  }
})();

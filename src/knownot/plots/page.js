(() => {
  /* What every page can do beyond reading: tables that are sorted by their headings and searched, pictures that are
     searched, sorted and enlarged. Without this script a page shows the same, in the order it was written. */
  "use strict";
  const MANY = 8;  /* rows or pictures from which on there is a search */
  const made = (name, text, attributes = {}) => {
    const element = document.createElement(name);
    element.textContent = text;
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    return element;
  };
  const number = text => {
    const found = text.replace(/[,\u00a0]/g, "").match(/^[<≤>≥+±\s]*(-?\d+(?:\.\d+)?(?:e-?\d+)?)/i);
    return found ? Number(found[1]) : NaN;
  };
  /* What a cell or picture is sorted by: data-by, the value of its first <data>, a number in its text, or the text. */
  const key = cell => {
    if (cell.dataset.by !== undefined) return Number(cell.dataset.by);
    const data = cell.querySelector("data[value]");
    if (data) return Number(data.value);
    const text = cell.textContent.trim();
    return cell.tagName === "TH" ? text : number(text);
  };
  const compare = (a, b) => {
    if (typeof a === "string" || typeof b === "string") return String(a).localeCompare(String(b), undefined, {numeric: true});
    return (Number.isNaN(a) - Number.isNaN(b)) || a - b || 0;
  };
  /* A search for items, put before `place`; also called when other filters have changed. */
  function search(items, place, what) {
    const bar = made("div", "", {class: "tools"});
    const label = made("label", "Search ");
    const input = made("input", "", {type: "search", "aria-label": "Search " + what});
    const shown = made("output", "");
    const show = () => {
      const words = input.value.trim().toLowerCase();
      let n = 0;
      for (const item of items) {
        item.hidden = !item.textContent.toLowerCase().includes(words) || item.dataset.out === "yes";
        n += !item.hidden;
      }
      shown.textContent = n + " of " + items.length + " shown";
    };
    label.append(input);
    bar.append(label, shown);
    place.before(bar);
    input.addEventListener("input", show);
    show();
    return {bar, show};
  }
  for (const table of document.querySelectorAll("table.sorted")) {
    const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = made("button", "", {type: "button"});
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
        const keys = new Map(rows.map(row => [row, key(row.cells[column])]));
        const empty = row => Number.isNaN(keys.get(row));
        const order = (a, b) => empty(a) || empty(b) ? empty(a) - empty(b) : down * compare(keys.get(a), keys.get(b));
        body.append(...[...rows].sort(order));
      });
    });
    if (rows.length < MANY) continue;
    const {bar, show} = search(rows, table.closest(".scroll") || table, "the table");
    for (const box of document.querySelectorAll("input[data-table=" + (table.id || "none") + "]")) {
      const column = heads.findIndex(head => head.textContent === box.dataset.column);
      box.addEventListener("input", () => {
        for (const row of rows) row.dataset.out = box.checked && key(row.cells[column]) > 0 ? "yes" : "no";
        show();
      });
      bar.append(box.parentNode);
      box.parentNode.hidden = false;
    }
  }
  for (const list of document.querySelectorAll("ul.pictures")) {
    const items = [...list.children];
    for (const item of items) {
      const picture = item.querySelector("img"), button = made("button", "", {type: "button", "aria-expanded": "false"});
      button.setAttribute("aria-label", "Larger: " + item.querySelector(".id").textContent);
      picture.before(button);
      button.append(picture);
      button.addEventListener("click", () => {
        const open = item.classList.toggle("open");
        button.setAttribute("aria-expanded", String(open));
        const name = item.querySelector(".id").textContent;
        for (const row of document.querySelectorAll("tr[data-name]")) {
          if (row.dataset.name === name) row.classList.toggle("chosen", open);
        }
      });
    }
    if (items.length < MANY) continue;
    const {bar} = search(items, list, "the pictures");
    const by = made("select", ""), label = made("label", "Order ");
    const orders = {"as listed": null, "name": item => item.querySelector(".id").textContent,
      "most sure first": item => -Number(item.dataset.sure)};
    for (const name in orders) if (name !== "most sure first" || items[0].dataset.sure) by.append(new Option(name));
    label.append(by);
    bar.append(label);
    by.addEventListener("change", () => {
      const of = orders[by.value];
      list.append(...(of ? [...items].sort((a, b) => compare(of(a), of(b))) : items));
    });
  }
})();

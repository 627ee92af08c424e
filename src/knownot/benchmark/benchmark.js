(() => {
  "use strict";
  const at = id => document.getElementById(id);
  const sections = [...document.querySelectorAll(".disagree")];
  if (!sections.length) return;
  for (const section of sections) at("pair").append(new Option(section.dataset.title));
  const show = () => sections.forEach((section, i) => { section.hidden = i !== at("pair").selectedIndex; });
  at("pair").addEventListener("input", show);
  at("choose").hidden = false;
  show();
})();

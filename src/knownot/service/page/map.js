// Points in the plane; drawing around some of them selects them.

export function lasso(canvas, chosen) {
  const context = canvas.getContext("2d"), edge = 14;
  let points = [], selected = new Set(), path = null;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const place = ([, x, y]) => [edge + x * (canvas.width - 2 * edge), edge + (1 - y) * (canvas.height - 2 * edge)];

  function paint() {
    context.clearRect(0, 0, canvas.width, canvas.height);
    const plain = colour("--unknown"), picked = colour("--known"), line = colour("--ink");
    for (const point of points) {
      const [x, y] = place(point), yes = selected.has(point[0]);
      context.beginPath();
      if (yes) context.rect(x - 6, y - 6, 12, 12);
      else context.arc(x, y, 5, 0, 7);
      context.globalAlpha = yes ? 1 : 0.65;
      context.fillStyle = yes ? picked : plain;
      context.fill();
    }
    context.globalAlpha = 1;
    if (path) {
      context.beginPath();
      path.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.strokeStyle = line;
      context.lineWidth = 2;
      context.stroke();
    }
  }

  function inside([x, y], polygon) { // how often a ray to the right crosses the polygon: odd is inside
    let odd = false;
    for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
      const [xi, yi] = polygon[i], [xj, yj] = polygon[j];
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
    }
    return odd;
  }

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
  };
  canvas.addEventListener("pointerdown", (event) => { path = [at(event)]; canvas.setPointerCapture?.(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => { if (path) { path.push(at(event)); paint(); } });
  canvas.addEventListener("pointerup", () => {
    const polygon = path;
    path = null;
    if (polygon && polygon.length > 2) chosen(points.filter((point) => inside(place(point), polygon)).map((point) => point[0]));
    paint();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  return (newPoints, newSelected) => { points = newPoints; selected = newSelected; paint(); };
}

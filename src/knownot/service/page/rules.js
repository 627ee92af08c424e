// Which p-values mean unknown, under which alpha, and what is promised then.

const SLACK = 1 + 1e-6; // p-values of exported files are float32

export function statusOf(verdict, rule) {
  if (verdict.status === "unreadable") return "unreadable";
  return verdict.p_value <= rule.p_threshold * SLACK ? "unknown" : "known";
}

export function sure(share) {
  return share > 0.999 ? "> 99.9 %" : share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}

export function percent(share) {
  const x = 100 * share;
  return `${Number(x.toPrecision(x >= 10 ? 3 : 2))} %`;
}

export function small(p) {
  if (p >= 0.095) return p.toFixed(2);
  return String(Number(p.toPrecision(2)));
}

// Where a p-value stands on the scale, 0 to 100: logarithmic from 0.001 on.
export function place(p) {
  return 100 * Math.max(0, Math.min(1, 1 + Math.log10(Math.max(p, 1e-9)) / 3));
}

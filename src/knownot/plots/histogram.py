"""The scores of known and of incoming images, one over the other, as an SVG drawing.

Both are drawn as shares of their own number, so that 500 calibration images and a million incoming ones can be
compared. Drawn without matplotlib, which the light install lacks; the colours are those of palette.py, by page.css.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

BINS = 48
WIDEST = 3.0  # to either side, at most so many times the range of the known images is shown
HUGE = 1e300  # so that differences of scores stay finite


@dataclass(frozen=True)
class Bins:
    """Shares per bin. The first and the last number are those beyond the edges.

    below, above: how many (known, incoming) images lie beyond the range shown.
    """

    lo: float
    hi: float
    known: np.ndarray  # [BINS + 2], sums to 1, or to 0 without images
    incoming: np.ndarray  # [BINS + 2]
    below: tuple[int, int]
    above: tuple[int, int]


def bins_of(calibration: np.ndarray, incoming: np.ndarray, threshold: float | None) -> Bins:
    """Equal bins over a range that always holds the threshold and the bulk of the known images.

    Long tails, and infinite scores, are counted beyond the edges. NaN is left out.
    """
    known, new = (np.asarray(s, np.float64).ravel() for s in (calibration, incoming))
    known, new = known[~np.isnan(known)], new[~np.isnan(new)]
    lo, hi = _range(known, new, threshold)
    edges = np.linspace(lo, hi, BINS + 1)
    shares, below, above = [], [], []
    for scores in (known, new):
        inside = scores[(scores >= lo) & (scores <= hi)]
        below.append(int(np.count_nonzero(scores < lo)))
        above.append(int(np.count_nonzero(scores > hi)))
        counts = np.array([below[-1], *np.histogram(inside, edges)[0], above[-1]], np.float64)
        shares.append(counts / max(len(scores), 1))
    return Bins(
        lo=lo, hi=hi, known=shares[0], incoming=shares[1], below=(below[0], below[1]), above=(above[0], above[1])
    )


def _range(known: np.ndarray, new: np.ndarray, threshold: float | None) -> tuple[float, float]:
    line = np.array([] if threshold is None else [threshold], np.float64)
    known, new, line = (np.clip(s, -HUGE, HUGE)[np.isfinite(s)] for s in (known, new, line))
    every = np.concatenate([known, new, line])
    if not len(every):
        return 0.0, 1.0
    bulk = np.concatenate([np.quantile(known, [0.005, 0.995]) if len(known) else new, line])
    least, most = float(bulk.min()), float(bulk.max())
    span = max(most - least, 1e-6 * max(abs(least), abs(most), 1e-6))
    near = new[(new >= least - WIDEST * span) & (new <= most + WIDEST * span)]
    ends = np.quantile(near, [0.01, 0.99]) if len(near) else [least, most]  # no room for a lone image far out
    lo = max(float(every.min()), min(least, float(ends[0])) - span / 2)
    hi = min(float(every.max()), max(most, float(ends[1])) + span / 2)
    margin = max(0.03 * (hi - lo), span / 2 if hi - lo < span else 0.0)
    return lo - margin, hi + margin


def ticks(lo: float, hi: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) between lo and hi, at most about so many."""
    if not (math.isfinite(lo) and math.isfinite(hi)) or hi <= lo:
        return [lo]
    raw = (hi - lo) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    return [i * step for i in range(math.ceil(lo / step - 1e-9), math.floor(hi / step + 1e-9) + 1)]


def label(x: float, digits: int = 6) -> str:
    return f"{x:.{digits}g}".replace("-", "−")


def histogram(
    calibration: np.ndarray,  # [m]
    incoming: np.ndarray,  # [n]
    threshold: float | None,
    *,
    width: int = 960,
    height: int = 340,
    name: str = "histogram",
) -> Markup:
    """An `<svg>` element. name: prefix of the ids in it, so that a page can hold several."""
    b = bins_of(calibration, incoming, threshold)
    small = width < 600
    left, right, top, bottom = 46, 10, 30 if threshold is not None else 12, 46
    has_below, has_above = any(b.below), any(b.above)
    plot = width - left - right
    cell = plot / (BINS + 2 * has_below + 2 * has_above)  # a tail's bar stands one bin apart
    x0 = left + 2 * cell * has_below
    base = height - bottom

    def x(score: float) -> float:
        return x0 + (score - b.lo) / (b.hi - b.lo) * cell * BINS

    peak = max(float(b.known.max()), float(b.incoming.max()), 1e-9)
    marks = ticks(0.0, peak * 1.02, 4)

    def y(share: float) -> float:
        return base - share / (peak * 1.06) * (base - top)

    out: list[str] = []
    for mark in marks:
        out.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>')
        out.append(f'<text x="{left - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{label(100 * mark)} %</text>')
    for mark in ticks(b.lo, b.hi, 5 if small else 10):
        out.append(f'<line class="axis" x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{base}" y2="{base + 5}"/>')
        if left + 52 * has_below <= x(mark) <= width - right - 52 * has_above:  # room for "less" and "more"
            out.append(f'<text x="{x(mark):.1f}" y="{base + 18}" text-anchor="middle">{label(mark)}</text>')

    places = [left, *(x0 + i * cell for i in range(BINS)), x0 + (BINS + 1) * cell]
    for kind, shares in (("incoming", b.incoming), ("known", b.known)):
        tops = [y(share) for share in shares]
        steps = "".join(f"V{tops[i]:.1f}H{places[i] + cell:.1f}" for i in range(1, BINS + 1))
        out.append(f'<path class="{kind}" d="M{x0:.1f},{base}{steps}V{base}Z"/>')
        for i, there in ((0, has_below), (BINS + 1, has_above)):
            if there:
                size = f'width="{cell:.1f}" height="{base - tops[i]:.1f}"'
                out.append(f'<rect class="{kind}" x="{places[i]:.1f}" y="{tops[i]:.1f}" {size}/>')
    out.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{base}" y2="{base}"/>')
    if has_below:
        out.append(f'<text x="{left}" y="{base + 18}" text-anchor="start">less</text>')
    if has_above:
        out.append(f'<text x="{width - right}" y="{base + 18}" text-anchor="end">more</text>')
    if threshold is not None and math.isfinite(threshold):
        out += _threshold(x(threshold), threshold, width, top, base)
    axis = "score (larger: less known)" if small else "score: the larger, the less an image is like the known ones"
    out.append(f'<text x="{left + plot / 2:.1f}" y="{height - 6}" text-anchor="middle">{axis}</text>')
    title = escape(summary(b, len(calibration), int(np.count_nonzero(~np.isnan(incoming))), threshold))
    return Markup(
        f'<svg class="histogram {"narrow" if small else "wide"}" role="img" '
        f'viewBox="0 0 {width} {height}" aria-labelledby="{escape(name)}-title">'
        f'<title id="{escape(name)}-title">{title}</title>{"".join(out)}</svg>'
    )


def _threshold(at: float, threshold: float, width: int, top: int, base: int) -> list[str]:
    """The line of the threshold, and its words on the side where there is room."""
    line = f"threshold {label(threshold, 4)}"
    room = at + 6 + 7.5 * len(f"{line}, unknown →") < width  # a bold letter of 13 px is about 7.5 px wide
    anchor, shift, text = ("start", 6.0, f"{line}, unknown →") if room else ("end", -6.0, f"← known, {line}")
    if not room and at < width / 2:
        anchor, shift, text = "middle", width / 2 - at, line
    return [
        f'<line class="threshold" x1="{at:.1f}" x2="{at:.1f}" y1="{top - 8}" y2="{base}"/>',
        f'<text class="strong" x="{at + shift:.1f}" y="{top - 10}" text-anchor="{anchor}">{text}</text>',
    ]


def summary(b: Bins, known: int, incoming: int, threshold: float | None) -> str:
    """The drawing in words, for those who do not see it."""
    line = "no single threshold" if threshold is None else f"threshold {threshold:.4g}"
    return (
        f"Histogram of the scores of {known:,} known calibration images and {incoming:,} incoming images, "
        f"from {b.lo:.4g} to {b.hi:.4g}; {line}."
    )


def tails(b: Bins) -> list[str]:
    """What the drawing leaves out, one sentence per edge."""
    edges = (("Left", b.lo, b.below), ("Right", b.hi, b.above))
    return [
        f"{edge} of {label(limit, 4)}, in the bar at the edge: {known:,} known and {incoming:,} incoming images."
        for edge, limit, (known, incoming) in edges
        if known or incoming
    ]

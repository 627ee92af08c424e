"""The page of a stream: what came over time, and the alarms."""

from __future__ import annotations

import math
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup, escape

from ..plots import data_uri, percent
from .events import KINDS
from .state import write_whole

if TYPE_CHECKING:
    from .monitor import Monitor

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 200, 46, 8, 24


def write_page(monitor: Monitor, path: str | Path, alpha: float) -> None:
    """One HTML file without scripts. alpha: the share of known images that may be called unknown."""
    write_whole(Path(path), page(monitor, alpha).encode("utf-8", "backslashreplace"))


def page(monitor: Monitor, alpha: float, *, whole: bool = True) -> str:
    """The page as text, or the inside of its body only, for a page that has the colours."""
    from ..plots.page import render

    blocks = monitor.blocks()
    if len(blocks) > 120:  # neighbours together, so that a block is wide enough to be seen
        blocks = _joined(blocks, 120)
    n = blocks[:, 0]
    shares = np.array([_interval(u, m) for u, m in zip(blocks[:, 1], n, strict=True)]).reshape(-1, 3)
    marks = [(a.image, f"{a.kind}, image {a.image:,}") for a in monitor.alarms]
    template = "stream.html.j2" if whole else "stream_body.html.j2"
    return render(
        "monitoring", template, {"picture": _picture}, monitor=monitor, share=monitor.recent_share(),
        alpha=alpha,
        evidence=[(k, math.exp(min(700, monitor.log_evidence(k))), math.exp(monitor.log_threshold(k))) for k in KINDS],
        unknown=_plot(n, shares[:, 0], marks, alpha, "Share of images called unknown", shares[:, 1:]),
        p=_plot(n, blocks[:, 2], marks, 0.5, "Mean p-value", None),
    )  # fmt: skip


@lru_cache(maxsize=256)
def _picture(file: str) -> str:
    """The address of an `<img>` for an image file, "" when it is not there (any more)."""
    from ..images.decode import Unreadable, decode

    try:
        return data_uri(decode(file)) if os.path.isfile(file) else ""
    except (Unreadable, ValueError):
        return ""


def _joined(blocks: np.ndarray, count: int) -> np.ndarray:
    groups = np.array_split(np.arange(len(blocks)), count)
    rows = []
    for g in groups:
        n = blocks[g, 0]
        rows.append([n.sum(), blocks[g, 1].sum(), (blocks[g, 2] * n).sum() / n.sum(), np.nan])
    return np.array(rows)


def _interval(successes: float, n: float) -> tuple[float, float, float]:
    """(share, low, high), Wilson's 95 % interval."""
    z = 1.96
    middle = (successes + z * z / 2) / (n + z * z)
    half = z * math.sqrt(max(0.0, successes * (n - successes) / n + z * z / 4)) / (n + z * z)
    return successes / n, max(0.0, middle - half), min(1.0, middle + half)


def _plot(
    n: np.ndarray, y: np.ndarray, marks: list[tuple[int, str]], line: float, title: str, band: np.ndarray | None
) -> Markup:
    """An `<svg>`: y over the count of images, with a dashed line, a band and a vertical mark at each alarm."""
    ends = np.cumsum(n)
    total = float(ends[-1]) if len(ends) else 1.0
    x = LEFT + (ends - n / 2) / total * (WIDTH - LEFT - 8)

    def at(value: np.ndarray | float) -> np.ndarray | float:
        return TOP + (1 - np.clip(value, 0, 1)) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for share in (0.0, 0.5, 1.0):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{at(share):.1f}" y2="{at(share):.1f}" stroke="var(--line)"/>'
            f'<text x="{LEFT - 6}" y="{at(share) + 4:.1f}" text-anchor="end" font-size="12" '
            f'fill="var(--soft)">{percent(share)}</text>'
        )
    if band is not None and len(x):
        upper = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, at(band[:, 1]), strict=True))  # type: ignore[arg-type]
        lower = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[::-1], at(band[::-1, 0]), strict=True))  # type: ignore[arg-type]
        parts.append(f'<polygon points="{upper} {lower}" fill="var(--incoming)" opacity="0.3"/>')
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, at(y), strict=True))  # type: ignore[arg-type]
    parts.append(f'<polyline points="{points}" fill="none" stroke="var(--incoming)" stroke-width="2"/>')
    parts.append(
        f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{at(line):.1f}" y2="{at(line):.1f}" stroke="var(--threshold)" '
        'stroke-dasharray="5 4"/>'
    )
    for image, says in marks:
        where = LEFT + image / total * (WIDTH - LEFT - 8)
        parts.append(
            f'<line x1="{where:.1f}" x2="{where:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="var(--problem)" '
            f'stroke-width="2"><title>{escape(says)}</title></line>'
        )
    parts.append(
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end" font-size="12" fill="var(--soft)">'
        f"image {int(total) if len(n) else 0:,}</text>"
    )
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )

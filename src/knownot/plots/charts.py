"""The charts of audit and benchmark; numbers in, `Markup` of an `<svg>` out. They compute nothing.

All are about 440 px wide, so that they stand two by two on a wide page and can still be read on a telephone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from .drawing import INK, drawing
from .words import visible

WIDTH = 440
MARKERS = {"known": "o", "incoming": "s", "fooling": "^"}
OWN = "DvPX*<>"  # of groups of unknown images, one after the other


@dataclass(frozen=True)
class Measured:
    """A number with its confidence interval."""

    value: float
    low: float
    high: float


def named(text: str, most: int = 22) -> str:
    """A name as a label: hostile characters spelled out, shortened, and no mathematics to matplotlib."""
    return textwrap.shorten(visible(text), most, placeholder="…").replace("$", r"\$") or " "


def bars(
    rows: Mapping[str, Measured],
    *,
    name: str,
    title: str,
    role: str = "incoming",
    behind: Mapping[str, Sequence[float]] | None = None,
    label: str = "",
    roles: Mapping[str, str] | None = None,
    wide: bool = False,
) -> Markup:
    """Horizontal bars of shares, 0 to 1, with their intervals as whiskers; the first row on top.

    behind: {what: shares [rows]} that hold the front ones, the largest first, drawn fainter behind them.
    roles: colour of single rows. label: what the axis and the front bars are. wide: names stand above their bars, not
    beside them.
    """
    n = len(rows)
    step = 36 if wide else 22
    with drawing(name, title, WIDTH, 64 + step * n + (22 if behind else 0)) as d:
        y = np.arange(n)[::-1]
        colours = [INK[(roles or {}).get(row, role)] for row in rows]
        for i, (what, shares) in enumerate((behind or {}).items()):
            d.axes.barh(y, shares, color=colours, alpha=0.2 + 0.25 * i, height=0.72, label=named(what, 40))
        front = list(rows.values())
        values = np.array([m.value for m in front])
        height = 0.4 if behind or wide else 0.72
        d.axes.barh(y, values, color=colours, height=height, label=named(label, 40))
        _whiskers(d.axes, front, y)
        d.axes.set_yticks(y, ["" if wide else named(row) for row in rows])
        for place, row in zip(y if wide else [], rows, strict=False):
            d.axes.text(0, place + 0.26, named(row, 60), va="bottom")
        d.axes.set_ylim(-0.6, n - 0.4 + 0.15 * wide)
        d.axes.tick_params(axis="y", length=0)
        for tick in d.axes.get_yticklabels():
            tick.set_color(INK["ink"])
        d.axes.grid(visible=False, axis="y")
        _percent(d.axes.xaxis)
        d.axes.set_xlim(0, 1.02)
        if behind:
            handles, texts = d.axes.get_legend_handles_labels()
            place = {"loc": "outside lower center", "ncols": len(behind) + 1, "handlelength": 1, "columnspacing": 1.2}
            for shown in d.figure.legend(handles, texts, **place).get_patches():
                shown.set_facecolor(INK[role])
                shown.set_edgecolor("none")
        elif label:
            d.axes.set_xlabel(label)
    return d.svg


def reliability(bins: Sequence[tuple[float, float, int, float, Measured]], *, name: str, title: str) -> Markup:
    """How often the classifier is right, for how sure it is; on the diagonal it is as right as it says.

    bins: (from, to, images, mean confidence, how often right) of those that hold images.
    """
    total = max(sum(b[2] for b in bins), 1)
    with drawing(name, title, WIDTH, 400, rows=(3, 1), share_x=True) as d:
        top, below = d.axes
        top.plot([0, 1], [0, 1], color=INK["threshold"], linestyle="--", linewidth=1.4, label="as sure as right")
        x = np.array([b[3] for b in bins])
        right = np.array([b[4].value for b in bins])
        errors = np.array([[b[4].value - b[4].low for b in bins], [b[4].high - b[4].value for b in bins]])
        top.errorbar(
            x, right, np.maximum(errors, 0), color=INK["known"], marker="o", markersize=5, linewidth=1.6,
            elinewidth=1.2, label="this classifier",
        )  # fmt: skip
        top.legend(loc="upper left")
        top.set_ylabel("right")
        top.set_ylim(0, 1.02)
        _percent(top.yaxis)
        below.bar(
            [(b[0] + b[1]) / 2 for b in bins], [b[2] / total for b in bins], width=[0.92 * (b[1] - b[0]) for b in bins],
            color=INK["known"], alpha=0.45,
        )  # fmt: skip
        below.set_ylabel("images")
        below.set_xlabel("how sure it is (softmax)")
        below.set_xlim(0, 1.02)
        _percent(below.xaxis)
        _percent(below.yaxis)
    return d.svg


def confusion(counts: np.ndarray, names: Sequence[str], *, name: str, title: str) -> Markup:
    """Rows are the true classes, columns what the classifier said: the share of each row, [c, c] counts.

    Right answers are in the colour of known images, wrong ones in that of unknown ones.
    """
    c = len(counts)
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    share = counts / total
    side = WIDTH
    with drawing(name, title, side, side) as d:
        from matplotlib.patches import Rectangle

        d.axes.grid(visible=False)
        for i in range(c):
            for j in range(c):
                if counts[i, j]:
                    # A wrong answer that is one in ten has to be seen.
                    role, alpha = ("known", 0.12 + 0.75 * share[i, j]) if i == j else ("unknown", share[i, j] ** 0.5)
                    box = Rectangle((j - 0.5, i - 0.5), 1, 1, color=INK[role], alpha=min(alpha, 0.9), linewidth=0)
                    d.axes.add_patch(box)
                    if c <= 12 and round(100 * share[i, j]):
                        d.axes.text(
                            j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center", fontsize=11, color=INK["ink"]
                        )
        d.axes.set_xlim(-0.5, c - 0.5)
        d.axes.set_ylim(c - 0.5, -0.5)
        d.axes.set_aspect("equal")
        labels = [named(n, 14) for n in names]
        d.axes.set_xticks(range(c), labels, rotation=90, fontsize=11)
        d.axes.set_yticks(range(c), labels, fontsize=11)
        d.axes.tick_params(length=0)
        d.axes.set_xlabel("what it said, % of the row")
        d.axes.set_ylabel("true class")
    return d.svg


def scatter(groups: Mapping[str, tuple[str, np.ndarray]], *, name: str, title: str) -> Markup:
    """Points on a plane. groups: {what: (role, points [n, 2])}, drawn one over the other; shapes differ as well.

    A few points far out must not press the others together: they are drawn at the edge.
    """
    with drawing(name, title, WIDTH, 440) as d:
        own = 0
        low, high = _bulk(np.concatenate([points for _, points in groups.values()]))
        for what, (role, points) in groups.items():
            marker = MARKERS.get(role) or OWN[own % len(OWN)]
            own += role not in MARKERS
            points = np.clip(points, low, high)
            d.axes.scatter(
                points[:, 0], points[:, 1], s=11 if role == "known" else 16, color=INK[role], marker=marker,
                alpha=0.45 if role == "known" else 0.75, linewidths=0, label=f"{named(what, 30)} ({len(points)})",
            )  # fmt: skip
        d.axes.set_xticks([])
        d.axes.set_yticks([])
        d.axes.grid(visible=False)
        for side in ("top", "right", "bottom", "left"):
            d.axes.spines[side].set_visible(True)
            d.axes.spines[side].set_color(INK["line"])
        d.figure.legend(loc="outside lower center", ncols=2, markerscale=1.6, columnspacing=1.2, handletextpad=0.3)
    return d.svg


def _bulk(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(lower, upper) corner of the area that holds all but one in a hundred on each side, and a little more."""
    low, high = np.quantile(points, [0.01, 0.99], axis=0)
    room = 0.1 * (high - low)
    return np.maximum(low - room, points.min(axis=0)), np.minimum(high + room, points.max(axis=0))


def dots(
    rows: Mapping[str, Mapping[str, Measured]],
    *,
    name: str,
    title: str,
    label: str = "AUROC",
    mean: Mapping[str, Measured] | None = None,
    low: float | None = None,
) -> Markup:
    """A row per detector: a faint dot for each set of unknown images, with its interval, and one for their mean.

    rows: {detector: {set: number}}, the first on top. mean: {detector: number}; the mean of the dots, without an
    interval, when it is left out. low: where the axis begins.
    """
    n = len(rows)
    with drawing(name, title, WIDTH, 72 + 30 * n) as d:
        least = 1.0
        for y, (row, sets) in zip(np.arange(n)[::-1], rows.items(), strict=True):
            values = [m.value for m in sets.values()]
            middle = (mean or {}).get(row) or Measured(*(float(np.mean(values)),) * 3)
            least = min(least, *values, middle.low)
            d.axes.plot(
                values, [y] * len(values), "o", color=INK["incoming"], alpha=0.6, markersize=5, markeredgewidth=0
            )
            if mean is None:
                _whiskers(d.axes, list(sets.values()), [y] * len(values), "incoming")
            else:
                _whiskers(d.axes, [middle], [y], "ink")
            d.axes.plot([middle.value], [y], "D", color=INK["known"], markersize=7, markeredgewidth=0)
        d.axes.plot([], [], "D", color=INK["known"], markersize=7, markeredgewidth=0, label="mean")
        d.axes.plot([], [], "o", color=INK["incoming"], markersize=5, markeredgewidth=0, label="each set of images")
        d.axes.set_yticks(np.arange(n)[::-1], [named(row, 24) for row in rows])
        d.axes.tick_params(axis="y", length=0)
        for tick in d.axes.get_yticklabels():
            tick.set_color(INK["ink"])
        d.axes.set_ylim(-0.6, n - 0.4)
        begin = float(np.clip(np.floor(20 * (least if low is None else low)) / 20, 0, 0.95))  # where all are 1, too
        d.axes.set_xlim(begin, 1 + 0.02 * (1 - begin))
        _percent(d.axes.xaxis)
        d.axes.set_xlabel(label)
        d.figure.legend(loc="outside lower center", ncols=2, handletextpad=0.3)
    return d.svg


def _whiskers(axes: object, measured: Sequence[Measured], y: Sequence[float] | np.ndarray, role: str = "ink") -> None:
    value, low, high = (np.array([getattr(m, end) for m in measured]) for end in ("value", "low", "high"))
    errors = np.maximum([value - low, high - value], 0)
    axes.errorbar(value, y, xerr=errors, fmt="none", ecolor=INK[role], elinewidth=1.2, capsize=2.5)  # type: ignore[attr-defined]


def _percent(axis: object) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))  # type: ignore[attr-defined]
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.4g} %"))  # type: ignore[attr-defined]


LINES = (("known", "-"), ("unknown", "--"), ("fooling", "-."), ("ok", ":"), ("incoming", (0, (5, 1, 1, 1, 1, 1))))
MOST_POINTS = 400  # of a line: more cannot be seen, and make the page heavy


def curves(
    rows: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    name: str,
    title: str,
    across: str,
    up: str,
    diagonal: bool = False,
    whole: bool = True,
) -> Markup:
    """A line for each row, at most five: shares across and up, [k] each. diagonal: also that of chance. whole: up to 1,
    or as high as the lines are."""
    with drawing(name, title, WIDTH, 400) as d:
        if diagonal:
            d.axes.plot([0, 1], [0, 1], color=INK["line"], linewidth=1.2)
        for (row, (x, y)), (role, style) in zip(rows.items(), LINES, strict=False):
            some = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).astype(int))
            d.axes.plot(x[some], y[some], color=INK[role], linestyle=style, linewidth=1.8, label=named(row, 24))
        d.axes.set_xlim(0, 1.01)
        d.axes.set_ylim(0, 1.01 if whole else None)
        d.axes.set_xlabel(across)
        d.axes.set_ylabel(up)
        _percent(d.axes.xaxis)
        _percent(d.axes.yaxis)
        d.figure.legend(loc="outside lower center", ncols=2, handletextpad=0.5)
    return d.svg

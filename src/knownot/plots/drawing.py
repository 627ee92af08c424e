"""From matplotlib to an `<svg>` element of a page: text stays text, and colours are the page's CSS variables."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from markupsafe import Markup, escape

from ..errors import missing_extra
from .palette import PALETTE

FONT = 12  # px, at a figure's own width
# While matplotlib draws, each role is a colour that nothing else has; then the variable takes its place.
INK: dict[str, str] = {role: f"#0000{i + 17:02x}" for i, role in enumerate(PALETTE)}

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "knownot",
    "font.size": FONT,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": INK["ink"],
    "axes.edgecolor": INK["soft"],
    "axes.labelcolor": INK["soft"],
    "axes.titlesize": FONT,
    "axes.labelsize": FONT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": f"cycler('color', ['{INK['ink']}'])",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 1,
    "grid.color": INK["line"],
    "grid.linewidth": 1,
    "xtick.color": INK["soft"],
    "ytick.color": INK["soft"],
    "xtick.labelsize": FONT,
    "ytick.labelsize": FONT,
    "legend.frameon": False,
    "legend.fontsize": FONT,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def need() -> None:
    """Raise MissingExtraError unless matplotlib is there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise missing_extra("matplotlib", "audit", "Drawing these plots") from error


class Drawing:
    """A figure to be drawn on, `axes`; `svg` is there afterwards."""

    def __init__(self, figure: Any, axes: Any) -> None:
        self.figure, self.axes = figure, axes
        self.svg = Markup("")


@contextmanager
def drawing(
    name: str, title: str, width: int, height: int, *, rows: tuple[float, ...] = (1,), share_x: bool = False
) -> Iterator[Drawing]:
    """A figure of so many CSS pixels at its own size; a narrower page scales it down.

    name: prefix of all ids in it, so that a page can hold several; title: the drawing in words, for those who do not
    see it. rows: heights of axes one below the other.
    Raises MissingExtraError without matplotlib.
    """
    need()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        axes = figure.subplots(len(rows), 1, height_ratios=rows, sharex=share_x)
        drawn = Drawing(figure, axes)
        yield drawn
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn.svg = element(buffer.getvalue(), name, title)


def element(svg: str, name: str, title: str) -> Markup:
    """matplotlib's file as an element of a page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # would hold for the whole page
    svg = re.sub(r'(?<= id=")(?=[^"]+")|(?<=url\(#)|(?<=xlink:href="#)', f"{name}-", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r"#0000[0-9a-f]{2}\b", _variable, svg)
    # Sizes are set by style="font: …", of which only family and size are matplotlib's own to choose.
    svg = re.sub(r"""font: (?:[\w.]+ )?([\d.]+)px [^;"]*""", r"font-size: \1px", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    box = re.search(r'viewBox="[^"]+"', svg)
    assert box is not None  # matplotlib always writes it
    head = (
        f'<svg class="chart" role="img" {box[0]} style="width: {box[0].split()[2]}px" '
        f'aria-labelledby="{escape(name)}-title">'
        f'<title id="{escape(name)}-title">{escape(title)}</title>'
    )
    body = re.sub(r"\n\s*", "\n", svg[svg.index(">") + 1 :]).strip()
    return Markup(head + body)


ROLES = {colour: role for role, colour in INK.items()}


def _variable(match: re.Match[str]) -> str:
    role = ROLES.get(match[0])
    return match[0] if role is None else f"var(--{role})"

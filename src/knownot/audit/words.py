"""Numbers of the record within sentences."""

from __future__ import annotations

from ..plots import percent
from .record import Number, Share


def pc(x: Share | Number | float | None) -> str:
    """A share in percent, – where there is none."""
    if isinstance(x, Share):
        x = x.share
    elif isinstance(x, Number):
        x = x.value
    return "–" if x is None else percent(float(x))


def span(x: Share | Number) -> str:
    """Its interval."""
    return f"95 % interval {pc(x.low)} to {pc(x.high)}"


def points(x: float) -> str:
    """A difference of shares."""
    words = f"{100 * x:.1f}".removesuffix(".0")
    return f"{words} percentage point{'' if words == '1' else 's'}"


def grade_share(share: float, warning: float, problem: float) -> str:
    """The severity of a share: the larger, the graver."""
    return "problem" if share >= problem else "warning" if share >= warning else "ok"

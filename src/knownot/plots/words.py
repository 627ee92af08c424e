"""Numbers and names as pages write them."""

from __future__ import annotations

import math

import numpy as np


def percent(share: float) -> str:
    """Never "100 %" or "0 %" for what is not quite. The space does not break."""
    if not math.isfinite(share):
        return "–"
    if 0.9995 <= share < 1:
        return "> 99.9\u00a0%"
    if 0 < share < 0.0005:
        return "< 0.1\u00a0%"
    return f"{100 * share:.1f}".removesuffix(".0") + "\u00a0%"


def p_value(p: float) -> str:
    """Two significant digits."""
    return f"{p:.2g}" if p >= 1e-4 or p == 0 or math.isnan(p) else f"{p:.1e}"


def number(x: float) -> str:
    """Thousands apart; four significant digits where it is no whole number."""
    if isinstance(x, int | np.integer):
        return f"{x:,}"
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.4g}"


def visible(name: str) -> str:
    """Control characters and those that turn the direction of writing, spelled out: a name shows what it is."""
    return "".join(c if c.isprintable() or c == "\u00a0" else c.encode("unicode_escape").decode() for c in name)

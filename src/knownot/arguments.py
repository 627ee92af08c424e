"""Checks of what a caller gives: each raises OptionError saying what was given and what was expected."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import OptionError


def number(name: str, given: Any, low: float, high: float = np.inf, *, whole: bool = False) -> None:
    """Raise OptionError unless `given` is a number (whole: an integer) with low <= given <= high."""
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(given, bool) or not isinstance(given, kinds) or not low <= given <= high or not np.isfinite(given):
        kind = "a whole number" if whole else "a number"
        span = f"of at least {low:g}" if high == np.inf else f"from {low:g} to {high:g}"
        raise OptionError(f"{name}={given!r}: expected {kind} {span}.")


def flag(name: str, given: Any) -> None:
    """Raise OptionError unless `given` is True or False."""
    one_of(name, given, (True, False))


def one_of(name: str, given: Any, allowed: tuple[Any, ...]) -> None:
    """Raise OptionError unless `given` is among `allowed`."""
    if given not in allowed:
        raise OptionError(f"{name}={given!r}: expected one of {', '.join(map(repr, allowed))}.")

"""Headings that the files and the page of a benchmark share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .result import BenchmarkResult

TEST, FULL = "test", "full spectrum"  # what unknown images are compared with


def columns(found: BenchmarkResult) -> list[tuple[str, str, str]]:
    """(group, known, heading) of the groups that a short table shows."""
    both = [(TEST, "")] + ([(FULL, ", full spectrum")] if found.shifted else [])
    return [(group, known, f"{group}{said}") for known, said in both for group in found.members]


def passes(forward: float, back: float) -> str:
    """Of each image, beside the one that all share."""
    if math.isnan(forward):
        return "cached"
    return "1" if not forward else f"1 + {forward:.3g}" + (f" and {back:.3g} back" if back else "")

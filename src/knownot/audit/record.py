"""What all sections of an audit are made of: shares and numbers with intervals, findings; and how they become JSON.

The schema is written down in docs/how-to/audit.md. Whoever adds a field leaves SCHEMA as it is; whoever takes one away,
or changes what one means, counts it up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from ..measure import mean_interval, wilson

SCHEMA = 1
SEVERITIES = ("problem", "warning", "note", "ok", "open")  # open: could not be measured, and why
SECTIONS = ("inputs", "probabilities", "classes", "unknown", "help", "map")
DIGITS = 6  # of every number in the file


@dataclass(frozen=True)
class Share:
    """`count` of `images`, with its Wilson interval of 95 %; of no images there is no share."""

    count: int
    images: int
    share: float | None
    low: float
    high: float

    @classmethod
    def of(cls, yes: np.ndarray | int, images: int | None = None) -> Share:
        """Of a mask [n], or of a count in so many images."""
        if images is None:
            mask = np.asarray(yes)
            yes, images = int(np.count_nonzero(mask)), len(mask)
        low, high = wilson(int(yes), images)
        return cls(int(yes), images, int(yes) / images if images else None, low, high)


@dataclass(frozen=True)
class Number:
    """A number with its confidence interval of 95 %; None where it is not known."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def mean(cls, x: np.ndarray) -> Number:
        """Of numbers [n], by the normal law."""
        return cls(*mean_interval(x)) if len(x) else cls(None)


@dataclass(frozen=True)
class Finding:
    """One sentence of verdict. title: the finding; text: what it rests on; action: what to do, "" for nothing."""

    severity: str
    section: str
    title: str
    text: str = ""
    action: str = ""


def ordered(findings: list[Finding]) -> tuple[Finding, ...]:
    """The gravest first, those of one severity in the order of the sections."""
    return tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), SECTIONS.index(f.section))))


def plain(thing: Any) -> Any:
    """As JSON has it: what is not a number is null, numbers have six significant digits, pictures are left out."""
    if is_dataclass(thing) and not isinstance(thing, type):
        return {f.name: plain(getattr(thing, f.name)) for f in fields(thing) if f.name != "pictures"}
    if isinstance(thing, Mapping):
        return {str(key): plain(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple | np.ndarray):
        return [plain(x) for x in thing]
    if isinstance(thing, bool | np.bool_):
        return bool(thing)
    if isinstance(thing, int | np.integer):
        return int(thing)
    if isinstance(thing, float | np.floating):
        return float(f"{thing:.{DIGITS}g}") if math.isfinite(thing) else None
    return thing

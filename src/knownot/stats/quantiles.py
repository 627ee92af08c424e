from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .base import Statistic

BITS = 14  # of a value's mantissa that tell its bin: bins are 2**-14 of a value wide, 6e-5
LEAST = np.float32(2.0**-24)  # smaller values are in the bin of 0
_SHIFT = 23 - BITS
_FIRST = (int(LEAST.view(np.int32)) >> _SHIFT) - 1  # so that the bin of LEAST is number 1


@dataclass(frozen=True)
class Quantiles(Statistic):
    """Quantiles of all values of all rows, from exact counts in bins that are fixed once and for all.

    A bin holds the float32 values of one sign, exponent and first BITS bits of the mantissa, so the value answered is
    off by at most 2**-14 of itself (6e-5; below 2**-24 by that much), and by much less where a bin has many values, as
    ranks are interpolated within it. Counts add: neither order nor split changes any answer. Memory grows with the
    spread of the values, 12 bytes for each bin that has some (about 200 kB for each factor of two between them), not
    with their number.
    """

    bins: np.ndarray  # [m] int32, ascending
    count: np.ndarray  # [m] int64

    @classmethod
    def of(cls, rows: Any, **options: Any) -> Self:
        with np.errstate(over="ignore"):
            values = np.asarray(rows, dtype=np.float32).ravel()
        bins = np.maximum((np.abs(values).view(np.int32) >> _SHIFT) - _FIRST, 0)
        return cls(*_counted(np.where(values < 0, -bins, bins)))

    def merge(self, other: Self) -> Self:
        both = np.concatenate([self.bins, other.bins]), np.concatenate([self.count, other.count])
        return type(self)(*_counted(*both))

    def __len__(self) -> int:
        """How many values were seen."""
        return int(self.count.sum())

    def __call__(self, share: float) -> float:
        """The value below which `share` (0 to 1) of all values lie."""
        upto = np.cumsum(self.count)
        rank = share * upto[-1]
        i = min(int(np.searchsorted(upto, rank)), len(upto) - 1)
        low, high = _edges(int(self.bins[i]))
        within = (rank - (upto[i] - self.count[i])) / self.count[i]
        return float(low + (high - low) * within)


def _counted(bins: np.ndarray, count: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(bins that occur, ascending; how often)."""
    if not len(bins):
        return bins.astype(np.int32), np.empty(0, np.int64)
    low = int(bins.min())
    found = np.bincount(bins - low, weights=count)  # exact: whole numbers below 2**53
    there = np.flatnonzero(found)
    return (there + low).astype(np.int32), found[there].astype(np.int64)


def _edges(number: int) -> tuple[float, float]:
    """The least and largest value of a bin."""
    if not number:
        return 0.0, 0.0
    bits = (np.array([0, 1], np.int32) + abs(number) + _FIRST) << _SHIFT
    a, b = map(float, bits.view(np.float32))
    return (a, b) if number > 0 else (-b, -a)

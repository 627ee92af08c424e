from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .base import Statistic

BITS = 14  # of a value's mantissa that tell its bin: bins are 2**-14 of a value wide, 6e-5
_SHIFT = 23 - BITS


@dataclass(frozen=True)
class Quantiles(Statistic):
    """Quantiles of all values of all rows, from exact counts in bins that are fixed once and for all.

    A bin holds the float32 values of one sign, exponent and first BITS bits of the mantissa, so the value answered is
    off by at most 2**-14 of itself (6e-5), and by much less where a bin has many values, as ranks are interpolated
    within it. Counts add: neither order nor split changes any answer. Memory grows with the spread of the values, 12
    bytes for each bin that has some (about 200 kB for each factor of two between them), not with their number.
    """

    bins: np.ndarray  # [m] int32, ascending
    count: np.ndarray  # [m] int64
    ends: np.ndarray  # [2] float32, the least and the largest value; +inf and -inf of none

    @classmethod
    def of(cls, rows: Any, **options: Any) -> Self:
        with np.errstate(over="ignore"):
            values = np.asarray(rows, dtype=np.float32).ravel()
        bins = np.abs(values).view(np.int32) >> _SHIFT
        ends = np.array([values.min(initial=np.inf), values.max(initial=-np.inf)], np.float32)
        return cls(*_counted(np.where(values < 0, -bins, bins), np.ones(len(bins), np.int64)), ends)

    def merge(self, other: Self) -> Self:
        both = np.concatenate([self.bins, other.bins]), np.concatenate([self.count, other.count])
        low, high = min(self.ends[0], other.ends[0]), max(self.ends[1], other.ends[1])
        return type(self)(*_counted(*both), np.array([low, high], np.float32))

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
        return float(np.clip(low + (high - low) * within, *self.ends.astype(np.float64)))


def _counted(bins: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bins that occur, ascending; how often)."""
    found = []
    for side in (bins < 0, bins == 0, bins > 0):  # each has a narrow range, while that of all goes through tiny numbers
        if side.any():
            own, low = bins[side], int(bins[side].min())
            dense = np.bincount(own - low, weights=count[side])  # exact: whole numbers below 2**53
            there = np.flatnonzero(dense)
            found.append((there + low, dense[there]))
    if not found:
        return np.empty(0, np.int32), np.empty(0, np.int64)
    return (
        np.concatenate([x for x, _ in found]).astype(np.int32), np.concatenate([n for _, n in found]).astype(np.int64)
    )  # fmt: skip


def _edges(number: int) -> tuple[float, float]:
    """The least and largest value of a bin."""
    bits = (np.array([0, 1], np.int32) + abs(number)) << _SHIFT
    a, b = map(float, bits.view(np.float32)) if number else (0.0, 0.0)
    return (a, b) if number >= 0 else (-b, -a)

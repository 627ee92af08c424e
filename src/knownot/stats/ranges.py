from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from .base import Statistic, grouped
from .reservoir import Reservoir

HOLD = 10  # one row in so many is in no range


@dataclass(frozen=True)
class ClassRange(Statistic):
    """Smallest and largest value per class and column, and a sample of rows that are in none of the ranges.

    A tenth of the rows, told by a checksum (of `keys` [n], if given) so that neither order nor split changes which, is
    out of the ranges; `size` of them are kept, to see how far rows stand outside that were not there. Only classes
    with rows take memory. Rows of class -1 belong to none and are left out.
    """

    classes: np.ndarray  # [m] int64, ascending: those that have rows
    low: np.ndarray  # [m, d], in the rows' own type: nothing is rounded
    high: np.ndarray  # [m, d]
    count: int  # c
    held: Reservoir  # rows {"row": [<= size, d], "class": [<= size]}

    @classmethod
    def of(
        cls,
        rows: Any,
        *,
        labels: Any = (),
        classes: int = 0,
        size: int = 300,
        keys: Any = None,
        ranks: Any = None,
        **options: Any,
    ) -> Self:
        """ranks: of the keys, as a `Reservoir` ranks them, if they are known already."""
        labels = np.asarray(labels, dtype=np.int64)
        has = labels >= 0
        rows, labels = np.ascontiguousarray(np.asarray(rows)[has]), labels[has]
        keys = None if keys is None else np.asarray(keys)[has]
        told = rows if keys is None else keys  # images are the same on every runtime, rows not to the last bit
        out = np.fromiter((zlib.crc32(one.tobytes()) % HOLD == 0 for one in told), dtype=bool, count=len(rows))
        own = None if keys is None else keys[out]
        ranks = None if ranks is None else np.asarray(ranks)[has][out]
        held = Reservoir.of({"row": rows[out], "class": labels[out]}, size=size, keys=own, ranks=ranks)
        return cls(*_ranges(rows[~out], labels[~out]), classes, held)

    @property
    def whole(self) -> Self:
        """With ranges in any case: of the rows that were left out, if there are no others."""
        if len(self.classes):
            return self
        classes, low, high = _ranges(self.held.rows["row"], self.held.rows["class"])
        return replace(self, classes=classes, low=low, high=high)

    def merge(self, other: Self) -> Self:
        classes = np.union1d(self.classes, other.classes)
        low = np.full((len(classes), self.low.shape[1]), np.inf, dtype=np.result_type(self.low, other.low))
        high = np.full_like(low, -np.inf)
        for side in (self, other):
            at = np.searchsorted(classes, side.classes)
            low[at] = np.minimum(low[at], side.low)
            high[at] = np.maximum(high[at], side.high)
        return type(self)(classes, low, high, max(self.count, other.count), self.held.merge(other.held))


def _ranges(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    present, starts, rows = grouped(rows, labels)
    if not len(present):
        return present, rows, rows
    return present, np.minimum.reduceat(rows, starts, axis=0), np.maximum.reduceat(rows, starts, axis=0)

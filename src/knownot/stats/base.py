from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np


class Statistic(ABC):
    """What one pass keeps: `of(a + b)` equals `of(a).merge(of(b))`, for any split in any order."""

    @classmethod
    @abstractmethod
    def of(cls, rows: Any, **options: Any) -> Self: ...

    @abstractmethod
    def merge(self, other: Self) -> Self: ...

    def settled(self) -> Self:
        """The same, with nothing put off: two statistics that say the same have equal fields then."""
        return self


def grouped(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(classes that have rows, ascending; where each begins; the rows, class by class and in their order) for
    `reduceat`, which takes a tenth of the time of `ufunc.at`."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    return present, starts, rows[order]

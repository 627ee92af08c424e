from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self


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

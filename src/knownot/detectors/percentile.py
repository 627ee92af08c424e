"""What ASH, SCALE and LTS share: they look at an image's largest values, a percentage of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from ..arrays import Array, Capabilities, Head
from ..stats import StatisticRequest
from .base import Shaper, number
from .formulas import largest


def of_largest(f: Array, percentile: float) -> Array:  # [n, d] -> [n, kept]
    """The largest (100 - percentile) % of each row's values, of one at least."""
    d = f.shape[-1]
    return largest(f, max(1, d - round(d * percentile / 100)))


@dataclass(frozen=True)
class ByPercentile(Shaper):
    """A shaper with one option, by default `usual`; it learns nothing from known images."""

    percentile: float

    needs = frozenset({"features", "head"})
    usual: ClassVar[float]

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("percentile", cls.usual if options["percentile"] is None else options["percentile"], 0, 95)
        return {}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None, *, percentile: float | None = None) -> Self:
        return cls(float(cls.usual if percentile is None else percentile))

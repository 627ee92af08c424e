from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .base import Statistic


@dataclass(frozen=True)
class Quantiles(Statistic):
    """Quantiles of all values of all rows, from a t-digest of fixed size (Apache DataSketches).

    Approximate: the rank of an answered quantile q is off by about q(1 - q) / 100.
    """

    sketch: Any  # datasketches.tdigest_double

    @classmethod
    def of(cls, rows: Any, **options: Any) -> Self:
        from datasketches import tdigest_double

        sketch = tdigest_double(500)
        sketch.update(np.ascontiguousarray(rows, dtype=np.float64).ravel())
        return cls(sketch)

    def merge(self, other: Self) -> Self:
        from datasketches import tdigest_double

        both = tdigest_double(500)  # a new one: merging must not change either side
        both.merge(self.sketch)
        both.merge(other.sketch)
        return type(self)(both)

    def __call__(self, share: float) -> float:
        """The value below which `share` (0 to 1) of all values lie."""
        return float(self.sketch.get_quantile(share))

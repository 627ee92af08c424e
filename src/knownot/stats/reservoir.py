from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .base import Statistic


@dataclass(frozen=True)
class Reservoir(Statistic):
    """The `size` distinct rows of smallest hash: a uniform sample that neither order nor split changes.

    A row spans several arrays (features and logits of one image stay together). Equal rows count once, so that
    a set with many copies of an image does not fill the sample with them.
    """

    rows: Mapping[str, np.ndarray]  # {name: [<= size, ...]}, in the order of `rank`
    rank: np.ndarray  # [<= size] uint64, ascending
    size: int

    @classmethod
    def of(cls, rows: Any, *, size: int = 10_000, seed: int = 0, **options: Any) -> Self:
        rows = {"rows": rows} if not isinstance(rows, Mapping) else rows
        rows = {name: np.ascontiguousarray(x) for name, x in rows.items()}
        n = len(next(iter(rows.values())))
        key = int(seed).to_bytes(8, "little", signed=True)
        rank = np.empty(n, dtype=np.uint64)
        for i in range(n):
            digest = hashlib.blake2b(key=key, digest_size=8)
            for x in rows.values():
                digest.update(x[i].tobytes())
            rank[i] = int.from_bytes(digest.digest(), "little")
        return cls._smallest(rows, rank, size)

    def merge(self, other: Self) -> Self:
        full = len(self) == self.size
        if full and not (other.rank < self.rank[-1]).any():
            return self  # the usual case late in a long pass: nothing to copy
        rows = {name: np.concatenate([x, other.rows[name]]) for name, x in self.rows.items()}
        return self._smallest(rows, np.concatenate([self.rank, other.rank]), self.size)

    @classmethod
    def _smallest(cls, rows: Mapping[str, np.ndarray], rank: np.ndarray, size: int) -> Self:
        rank, first = np.unique(rank, return_index=True)
        rank, first = rank[:size], first[:size]
        return cls({name: x[first] for name, x in rows.items()}, rank, size)

    def __len__(self) -> int:
        return len(self.rank)

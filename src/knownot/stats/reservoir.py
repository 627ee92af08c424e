from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from .base import Statistic


@dataclass(frozen=True)
class Reservoir(Statistic):
    """The `size` distinct rows of smallest hash: a uniform sample that neither order nor split changes.

    A row spans several arrays (features and logits of one image stay together). Equal rows count once, so that
    a set with many copies of an image does not fill the sample with them. keys [n]: what to hash instead of the rows,
    such as the images themselves: the last bits of features differ from runtime to runtime, and with them the sample.
    """

    pieces: tuple[tuple[Mapping[str, np.ndarray], np.ndarray], ...]  # ({name: [m, ...]}, ranks [m] ascending)
    size: int

    @classmethod
    def of(
        cls,
        rows: Any,
        *,
        size: int = 10_000,
        seed: int = 0,
        keys: np.ndarray | None = None,
        ranks: np.ndarray | None = None,
        **options: Any,
    ) -> Self:
        """ranks: of the keys with this seed, if they are known already."""
        rows = {"rows": rows} if not isinstance(rows, Mapping) else rows
        rows = {name: np.ascontiguousarray(x) for name, x in rows.items()}
        if ranks is None:
            n = len(next(iter(rows.values())))
            ranks = ranked(n, rows.values() if keys is None else (keys,), seed)
        return cls((_smallest([(rows, ranks)], size),), size)

    def merge(self, other: Self) -> Self:
        """Pieces are put together when the small ones are a quarter of the largest: not all rows for every batch."""
        rank = self.pieces[0][1]
        worst = rank[-1] if 0 < len(rank) == self.size else np.iinfo(np.uint64).max
        added = []
        for rows, ranks in other.pieces:
            near = int(np.searchsorted(ranks, worst, side="right"))
            if near:
                added.append(({name: x[:near].copy() for name, x in rows.items()}, ranks[:near]))  # no batch is held
        if not added:
            return self  # the usual case late in a long pass
        pieces = (*self.pieces, *added)
        if sum(len(ranks) for _, ranks in pieces[1:]) > len(rank) // 4:
            pieces = (_smallest(pieces, self.size),)
        return type(self)(pieces, self.size)

    def below(self, end: np.uint64) -> Self:
        """Without the rows of larger rank."""
        rows, ranks = self._whole
        m = int(np.searchsorted(ranks, end, side="right"))
        return type(self)((({name: x[:m] for name, x in rows.items()}, ranks[:m]),), self.size)

    def settled(self) -> Self:
        return type(self)((self._whole,), self.size)

    @cached_property
    def _whole(self) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
        return self.pieces[0] if len(self.pieces) == 1 else _smallest(self.pieces, self.size)

    @property
    def rows(self) -> Mapping[str, np.ndarray]:
        """{name: [<= size, ...]}, in the order of `rank`."""
        return self._whole[0]

    @property
    def rank(self) -> np.ndarray:
        """[<= size] uint64, ascending."""
        return self._whole[1]

    def __len__(self) -> int:
        return len(self.rank)


def ranked(n: int, arrays: Iterable[np.ndarray], seed: int = 0) -> np.ndarray:
    """A hash of each row, of all arrays together, [n] uint64."""
    key = int(seed).to_bytes(8, "little", signed=True)
    arrays, rank = tuple(arrays), np.empty(n, dtype=np.uint64)
    for i in range(n):
        digest = hashlib.blake2b(key=key, digest_size=8)
        for x in arrays:
            digest.update(x[i].tobytes())
        rank[i] = int.from_bytes(digest.digest(), "little")
    return rank


def _smallest(
    pieces: Sequence[tuple[Mapping[str, np.ndarray], np.ndarray]], size: int
) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
    """One piece: rows of equal rank once, and of these the `size` smallest. Of copies under several labels the smallest
    label stays, whichever came first."""
    ranks = np.concatenate([ranks for _, ranks in pieces])
    whole = [name for name, x in pieces[0][0].items() if x.ndim == 1 and x.dtype.kind == "i"]
    first = np.lexsort((*(np.concatenate([rows[name] for rows, _ in pieces]) for name in whole), ranks))
    rank, once = np.unique(ranks[first], return_index=True)
    rank, first = rank[:size], first[once[:size]]
    starts = np.cumsum([0, *(len(own) for _, own in pieces)])
    rows = {}
    for name, like in pieces[0][0].items():
        rows[name] = np.empty((len(rank), *like.shape[1:]), like.dtype)
        for (part, _), begin, end in zip(pieces, starts[:-1], starts[1:], strict=True):
            here = (first >= begin) & (first < end)  # copied once, straight to its place
            rows[name][here] = part[name][first[here] - begin]
    return rows, rank

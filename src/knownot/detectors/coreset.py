"""A few rows that stand for many. Time grows with n m, memory with n: no table of n x n or n x m distances."""

from __future__ import annotations

import numpy as np

__all__ = ["COMPACT", "herding", "k_center", "sample"]


def k_center(rows: np.ndarray, m: int) -> np.ndarray:  # [n, d] -> [<= m]
    """Indices of the greedy k-centre (Gonzalez 1985): each next row is the one farthest from those taken so far.

    The first is the row nearest to the mean. The largest distance of any row to the taken ones is at most twice what
    the best m rows could reach. Fewer than m when the rest lie on rows already taken.
    """
    mean = rows.mean(axis=0)
    taken = [int(np.argmin(_squared(rows, mean)))]
    nearest = _squared(rows, rows[taken[0]])
    while len(taken) < min(m, len(rows)):
        next_ = int(np.argmax(nearest))
        if not nearest[next_] > 0:
            break
        taken.append(next_)
        np.minimum(nearest, _squared(rows, rows[next_]), out=nearest)
        nearest[next_] = 0
    return np.array(taken)


def herding(rows: np.ndarray, m: int) -> np.ndarray:  # [n, d] -> [min(m, n)]
    """Indices by herding (Welling 2009), each row at most once: the mean of those taken stays close to that of all."""
    mean = rows.mean(axis=0, dtype=np.float64)
    free = np.ones(len(rows), dtype=bool)
    want = mean.copy()
    taken: list[int] = []
    while len(taken) < min(m, len(rows)):
        next_ = int(np.argmax(np.where(free, rows @ want.astype(rows.dtype), -np.inf)))
        taken.append(next_)
        free[next_] = False
        want += mean - rows[next_]
    return np.array(taken)


def sample(rows: np.ndarray, m: int) -> np.ndarray:  # [n, d] -> [min(m, n)]
    """The first ones: of a `Reservoir`, whose rows stand in the order of their hashes, a uniform sample."""
    return np.arange(min(m, len(rows)))


def _squared(rows: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Squared distances [n] by differences, a block at a time: exact for equal rows, and no copy of all rows."""
    out = np.empty(len(rows), dtype=np.float64)
    for i in range(0, len(rows), 4096):
        gap = rows[i : i + 4096] - center
        out[i : i + 4096] = np.einsum("nd,nd->n", gap, gap)
    return out


COMPACT = {"k-center": k_center, "herding": herding, "reservoir": sample}

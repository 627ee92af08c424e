"""The past of a stream in little memory, fine where it is recent, and since when it has been another."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

KEPT = 32  # blocks of each size: what is a images back is known to about a / 32
DROP = -math.log(1 - math.sqrt(0.95))  # 3.68: see `change_point`


@dataclass
class History:
    """Sums of rows of numbers over blocks of 1, 2, 4, … images; the newest blocks are the smallest.

    A row: images, unknown, in the less strange half, their sum of (p - 1/2) * 2, sum of p, flags at each level.
    """

    levels: list[list[list[float]]] = field(default_factory=list)  # [size][block] -> row

    def add(self, row: list[float]) -> None:
        for size in range(len(self.levels) + 1):
            if size == len(self.levels):
                self.levels.append([])
            blocks = self.levels[size]
            blocks.append(row)
            if len(blocks) <= KEPT:
                return
            row = [a + b for a, b in zip(blocks[0], blocks[1], strict=True)]
            del blocks[:2]

    def rows(self) -> np.ndarray:
        """All blocks, the oldest first, [b, r] float64."""
        return np.array([row for blocks in reversed(self.levels) for row in blocks], dtype=np.float64)


def change_point(images: np.ndarray, statistic: np.ndarray, after: bool) -> tuple[int, int, int]:
    """(since which block, not before, not after) the rate of something changed, from counts in b blocks in order.

    images [b], statistic [b]: how many images, and the sum of what is looked at: flags (after=True: the rate rises), or
    numbers that are uniform on [0, 1] otherwise (after=False: they fall). Block 0 is what the calibration set adds. The
    likelihood is the largest at the answer; the interval holds the blocks within 3.68 of it, which is 95 % for a change
    between known rates that is not small (the largest of two random walks with drift exceeds x with probability at most
    1 - (1 - exp(-x))^2; Siegmund, Int. Stat. Review 1988).
    """
    n, s = np.cumsum(images)[:-1], np.cumsum(statistic)[:-1]
    rest, left = images.sum() - n, statistic.sum() - s
    with np.errstate(divide="ignore", invalid="ignore"):
        before, later = s / n, np.where(rest > 0, left / rest, np.nan)
        if after:
            fit = _bernoulli(s, n) + _bernoulli(left, rest)
            fit[~(later > before)] = -np.inf
        else:
            fit = 6 * rest * (later - 0.5) ** 2  # Gaussian with the uniform's variance 1 / 12, mean before 1/2
            fit[~(later < 0.5)] = -np.inf
    if not np.isfinite(fit).any():
        return len(images) - 1, 1, len(images) - 1
    best = int(np.nanargmax(fit))
    inside = np.flatnonzero(fit >= fit[best] - DROP)
    return best + 1, int(inside[0]) + 1, int(inside[-1]) + 1


def _bernoulli(s: np.ndarray, n: np.ndarray) -> np.ndarray:
    """The largest log-likelihood of s successes among n, [b]."""
    from scipy.special import xlogy

    return xlogy(s, s / np.maximum(n, 1)) + xlogy(n - s, (n - s) / np.maximum(n, 1))

"""Are two windows of a stream draws of the same thing? A permutation test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import OptionError
from .conformal import percent

ROWS = 2000  # of each window at most: the kernel matrix has (2 ROWS)^2 entries


@dataclass(frozen=True)
class TwoSample:
    """What the test says. distance: squared maximum mean discrepancy, unbiased, 0 on average for equal windows."""

    p_value: float
    distance: float
    images: tuple[int, int]  # compared, of each window
    permutations: int

    @property
    def sentence(self) -> str:
        """For people."""
        what = "differ" if self.p_value <= 0.05 else "do not show a difference"
        return f"the two windows of {self.images[0]:,} and {self.images[1]:,} images {what} (p = {self.p_value:.3g})"


def two_sample_test(a: np.ndarray, b: np.ndarray, *, permutations: int = 999, seed: int = 0) -> TwoSample:
    """Maximum mean discrepancy with Gaussian kernels of three widths around the median distance (Gretton, Borgwardt,
    Rasch, Schölkopf & Smola, JMLR 13, 2012), with the p-value of a permutation test, which is exact: if both windows
    are draws of one law, P(p <= t) <= t.

    a [n, d], b [m, d]: features of the images of each window, n and m at least 2; of more than 2,000 rows as many are
    drawn by `seed`. Raises OptionError.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise OptionError(
            f"The windows have shapes {a.shape} and {b.shape}; expected features [n, d] and [m, d] with two images "
            "each at least."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise OptionError("The features hold NaN or infinity.")
    if permutations < 19:
        raise OptionError(
            f"permutations={permutations!r}: expected at least 19, else p is never below {percent(0.05)}."
        )
    rng = np.random.default_rng(seed)
    a, b = (x if len(x) <= ROWS else x[np.sort(rng.choice(len(x), ROWS, replace=False))] for x in (a, b))
    kernel, n, m = _kernel(np.concatenate([a, b])), len(a), len(b)
    membership = np.zeros((permutations + 1, n + m))
    membership[0, :n] = 1
    for row in membership[1:]:
        row[rng.permutation(n + m)[:n]] = 1
    found = _discrepancies(kernel, membership, n, m)
    p = (1 + int((found[1:] >= found[0] - 1e-12 * abs(found[0])).sum())) / (permutations + 1)
    return TwoSample(p, float(found[0]), (n, m), permutations)


def _kernel(x: np.ndarray) -> np.ndarray:
    """Mean of three Gaussian kernels [r, r], zeros on the diagonal."""
    x = x - x.mean(axis=0)
    squares = (x**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * x @ x.T, 0)
    np.fill_diagonal(distances, 0)
    off = distances[np.triu_indices(len(x), 1)]
    middle = float(np.median(off)) or float(off.mean()) or 1.0
    kernel = np.mean([np.exp(-distances / (middle * width)) for width in (0.25, 1.0, 4.0)], axis=0)
    np.fill_diagonal(kernel, 0)
    return kernel


def _discrepancies(kernel: np.ndarray, membership: np.ndarray, n: int, m: int) -> np.ndarray:
    """Unbiased squared discrepancies of each division of the rows in two, membership [k, r] of zeros and ones, [k]."""
    own = membership @ kernel
    within_a = (own * membership).sum(axis=1)
    across = (own * (1 - membership)).sum(axis=1)
    within_b = kernel.sum() - within_a - 2 * across
    return within_a / (n * (n - 1)) + within_b / (m * (m - 1)) - 2 * across / (n * m)

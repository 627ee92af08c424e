"""Confidence intervals: what a number would have been, had other images of the same kind been drawn."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .metrics import _scores

Z95 = 1.959963984540054  # of the normal law: 95 % lie within


def wilson(count: int, n: int, z: float = Z95) -> tuple[float, float]:
    """The Wilson score interval of a share of `count` in `n` (E. B. Wilson, JASA 1927, 22:209): (low, high).

    Without images nothing is known: (0, 1). Raises InputError unless 0 <= count <= n.
    """
    if not 0 <= count <= n:
        raise InputError(f"{count} of {n} images: expected a count between 0 and the number of images.")
    if n == 0:
        return 0.0, 1.0
    share, more = count / n, z * z / n
    middle = (share + more / 2) / (1 + more)
    half = z / (1 + more) * float(np.sqrt(share * (1 - share) / n + more / (4 * n)))
    # At the ends it is exact; rounding must not leave 1e-17.
    return (0.0 if count == 0 else middle - half), (1.0 if count == n else middle + half)


def mean_interval(x: np.ndarray, z: float = Z95) -> tuple[float, float, float]:
    """(mean, low, high) of numbers [n] by the normal law; NaN without any, and of one alone no interval but itself."""
    x = np.asarray(x, dtype=np.float64)
    if not len(x):
        return float("nan"), float("nan"), float("nan")
    mean = float(x.mean())
    half = z * float(x.std(ddof=1)) / float(np.sqrt(len(x))) if len(x) > 1 else 0.0
    return mean, mean - half, mean + half


def paired_interval(better: int, worse: int, n: int, z: float = Z95) -> tuple[float, float, float]:
    """(difference, low, high) of two shares on the same n images: `better` only the first is right on, `worse` only
    the second (Newcombe, Statistics in Medicine 1998, 17:2635, method 1).
    """
    if min(better, worse) < 0 or better + worse > n or n < 1:
        raise InputError(f"{better} and {worse} of {n} images: expected counts that do not exceed the images.")
    difference = (better - worse) / n
    half = z * float(np.sqrt(max(better + worse - (better - worse) ** 2 / n, 0.0))) / n
    return difference, max(difference - half, -1.0), min(difference + half, 1.0)


def auroc_interval(known: np.ndarray, unknown: np.ndarray, z: float = Z95) -> tuple[float, float, float]:
    """(AUROC, low, high) of scores [m], [n] (DeLong, DeLong & Clarke-Pearson, Biometrics 1988, 44:837).

    Where all unknown scores are above all known ones the interval has no width, which says less than it seems.
    """
    known, unknown = _scores(known, unknown)
    above = _place_at(known, unknown)  # of each unknown image: the share of known ones below it
    below = 1 - _place_at(unknown, known)
    area = float(above.mean())
    error = sum(float(x.var(ddof=1)) / len(x) for x in (above, below) if len(x) > 1)
    half = z * float(np.sqrt(error))
    return area, max(area - half, 0.0), min(area + half, 1.0)


def _place_at(others: np.ndarray, scores: np.ndarray) -> np.ndarray:
    ordered = np.sort(others)
    left, right = (np.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    return np.asarray((left + right) / (2 * len(ordered)))

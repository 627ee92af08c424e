"""Is one score really better than another on the same images?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .intervals import Z95, _place_at
from .metrics import _scores


@dataclass(frozen=True)
class Areas:
    """The mean AUROC over sets of unknown images, and what each image adds to it (DeLong et al. 1988): of each known
    image [m] the share of unknown ones above it, of each unknown one [n] the share of known ones below it, both divided
    by the number of sets."""

    area: float
    known: np.ndarray
    unknown: tuple[np.ndarray, ...]

    @property
    def variance(self) -> float:
        """Of the mean, as images are drawn; the known ones are those of every set."""
        parts = (self.known, *self.unknown)
        return sum(float(x.var(ddof=1)) / len(x) for x in parts if len(x) > 1)

    def interval(self, z: float = Z95) -> tuple[float, float, float]:
        """(area, low, high)."""
        half = z * math.sqrt(self.variance)
        return self.area, max(self.area - half, 0.0), min(self.area + half, 1.0)


def areas(known: np.ndarray, unknown: Sequence[np.ndarray]) -> Areas:
    """Of scores [m] of known images and [n] each of sets of unknown ones. Raises InputError without any, or for NaN."""
    if not unknown:
        raise InputError("There is no set of unknown images to compare with.")
    below, above = np.zeros(len(np.ravel(known))), []
    for one in unknown:
        k, u = _scores(known, one)
        above.append(_place_at(k, u) / len(unknown))
        below = below + (1 - _place_at(u, k)) / len(unknown)
    return Areas(float(sum(x.mean() for x in above)), below, tuple(above))


def mean_areas(several: Sequence[Areas]) -> Areas:
    """Their mean, of scores of the same images: by several networks, for instance."""
    sets = zip(*(one.unknown for one in several), strict=True)
    return Areas(
        float(np.mean([one.area for one in several])),
        np.mean([one.known for one in several], axis=0),
        tuple(np.mean(parts, axis=0) for parts in sets),
    )


def area_difference(first: Areas, second: Areas, z: float = Z95) -> tuple[float, float, float, float]:
    """(difference, low, high, p) of two scores of the same images: DeLong's paired test, two-sided.

    Raises InputError where the images cannot be the same.
    """
    if [len(first.known), *map(len, first.unknown)] != [len(second.known), *map(len, second.unknown)]:
        raise InputError("The two scores are of different numbers of images: expected those of the same images.")
    apart = Areas(
        first.area - second.area,
        first.known - second.known,
        tuple(a - b for a, b in zip(first.unknown, second.unknown, strict=True)),
    )
    error = math.sqrt(apart.variance)
    if error == 0:
        return apart.area, apart.area, apart.area, 1.0 if apart.area == 0 else 0.0
    p = math.erfc(abs(apart.area) / error / math.sqrt(2))
    return apart.area, apart.area - z * error, apart.area + z * error, p


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values [k] of several tests, corrected so that with probability 1 - alpha none below alpha is by chance (Holm,
    Scandinavian Journal of Statistics 1979, 6:65). NaN stays, and counts as no test."""
    p = np.asarray(p, dtype=np.float64)
    out, rows = p.copy(), np.flatnonzero(~np.isnan(p))
    order = rows[np.argsort(p[rows], kind="stable")]
    left = np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(p[order] * left), 1.0) if len(order) else p[order]
    return out

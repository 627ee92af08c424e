"""A class added from a handful of images: who among the images called unknown belongs to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from ..arrays import Array
from ..calibration import percent
from ..calibration.counts import checked_share
from ..errors import ImagesError, OptionError
from .batch import features_of

if TYPE_CHECKING:
    from .classifier import OpenSetClassifier

FEWEST = 5  # images of a new class


@dataclass(frozen=True)
class AddedClass:
    """A class of its own for images that are called unknown and lie near the mean of some images.

    An image belongs to it when its p-value, (1 + #{distances of its images >= distance}) / (m + 1), is above alpha, and
    in any case above 1 / (m + 1): no image farther than all m belongs. The distance is 1 - cosine to the mean of the
    unit features; that of an image of the class itself is to the mean of the others, so that it is measured as a new
    image's.
    """

    name: str
    mean: np.ndarray  # [d] float32, of unit length
    distances: np.ndarray  # [m] float64, ascending: of each image to the mean of the others
    alpha: float  # at least 1 / (m + 1)
    found: int  # of the m images, how many the classifier called unknown: only those can come to this class

    @classmethod
    def of(cls, name: str, features: np.ndarray, found: int, alpha: float) -> AddedClass:
        """From unit features [m, d] of its images."""
        x = np.asarray(features, dtype=np.float64)
        others = x.sum(axis=0) - x
        others /= np.maximum(np.linalg.norm(others, axis=1, keepdims=True), 1e-12)
        mean = x.mean(axis=0)
        mean /= max(float(np.linalg.norm(mean)), 1e-12)
        return cls(
            name, mean.astype(np.float32), np.sort(1 - (x * others).sum(axis=1)), max(alpha, 1 / (len(x) + 1)), found
        )

    @property
    def reach(self) -> float:
        """The largest distance of an image that belongs to it: the p-value's condition, solved for the distance."""
        m = len(self.distances)
        k = math.floor(self.alpha * (1 + 1e-12) * (m + 1))  # so many of its images have to be as far at least
        return float(self.distances[m - k]) if k <= m else -math.inf

    @property
    def sentence(self) -> str:
        """What may be expected of it, for people."""
        m = len(self.distances)
        kept = max(0, m + 1 - int(self.alpha * (m + 1) + 1e-9)) / (m + 1)
        low, high = _binomial(self.found, m)
        return (
            f"class {self.name!r} from {m} images: {self.found} of them are called unknown. So {percent(low)} to "
            f"{percent(high)} of its images can be found (95 % confidence), and about {percent(kept)} of those are "
            "given to it. Known images are rejected no more often than before, and none that is accepted comes to it"
        )


def with_class(osc: OpenSetClassifier, name: str, images: Any, alpha: float | None) -> OpenSetClassifier:
    """See `OpenSetClassifier.with_class`."""
    names = osc.names
    if not isinstance(name, str) or not name.strip() or name in (*names, "unknown"):
        raise OptionError(f"with_class({name!r}): expected a new name; there are {', '.join(map(str, names))}.")
    alpha = osc.alpha if alpha is None else checked_share("alpha", alpha)
    bare = replace(osc, added=())
    verdicts, features, _ = features_of(bare, images)
    fine = ~verdicts.unreadable
    if fine.sum() < FEWEST:
        raise ImagesError(
            f"{int(fine.sum())} readable images of {name!r} are too few for a class: at least {FEWEST} are needed."
        )
    made = AddedClass.of(name, features[fine], int(verdicts.unknown.sum()), alpha)
    return replace(osc, added=(*osc.added, made))


def without_class(osc: OpenSetClassifier, name: str) -> OpenSetClassifier:
    """See `OpenSetClassifier.without_class`."""
    if name not in (a.name for a in osc.added):
        own = " The classifier's own classes stay." if name in osc.class_names else ""
        there = ", ".join(a.name for a in osc.added) or "none"
        raise OptionError(f"without_class({name!r}): no such class was added (added: {there}).{own}")
    return replace(osc, added=tuple(a for a in osc.added if a.name != name))


def claim(added: Sequence[AddedClass], features: Array) -> Array:
    """Which added class each image belongs to, by unit features [n, d]: of those within whose reach it is the one with
    the nearest mean, -1 for none. (By the largest p-value a class of many looks would take all others.) In the array
    API standard."""
    xp = array_namespace(features)
    near = features @ xp.asarray(np.stack([a.mean for a in added], axis=1))
    near = xp.where(near >= xp.asarray(_least(added)), near, -math.inf)
    return xp.where(xp.max(near, axis=1) > -math.inf, xp.argmax(near, axis=1), -1)


def margin_of_claims(added: Sequence[AddedClass], features: np.ndarray) -> np.ndarray:
    """How little the cosines of unit features [n, d] may change before `claim` says otherwise, [n]."""
    near = features @ np.stack([a.mean for a in added], axis=1)
    edge = np.abs(near - _least(added)).min(axis=1)
    two = np.sort(near, axis=1)[:, -2:]
    return edge if len(added) == 1 else np.minimum(edge, two[:, 1] - two[:, 0])


def _least(added: Sequence[AddedClass]) -> np.ndarray:
    return np.array([1 - a.reach for a in added], np.float32)


def _binomial(k: int, n: int) -> tuple[float, float]:
    """Clopper & Pearson's 95 % interval."""
    from scipy.special import betaincinv

    low = float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0
    return low, float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0

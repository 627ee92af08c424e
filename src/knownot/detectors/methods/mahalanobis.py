from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ...arrays import Activations, Array, Capabilities, Head
from ...errors import UnsoundError
from ...stats import ClassMoments, Moments, StatisticRequest
from ..base import Detector, flag, place, some_images
from ..formulas import nearest_squared, unit

# Below these a direction holds rounding noise of float32 features, not variation of the images:
SMALLEST = 1e-10  # of the largest variance
ROUNDING = 1e-14  # of the squared length of the mean


@dataclass(frozen=True)
class Mahalanobis(Detector):
    r"""Lee et al., A Simple Unified Framework for Detecting OOD Samples, NeurIPS 2018 (arXiv:1807.03888), eq. 2;
    with unit features Mueller & Hein, Mahalanobis++, ICML 2025 (arXiv:2505.18032).

        score(x) = min_c (f(x) - mu_c)^T S^+ (f(x) - mu_c),  S = covariance about the class means, divided by n

    Squared distances, no ridge and no gradient step on the input; peers add 1e-6 I, do not divide by n, take roots, or
    perturb the input by default. S^+ is a pseudo-inverse over the eigenvectors whose variance is above 1e-10 of
    the largest, so fewer images than features, or dead channels, do no harm. Classes without images are left out.
    With at most one image of each class nothing varies within a class: all images then are one class, as in SSD.

    of: "features", "stages/<name>", or with a second network "second/features" and "second/stages/<name>".
    unit: divide them by their L2 norm first.
    """

    center: Array  # [d], mean of all known images, taken off first for precision
    whiten: Array  # [d, r], whiten whiten^T = S^+
    means: Array  # [k, r], (mu_c - center) whiten, of the k classes that have images
    of: str = "features"
    unit: bool = False

    needs = frozenset({"features"})
    paper = "Lee et al. 2018, arXiv:1807.03888"
    summary = "squared distance to the nearest class mean under the shared covariance"

    @classmethod
    def needs_with(cls, **options: Any) -> frozenset[str]:
        return frozenset({str(options["of"]).partition("/")[0]})

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        flag("unit", options["unit"])
        place(options["of"], capabilities)
        return {"moments": StatisticRequest(ClassMoments, options["of"], unit=options["unit"])}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None, *, of: str = "features", unit: bool = False) -> Self:
        moments: ClassMoments = statistics["moments"]
        if moments.count.max() > 1:
            return cls.of_classes(moments, of, unit)
        every = moments.pooled
        some_images(every.count, "Mahalanobis")
        return cls.about(every.mean, every.mean[None, :], every.covariance, of, unit)

    @classmethod
    def of_classes(cls, moments: ClassMoments, of: str, unit: bool) -> Self:
        """Distances to the class means under the covariance about them."""
        some_images(moments.count.sum(), cls.__name__)
        return cls.about(moments.pooled.mean, moments.mean[moments.count > 0], moments.within, of, unit)

    @classmethod
    def about(cls, center: np.ndarray, means: np.ndarray, covariance: np.ndarray, of: str, unit: bool) -> Self:
        """Distances to any `means` [k, d] under any `covariance` [d, d]."""
        variance, directions = np.linalg.eigh(covariance)
        kept = variance > max(SMALLEST * variance[-1], ROUNDING * center @ center, 0)
        if not kept.any():
            raise UnsoundError(
                f"The {of} of the known images do not vary within a class, so they give no scale to measure distances "
                "by. Give more images per class (more than one), or choose a detector that reads logits, such as 'gen'."
            )
        whiten = directions[:, kept] / np.sqrt(variance[kept])
        return cls(center, whiten, (means - center) @ whiten, of, bool(unit))

    def score(self, batch: Activations) -> Array:
        f = batch.named()[self.of]
        f = unit(f) if self.unit else f
        return nearest_squared((f - self.center) @ self.whiten, self.means)


@dataclass(frozen=True)
class RelativeMahalanobis(Detector):
    r"""Ren et al., A Simple Fix to Mahalanobis Distance, 2021 (arXiv:2106.09022).

        score(x) = min_c d_c(x)^2 - d_0(x)^2

    d_c: Mahalanobis distance to class c; d_0: to the mean of all images, under their covariance with classes
    forgotten. Squares are subtracted, as in the paper; one peer subtracts roots.
    """

    classes: Mahalanobis
    background: Mahalanobis

    needs = frozenset({"features"})
    paper = "Ren et al. 2021, arXiv:2106.09022"
    summary = "Mahalanobis distance minus that to all known images as one class"

    @classmethod
    def needs_with(cls, **options: Any) -> frozenset[str]:
        return Mahalanobis.needs_with(**options)

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        return Mahalanobis.required_statistics(capabilities, of=options["of"], unit=options["unit"])

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None, *, of: str = "features", unit: bool = False) -> Self:
        every: Moments = statistics["moments"].pooled
        classes = Mahalanobis.of_classes(statistics["moments"], of, unit)
        return cls(classes, Mahalanobis.about(every.mean, every.mean[None, :], every.covariance, of, unit))

    def score(self, batch: Activations) -> Array:
        return self.classes.score(batch) - self.background.score(batch)

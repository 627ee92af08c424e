from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import ClassMoments, StatisticRequest
from ..base import Detector, some_images
from .mahalanobis import Mahalanobis


@dataclass(frozen=True)
class SSD(Detector):
    r"""Sehwag et al., SSD: A Unified Framework for Self-Supervised Outlier Detection, ICLR 2021 (arXiv:2103.12051).

        score(x) = (z(x) - mu)^T S^+ (z(x) - mu),  z = f / ||f||, mu and S over all known images, classes forgotten

    With one cluster, which the paper found to work best; a peer takes as many k-means clusters as classes. S^+ as for
    Mahalanobis. The paper trains its network without labels; here the features are those of the classifier.
    """

    distance: Mahalanobis

    needs = frozenset({"features"})
    paper = "Sehwag et al. 2021, arXiv:2103.12051"
    summary = "Mahalanobis distance of unit features to all known images as one class"

    @classmethod
    def needs_with(cls, **options: Any) -> frozenset[str]:
        return Mahalanobis.needs_with(**options)

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        return Mahalanobis.required_statistics(capabilities, of=options["of"], unit=True)

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None, *, of: str = "features") -> Self:
        moments: ClassMoments = statistics["moments"]
        some_images(moments.count.sum(), "SSD")
        every = moments.pooled
        return cls(Mahalanobis.about(every.mean, every.mean[None, :], every.covariance, of, True))

    def score(self, batch: Activations) -> Array:
        return self.distance.score(batch)

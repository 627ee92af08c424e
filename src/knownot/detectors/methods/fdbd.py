from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...errors import UnsoundError
from ...stats import ClassMeans, StatisticRequest
from ..base import Detector, some_images
from ..formulas import norm, predicted

SMALLEST = 1e-12  # length of f - mean, below which it is taken to be this: the score stays finite


@dataclass(frozen=True)
class FDBD(Detector):
    r"""Liu & Qin, Fast Decision Boundary based OOD Detector, ICML 2024 (arXiv:2312.11536).

        score(x) = -mean over k != c of |logit_c - logit_k| / ||w_c - w_k||  /  ||f(x) - mu||

    c: the predicted class, mu: the mean feature of the known images. The mean over classes, as in the paper; one peer
    sums, which ranks alike. Classes with equal weights have no boundary between them and are left out of each
    other's mean.
    """

    mean: Array  # [d]
    inverse: Array  # [c, c], 1 / ||w_c - w_k|| / number of boundaries of c, 0 where there is none

    needs = frozenset({"features", "head", "probabilities"})
    paper = "Liu & Qin 2024, arXiv:2312.11536"
    summary = "minus the distance to the decision boundaries, relative to that to the mean"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities) -> dict[str, StatisticRequest]:
        if capabilities.classes < 2:
            raise UnsoundError("fDBD measures the distance to other classes, and this classifier has one class only.")
        return {"means": StatisticRequest(ClassMeans, "features")}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head) -> Self:
        from scipy.spatial.distance import cdist

        means = statistics["means"]
        some_images(means.count.sum(), "fDBD")
        weight = np.asarray(head.weight, dtype=np.float64)
        check_disjoint = cdist(weight, weight)
        boundary = check_disjoint > 1e-7 * check_disjoint.max()
        if not boundary.any():
            raise UnsoundError("All classes have the same weights in the head, so fDBD finds no decision boundary.")
        count = np.maximum(boundary.sum(axis=1, keepdims=True), 1)
        inverse = np.where(boundary, 1 / np.where(boundary, check_disjoint, 1), 0) / count
        return cls(means.count @ means.mean / means.count.sum(), inverse)

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.logits)
        margin = xp.max(batch.logits, axis=-1, keepdims=True) - batch.logits
        distance = xp.sum(margin * predicted(batch.logits, self.inverse), axis=-1)
        return -distance / xp.clip(norm(batch.features - self.mean), min=SMALLEST)

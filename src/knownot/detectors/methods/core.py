from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import ClassMeans, Reservoir, StatisticRequest
from ..base import Detector, some_images
from ..formulas import logsumexp, predicted, unit


@dataclass(frozen=True)
class Core(Detector):
    r"""Yang, Kim & Bahk, CORE: Robust Out-of-Distribution Detection via Confidence and Orthogonal Residual Scoring,
    2026 (arXiv:2603.18290).

        score(x) = -(e(x) - mean(e)) / std(e)  -  (s(x) - mean(s)) / std(s)
        e = log sum_k exp(logit_k),  s = cosine of r(x) to the mean of r over class c,  r = f - <f, u_c> u_c

    c: the predicted class, u_c: its weights divided by their length. mean, std: of the known images (a sample of
    10,000). This is the reading of "orthogonal to the classifier" by which something is left over where there are
    more classes than features, as on ImageNet with the paper's ViT; orthogonal to the weights of all classes,
    nothing would be. A class without images uses the mean feature of all. What does not vary is not scaled.
    """

    directions: Array  # [c, d], u_c
    residuals: Array  # [c, d], of length 1 (or 0)
    center: Array  # [2], mean of e and s
    scale: Array  # [2], their standard deviations

    needs = frozenset({"features", "head", "logits"})
    paper = "Yang, Kim & Bahk 2026, arXiv:2603.18290"
    summary = "energy, and likeness to the predicted class in what its weights do not see"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities) -> dict[str, StatisticRequest]:
        return {
            "means": StatisticRequest(ClassMeans, "features"),
            "sample": StatisticRequest(Reservoir, "features", options=(("size", 10_000),)),
        }

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head) -> Self:
        means, sample = statistics["means"], np.asarray(statistics["sample"].rows["rows"], dtype=np.float64)
        some_images(len(sample), "CORE")
        weight, bias = (np.asarray(x, dtype=np.float64) for x in (head.weight, head.bias))
        overall = means.count @ means.mean / means.count.sum()
        directions, class_means = unit(weight), np.where(means.count[:, None] > 0, means.mean, overall)
        along = np.sum(class_means * directions, axis=1, keepdims=True)
        raw = cls(directions, unit(class_means - along * directions), np.zeros(2), np.ones(2))
        parts = np.stack(raw.terms(Activations(sample @ weight.T + bias, sample)))
        spread = parts.std(axis=1)
        scale = np.where(spread > 1e-9 * np.abs(parts).max(axis=1), spread, 1.0)
        return cls(directions, raw.residuals, parts.mean(axis=1), scale)

    def terms(self, batch: Activations) -> tuple[Array, Array]:  # [n], [n]
        """e and s."""
        xp = array_namespace(batch.features)
        direction = predicted(batch.logits, self.directions)
        residual = batch.features - xp.sum(batch.features * direction, axis=-1, keepdims=True) * direction
        likeness = xp.sum(unit(residual) * predicted(batch.logits, self.residuals), axis=-1)
        return logsumexp(batch.logits), likeness

    def score(self, batch: Activations) -> Array:
        energy, likeness = self.terms(batch)
        return (self.center[0] - energy) / self.scale[0] + (self.center[1] - likeness) / self.scale[1]

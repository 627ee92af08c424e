from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import ClassMoments, StatisticRequest
from ..base import Detector, some_images
from ..formulas import log_probabilities_of, unit

SMALLEST = 1e-10  # of the largest: a direction with less holds rounding noise of float32 features


@dataclass(frozen=True)
class PNML(Detector):
    r"""Bibas et al., Single Layer Predictive Normalized Maximum Likelihood for OOD Detection, NeurIPS 2021
    (arXiv:2110.09246), eq. 20.

        score(x) = log sum_k p_k / (p_k + p_k^g (1 - p_k)),  g = q / (1 + q),  q = z(x)^T (Z^T Z)^-1 z(x)

    p = p(x) of the classifier; z = f / ||f||; Z [n, d] those of the known images. Unit features as in the authors'
    experiments; their code then also takes p from the head on z, here p is the classifier's own. A direction that
    no known image takes makes q large, which is the point of it: eigenvalues of Z^T Z are raised to 1e-10 of the
    largest, where a pseudo-inverse would make such an x look known. Computed as log1p of a sum of positive terms,
    so that small regrets do not round to 0.
    """

    whiten: Array  # [d, d], whiten whiten^T = (Z^T Z)^-1

    needs = frozenset({"features", "probabilities"})
    paper = "Bibas et al. 2021, arXiv:2110.09246"
    summary = "regret of the last layer had it been trained on the image with any label"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities) -> dict[str, StatisticRequest]:
        return {"moments": StatisticRequest(ClassMoments, "features", unit=True)}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None) -> Self:
        moments = statistics["moments"]
        some_images(moments.count.sum(), "PNML")
        every = moments.pooled
        values, directions = np.linalg.eigh(every.about(np.zeros_like(every.mean)) * every.count)
        largest = values[-1] if values[-1] > 0 else 1.0
        return cls(directions / np.sqrt(np.maximum(values, SMALLEST * largest)))

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.features)
        z = unit(batch.features) @ self.whiten
        q = xp.sum(z * z, axis=-1)[:, None]
        log_p, log_rest = log_probabilities_of(batch)
        # p / (p + p^g (1 - p)) - 1 times p + p^g (1 - p) is p (1 - p) (1 - p^g) for p summing to 1
        gained = xp.exp(log_rest) * -xp.expm1(log_p * q / (1 + q))
        odds = xp.exp(xp.clip(log_rest - log_p / (1 + q), None, 80))  # p^g (1 - p) / p
        return xp.log1p(xp.sum(gained / (1 + odds), axis=-1))

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import ClassMeans, StatisticRequest
from ..base import Detector, some_images
from ..formulas import log_probabilities

SMALLEST = float(np.finfo(np.float32).tiny)  # of a mean probability, so that its log is finite


@dataclass(frozen=True)
class KLMatching(Detector):
    r"""Hendrycks et al., Scaling Out-of-Distribution Detection for Real-World Settings, ICML 2022 (arXiv:1911.11132).

        score(x) = min_k KL(p(x) || m_k),  m_k = mean probabilities of the known images predicted as class k

    The minimum is over classes, as in the paper; one peer compares with the predicted class only. A class that is
    never predicted has no m_k and is left out; another peer puts a one-hot vector there.
    """

    log_means: Array  # [r, c], log m_k of the r classes that are predicted

    needs = frozenset({"probabilities"})
    paper = "Hendrycks et al. 2022, arXiv:1911.11132"
    summary = "divergence from the nearest class's mean probabilities"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities) -> dict[str, StatisticRequest]:
        return {"means": StatisticRequest(ClassMeans, "probabilities", by="prediction")}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None) -> Self:
        means = statistics["means"]
        some_images(means.count.sum(), "KL matching")
        return cls(np.log(np.maximum(means.mean[means.count > 0], SMALLEST)))

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.logits)
        log_p, _ = log_probabilities(batch.logits)
        p = xp.exp(log_p)
        return xp.sum(p * log_p, axis=-1) - xp.max(p @ self.log_means.T, axis=-1)

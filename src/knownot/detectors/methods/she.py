from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import ClassMeans, StatisticRequest
from ..base import Detector, some_images
from ..formulas import predicted


@dataclass(frozen=True)
class SHE(Detector):
    r"""Zhang et al., OOD Detection based on In-Distribution Data Patterns Memorization with Modern Hopfield Energy,
    ICLR 2023.

        score(x) = -<f(x), s_c>,  c the predicted class, s_c the mean feature of its correctly classified images

    Of the predicted class, as in the paper; one peer takes the best of all classes and perturbs the input. A class
    without a correctly classified image uses the mean of all images of that label, without any image the mean of
    all classes; peers give NaN or stop.
    """

    patterns: Array  # [c, d]

    needs = frozenset({"features", "probabilities"})
    paper = "Zhang et al. 2023 (ICLR)"
    summary = "minus the inner product with the mean feature of the predicted class"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities) -> dict[str, StatisticRequest]:
        return {
            "correct": StatisticRequest(ClassMeans, "features", by="correct"),
            "all": StatisticRequest(ClassMeans, "features"),
        }

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None) -> Self:
        correct, every = statistics["correct"], statistics["all"]
        some_images(every.count.sum(), "SHE")
        overall = every.count @ every.mean / every.count.sum()
        fallback = np.where(every.count[:, None] > 0, every.mean, overall)
        return cls(np.where(correct.count[:, None] > 0, correct.mean, fallback))

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.features)
        return -xp.sum(batch.features * predicted(batch.logits, self.patterns), axis=-1)

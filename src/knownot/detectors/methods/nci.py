from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import ClassMeans, StatisticRequest
from ..base import Detector, number, some_images
from ..formulas import norm, predicted

SMALLEST = 1e-12  # length of f - mean, below which it is taken to be this: the score stays finite


@dataclass(frozen=True)
class NCI(Detector):
    r"""Liu & Qin, Detecting Out-of-Distribution Through the Lens of Neural Collapse, CVPR 2025 (arXiv:2311.01479).

        score(x) = -<w_c, f(x) - mu> / ||f(x) - mu||  -  alpha ||f(x)||_1

    c: the predicted class, w_c its weights, mu: the mean feature of the known images. With the paper's norm of the
    features; a peer adds alpha itself, which changes no ranking, and another leaves the term out (alpha = 0) by
    default. alpha = 0.0001 is of use where the L1 norm is in the hundreds, as with 2048 features; the paper tunes it.
    """

    weight: Array  # [c, d]
    mean: Array  # [d]
    alpha: float = 1e-4

    needs = frozenset({"features", "head", "probabilities"})
    paper = "Liu & Qin 2025, arXiv:2311.01479"
    summary = "minus how well the centred feature aligns with the predicted class's weights, and its length"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("alpha", options["alpha"], 0)
        return {"means": StatisticRequest(ClassMeans, "features")}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head, *, alpha: float = 1e-4) -> Self:
        means = statistics["means"]
        some_images(means.count.sum(), "NCI")
        mean = means.count @ means.mean / means.count.sum()
        return cls(np.asarray(head.weight, dtype=np.float64), mean, float(alpha))

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.features)
        centred = batch.features - self.mean
        along = xp.sum(centred * predicted(batch.logits, self.weight), axis=-1)
        size = xp.sum(xp.abs(batch.features), axis=-1)
        return -along / xp.clip(norm(centred), min=SMALLEST) - self.alpha * size

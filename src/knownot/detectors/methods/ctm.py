from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import ClassMeans, StatisticRequest
from ..base import Detector, some_images
from ..formulas import unit


@dataclass(frozen=True)
class CTM(Detector):
    r"""Ngoc-Hieu et al., A Cosine Similarity-based Method for Out-of-Distribution Detection, 2023 (arXiv:2306.14920).

        score(x) = -max_c cos(f(x), mu_c),  mu_c = mean feature of the known images of class c

    Class typical matching. A class without images is left out. A vector of zeros has cosine 0 with all.
    """

    means: Array  # [k, d], of length 1, of the k classes that have images

    needs = frozenset({"features"})
    paper = "Ngoc-Hieu et al. 2023, arXiv:2306.14920"
    summary = "minus the cosine with the nearest class mean"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities) -> dict[str, StatisticRequest]:
        return {"means": StatisticRequest(ClassMeans, "features")}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None) -> Self:
        means = statistics["means"]
        some_images(means.count.sum(), "CTM")
        return cls(np.asarray(unit(means.mean[means.count > 0])))

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.features)
        return -xp.max(unit(batch.features) @ self.means.T, axis=-1)

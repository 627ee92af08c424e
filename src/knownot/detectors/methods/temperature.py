from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ...arrays import Activations, Array, Capabilities, Head
from ...errors import UnsoundError
from ...stats import Reservoir, StatisticRequest
from ..base import Detector, some_images
from ..formulas import logsumexp
from .msp import MSP

LOWEST, HIGHEST = 0.01, 100.0


@dataclass(frozen=True)
class TemperatureMSP(Detector):
    r"""Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (arXiv:1706.04599), as OpenOOD scores with it.

        score(x) = 1 - max_k softmax(logits(x) / T)_k,  T minimises the negative log-likelihood of the labels

    T, from 0.01 to 100, over a sample of 10,000 known images. The likelihood is concave in 1/T, so there is one
    optimum and no start to choose (peers start gradient descent at 1 or 1.5, and stop after 50 steps). Known images
    that the classifier was trained on make T too small. Where every image of the sample is classified as labelled,
    as is the case where there are no labels, nothing bounds T from below, and T = 1.
    """

    temperature: float

    needs = frozenset({"probabilities"})
    paper = "Guo et al. 2017, arXiv:1706.04599"
    summary = "1 minus the highest probability, at the temperature that fits the labels"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities) -> dict[str, StatisticRequest]:
        if not capabilities.labels:
            raise UnsoundError("TemperatureMSP fits a temperature to true labels, and these known images have none.")
        return {"sample": StatisticRequest(Reservoir, ("logits", "class"), options=(("size", 10_000),))}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None) -> Self:
        from scipy.optimize import minimize_scalar

        rows = statistics["sample"].rows
        logits, label = np.asarray(rows["logits"], dtype=np.float64), rows["class"]
        some_images(len(logits), "TemperatureMSP")
        if (logits.argmax(axis=1) == label).all():
            return cls(1.0)
        truth = logits[np.arange(len(label)), label]

        def loss(log_t: float) -> float:
            return float(np.mean(logsumexp(logits / np.exp(log_t)) - truth / np.exp(log_t)))

        best = minimize_scalar(loss, bounds=np.log([LOWEST, HIGHEST]), method="bounded", options={"xatol": 1e-8})
        return cls(float(np.exp(best.x)))

    def score(self, batch: Activations) -> Array:
        return MSP().score(Activations(batch.logits / self.temperature))

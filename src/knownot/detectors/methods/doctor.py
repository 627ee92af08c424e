from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from array_api_compat import array_namespace

from ...arrays import Activations, Array, Head
from ..base import Detector
from ..formulas import log_probabilities_of


@dataclass(frozen=True)
class Doctor(Detector):
    r"""Granese et al., DOCTOR: A Simple Method for Detecting Misclassification Errors, NeurIPS 2021 (arXiv:2106.02395).

        score(x) = 1 - sum_k p_k(x)^2

    The paper's D_alpha compares (1 - g) / g with a threshold, g = sum_k p_k^2: that ranks like 1 - g. (Its D_beta ranks
    like MSP.) Without the paper's optional step on the input. Computed as sum_k p_k (1 - p_k), so that images do not
    tie where the highest probability rounds to 1.
    """

    needs = frozenset({"probabilities"})
    paper = "Granese et al. 2021, arXiv:2106.02395"
    summary = "1 minus the sum of the squared probabilities"

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None) -> Self:
        return cls()

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.logits)
        log_p, log_rest = log_probabilities_of(batch)
        return xp.sum(xp.exp(log_p + log_rest), axis=-1)

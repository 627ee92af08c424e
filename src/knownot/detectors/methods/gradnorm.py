from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...errors import UnsoundError
from ...stats import StatisticRequest
from ..base import Detector
from ..formulas import softmax


@dataclass(frozen=True)
class GradNorm(Detector):
    r"""Huang, Geng & Li, On the Importance of Gradients for Detecting Distributional Shifts in the Wild, NeurIPS 2021
    (arXiv:2110.00218).

        score(x) = -||f(x)||_1 * sum_k |1/c - p_k|

    That product is the L1 norm of the gradient, with respect to the weights of the last layer, of the cross-entropy
    against equal probabilities: (p - 1/c) f^T, so no gradient has to be taken. Of the last layer, as in the paper;
    one peer takes those of all parameters by default.
    """

    needs = frozenset({"features", "probabilities"})
    paper = "Huang, Geng & Li 2021, arXiv:2110.00218"
    summary = "minus the size of the last layer's gradient towards equal probabilities"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities) -> dict[str, StatisticRequest]:
        if capabilities.classes < 2:
            raise UnsoundError("GradNorm compares the classes' probabilities, and this classifier has one class only.")
        return {}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None) -> Self:
        return cls()

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.logits)
        away = xp.sum(xp.abs(softmax(batch.logits) - 1 / batch.logits.shape[-1]), axis=-1)
        return -xp.sum(xp.abs(batch.features), axis=-1) * away

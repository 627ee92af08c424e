from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import StatisticRequest
from ..base import Detector, number
from ..formulas import largest, log_probabilities_of


@dataclass(frozen=True)
class GEN(Detector):
    r"""Liu, Lochman & Zach, GEN: Pushing the Limits of Softmax-Based OOD Detection, CVPR 2023.

        score(x) = sum over the M most probable classes of p_k^gamma (1 - p_k)^gamma

    The sum, as in the paper; some peers take the mean, which ranks alike. With fewer than M classes, all of them.
    Powers are taken of log p and log(1 - p), so p may be 0 or round to 1.
    """

    gamma: float = 0.1
    top: int = 100

    needs = frozenset({"probabilities"})
    paper = "Liu, Lochman & Zach 2023 (CVPR)"
    summary = "generalised entropy of the probabilities"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("gamma", options["gamma"], 1e-3, 1.0)
        number("top", options["top"], 1, whole=True)
        return {}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None, *, gamma: float = 0.1, top: int = 100) -> Self:
        return cls(float(gamma), int(top))

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.logits)
        log_p, log_rest = log_probabilities_of(batch)
        terms = xp.exp(self.gamma * (log_p + log_rest))
        # p(1 - p) orders classes as p does, but for a winner above 1/2, whose term is still the largest (p_1 >= 1/2
        # and p_2 <= 1 - p_1): the largest terms are those of the most probable classes.
        return xp.sum(largest(terms, self.top), axis=-1)

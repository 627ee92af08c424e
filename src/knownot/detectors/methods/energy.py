from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import StatisticRequest
from ..base import Detector, number
from ..formulas import logsumexp


@dataclass(frozen=True)
class Energy(Detector):
    r"""Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020 (arXiv:2010.03759), eq. 4.

        score(x) = -T log sum_k exp(logit_k(x) / T)

    Not defined for logits known only up to a constant (probabilities): it would be 0 for every image.
    """

    temperature: float = 1.0

    needs = frozenset({"logits"})
    paper = "Liu et al. 2020, arXiv:2010.03759"
    summary = "minus the log-sum-exp of the logits"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("temperature", options["temperature"], 1e-3, 1e6)
        return {}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None, *, temperature: float = 1.0) -> Self:
        return cls(float(temperature))

    def score(self, batch: Activations) -> Array:
        return -self.temperature * logsumexp(batch.logits / self.temperature)

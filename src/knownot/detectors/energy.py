from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..arrays import Activations, Array, Head
from ..stats import Statistic
from .base import Detector
from .formulas import logsumexp


@dataclass(frozen=True)
class Energy(Detector):
    r"""Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020 (arXiv:2010.03759), eq. 4.

        score(x) = -T log sum_k exp(logit_k(x) / T)

    Not defined for logits known only up to a constant (probabilities): it would be 0 for every image.
    """

    temperature: float = 1.0

    needs = frozenset({"logits"})
    paper = "Liu et al. 2020, arXiv:2010.03759"

    @classmethod
    def fit(cls, seen: Mapping[str, Statistic], head: Head | None, *, temperature: float = 1.0, **options: Any) -> Self:
        return cls(temperature)

    def score(self, batch: Activations) -> Array:
        return -self.temperature * logsumexp(batch.logits / self.temperature)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from array_api_compat import array_namespace

from ...arrays import Activations, Array, Head
from ..base import Detector


@dataclass(frozen=True)
class MaxLogit(Detector):
    r"""Hendrycks et al., Scaling Out-of-Distribution Detection for Real-World Settings, ICML 2022 (arXiv:1911.11132).

        score(x) = -max_k logit_k(x)

    Not defined for logits known only up to a constant (probabilities).
    """

    needs = frozenset({"logits"})
    paper = "Hendrycks et al. 2022, arXiv:1911.11132"
    summary = "minus the highest logit"

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None) -> Self:
        return cls()

    def score(self, batch: Activations) -> Array:
        return -array_namespace(batch.logits).max(batch.logits, axis=-1)

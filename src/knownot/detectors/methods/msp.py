from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from array_api_compat import array_namespace

from ...arrays import Activations, Array, Head
from ..base import Detector
from ..formulas import log_probabilities_of


@dataclass(frozen=True)
class MSP(Detector):
    r"""Hendrycks & Gimpel, A Baseline for Detecting Misclassified and OOD Examples, ICLR 2017 (arXiv:1610.02136).

        score(x) = 1 - max_k p_k(x)

    Computed as the sum of the other probabilities, so that images do not tie where the highest rounds to 1.
    """

    needs = frozenset({"probabilities"})
    paper = "Hendrycks & Gimpel 2017, arXiv:1610.02136"
    summary = "1 minus the highest probability"

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None) -> Self:
        return cls()

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.logits)
        _, log_rest = log_probabilities_of(batch)
        return xp.exp(xp.min(log_rest, axis=-1))

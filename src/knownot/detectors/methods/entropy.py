from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from array_api_compat import array_namespace

from ...arrays import Activations, Array, Head
from ..base import Detector
from ..formulas import log_probabilities_of


@dataclass(frozen=True)
class Entropy(Detector):
    r"""Shannon entropy of the softmax; as a detector e.g. in Hendrycks et al., Deep Anomaly Detection with
    Outlier Exposure, ICLR 2019 (arXiv:1812.04606), appendix.

        score(x) = -sum_k p_k log p_k

    Peers differ in sign (one returns it with the convention of larger = known) and in clipping p; here log p is
    computed from the logits and stays finite where p is 0.
    """

    needs = frozenset({"probabilities"})
    paper = "Hendrycks et al. 2019, arXiv:1812.04606"
    summary = "entropy of the probabilities"

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None) -> Self:
        return cls()

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.logits)
        log_p, _ = log_probabilities_of(batch)
        return -xp.sum(xp.exp(log_p) * log_p, axis=-1)

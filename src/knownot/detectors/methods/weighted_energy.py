from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ...arrays import Activations, Array, Head
from ...errors import UnsoundError
from ..base import Detector
from ..formulas import logsumexp


@dataclass(frozen=True)
class WeightedEnergy(Detector):
    r"""Du, Wang, Cai & Li, VOS, ICLR 2022 (arXiv:2202.01197), equation 4: energy with a weight for each class.

        score(x) = -log sum_k w_k exp(logit_k),  w_k > 0, learnt from virtual outliers; all 1 is the plain energy

    Of a remedy, `knownot.remedies.vos`, and fitted there.
    """

    weights: Array  # [c], log w

    needs = frozenset({"logits"})
    paper = "Du et al. 2022, arXiv:2202.01197"
    summary = "energy with a learnt weight for each class"

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None) -> Self:
        raise UnsoundError("Its weights are learnt from virtual outliers: knownot.remedies.vos(model, known).")

    def score(self, batch: Activations) -> Array:
        return -logsumexp(batch.logits + self.weights)

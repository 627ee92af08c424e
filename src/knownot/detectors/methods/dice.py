from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import ClassMeans, StatisticRequest
from ..base import Shaper, number, some_images


@dataclass(frozen=True)
class Dice(Shaper):
    r"""Sun & Li, DICE: Leveraging Sparsification for Out-of-Distribution Detection, ECCV 2022 (arXiv:2111.09805).

        logit_k'(x) = sum over j of m_kj w_kj f_j(x) + b_k,  m_kj = 1 where w_kj mean(f_j) is above its percentile

    mean: over the known images; the percentile: of all contributions of all classes. One peer looks at the weights
    alone and overwrites those of the classifier; here they are copied. Where no contribution is above the percentile,
    those that equal it are kept.
    """

    weight: Array  # [c, d], 0 where it is masked

    needs = frozenset({"features", "head"})
    paper = "Sun & Li 2022, arXiv:2111.09805"
    summary = "logits from the weights that contribute most on known images"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("percentile", options["percentile"], 0, 100)
        return {"means": StatisticRequest(ClassMeans, "features")}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head, *, percentile: float = 90.0) -> Self:
        means = statistics["means"]
        some_images(means.count.sum(), "DICE")
        weight = np.asarray(head.weight, dtype=np.float64)
        contribution = weight * (means.count @ means.mean / means.count.sum())
        bar = np.percentile(contribution, percentile)
        kept = contribution > bar
        return cls(np.where(kept if kept.any() else contribution >= bar, weight, 0.0))

    def shape(self, batch: Activations, head: Head) -> Activations:
        return replace(batch, logits=batch.features @ self.weight.T + head.bias)

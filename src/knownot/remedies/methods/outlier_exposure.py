from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...arguments import number
from ..base import Task
from ..training.fine_tuning import FineTuning
from ..training.loop import Outputs
from ..training.losses import cross_entropy, uniform_cross_entropy


@dataclass(frozen=True)
class OutlierExposure(FineTuning):
    r"""Hendrycks, Mazeika & Dietterich, Deep Anomaly Detection with Outlier Exposure, ICLR 2019 (arXiv:1812.04606).

        loss = CE(known, their class) + weight * CE(outliers, the uniform distribution),  each the mean over its own
        rows

    weight: of the outliers' term, 0.5 in the paper.
    """

    weight: float = 0.5

    name = "outlier-exposure"
    outliers = "required"
    modes = ("full", "head")
    detector = "msp"
    paper = "Hendrycks et al. 2019, arXiv:1812.04606"
    summary = "outliers are to get the same probability for every class"

    def checked(self, task: Task) -> None:
        number("weight", self.weight, 0)

    def loss(self, xp: Any, out: Outputs, batch: Mapping[str, Any]) -> Any:
        strange = uniform_cross_entropy(xp, out.logits, batch["outlier"])
        return cross_entropy(xp, out.logits, batch["targets"], batch["known"]) + self.weight * strange

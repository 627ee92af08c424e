from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...arguments import number
from ...errors import ImagesError
from ..base import Task
from ..training.batches import Plan
from ..training.fine_tuning import FineTuning
from ..training.loop import Arrays, Outputs
from ..training.losses import cross_entropy


@dataclass(frozen=True)
class RotPred(FineTuning):
    r"""Hendrycks et al., Using Self-Supervised Learning Can Improve Model Robustness and Uncertainty, NeurIPS 2019
    (arXiv:1906.12340).

        loss = CE(known, their class) + weight * CE(rotated known, by how many quarters)

    A second linear layer on the features tells by how many quarters of a turn an image was rotated; features that can
    tell know more of shapes. It is dropped after training. Only for square images in which up is up.

    weight: 0.5 in the paper.
    """

    weight: float = 0.5

    name = "rotpred"
    needs_features = True
    extra = {"rotation": 4}
    paper = "Hendrycks et al. 2019, arXiv:1906.12340"
    summary = "features that also tell how images were rotated"

    def checked(self, task: Task) -> None:
        number("weight", self.weight, 0)
        h, w = task.known.x.shape[1:3]
        if h != w:
            raise ImagesError(f"Images of {h} x {w} cannot be turned by a quarter; rotpred needs square ones.")

    def batch(self, task: Task, plan: Plan, step: int) -> Arrays:
        """Known images, then each of them once, turned by 0 to 3 quarters."""
        arrays = dict(super().batch(task, plan, step))
        x, n = arrays["x"], len(arrays["x"])
        quarters = plan.rng(step, 21).integers(0, 4, n)
        turned = np.stack([np.rot90(image, q) for image, q in zip(x, quarters, strict=True)])
        nothing = np.zeros(n, np.float32)
        rotation = np.eye(4, dtype=np.float32)[quarters]
        return {
            "x": np.concatenate([x, turned]),
            "targets": np.concatenate([arrays["targets"], np.zeros_like(arrays["targets"])]),
            "known": np.concatenate([arrays["known"], nothing]),
            "rotation": np.concatenate([np.zeros_like(rotation), rotation]),
            "turned": np.concatenate([nothing, nothing + 1]),
        }

    def loss(self, xp: Any, out: Outputs, batch: Mapping[str, Any]) -> Any:
        turned = cross_entropy(xp, out.extra["rotation"], batch["rotation"], batch["turned"])
        return cross_entropy(xp, out.logits, batch["targets"], batch["known"]) + self.weight * turned

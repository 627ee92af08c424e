from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...arguments import number, one_of
from ..base import Task
from ..training.batches import Plan
from ..training.fine_tuning import FineTuning
from ..training.loop import Arrays, Outputs
from ..training.losses import cross_entropy


@dataclass(frozen=True)
class MixOE(FineTuning):
    r"""Zhang et al., Mixture Outlier Exposure, WACV 2023 (arXiv:2106.03917), eq. 4.

        loss = CE(known, their class) + weight * CE(mix(known, outlier; s), s * their class + (1 - s) / c),
        s ~ Beta(alpha, alpha)

    Confidence is to fall along the way from known images to outliers. how: "mixup", s of one image plus 1 - s of the
    other, or "cutmix", a rectangle of the share 1 - s from the outlier.
    """

    weight: float = 1.0
    alpha: float = 1.0
    how: str = "mixup"

    name = "mixoe"
    outliers = "required"
    detector = "msp"
    paper = "Zhang et al. 2023, arXiv:2106.03917"
    summary = "mixtures of known images and outliers are to have mixed confidence"

    def checked(self, task: Task) -> None:
        number("weight", self.weight, 0)
        number("alpha", self.alpha, 1e-3, 1e6)
        one_of("how", self.how, ("mixup", "cutmix"))

    def batch(self, task: Task, plan: Plan, step: int) -> Arrays:
        """The rows of the outliers are those mixtures; their targets are mixed too."""
        arrays = dict(super().batch(task, plan, step))
        rng = plan.rng(step, 20)
        known, strange = (np.flatnonzero(arrays[name]) for name in ("known", "outlier"))
        partners = rng.choice(known, len(strange))
        share = rng.beta(self.alpha, self.alpha, len(strange))
        own, other = arrays["x"][partners], arrays["x"][strange]
        if self.how == "cutmix":
            mixed, share = cut(own, other, share, rng)
        else:
            s = share[:, None, None, None]
            mixed = (s * own + (1 - s) * other).astype(np.float32)
        x, targets = arrays["x"].copy(), arrays["targets"].copy()
        x[strange] = mixed
        targets[strange] = share[:, None] * targets[partners] + (1 - share[:, None]) / targets.shape[1]
        return arrays | {"x": x, "targets": targets}

    def loss(self, xp: Any, out: Outputs, batch: Mapping[str, Any]) -> Any:
        mixed = cross_entropy(xp, out.logits, batch["targets"], batch["outlier"])
        return cross_entropy(xp, out.logits, batch["targets"], batch["known"]) + self.weight * mixed


def cut(
    own: np.ndarray, other: np.ndarray, share: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(images with a rectangle from others, the share of each that is its own). At an edge the rectangle is smaller
    than asked for, so the share is that of its pixels."""
    n, h, w, _ = own.shape
    mixed, left = own.copy(), np.ones(n)
    for i, side in enumerate(np.sqrt(1 - share)):
        a, b = round(h * side), round(w * side)
        y, x = rng.integers(0, h), rng.integers(0, w)
        rows, columns = slice(max(0, y - a // 2), y + (a + 1) // 2), slice(max(0, x - b // 2), x + (b + 1) // 2)
        mixed[i, rows, columns] = other[i, rows, columns]
        left[i] = 1 - mixed[i, rows, columns, 0].size / (h * w)
    return mixed, left

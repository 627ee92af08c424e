from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ...arguments import number
from ..base import Task
from ..training.fine_tuning import FineTuning, Look
from ..training.loop import Outputs
from ..training.losses import cross_entropy, objectosphere, uniform_cross_entropy

PAPER = "Dhamija et al. 2018, arXiv:1811.04110"


@dataclass(frozen=True)
class Entropic(FineTuning):
    r"""Dhamija, Günther & Boult, Reducing Network Agnostophobia, NeurIPS 2018 (arXiv:1811.04110), eq. 2.

        loss = CE(known, their class) + CE(outliers, the uniform distribution),  each the mean over its own rows

    The same terms as outlier exposure, of equal weight.
    """

    name = "entropic"
    outliers = "required"
    modes = ("full", "head")
    detector = "entropy"
    paper = PAPER
    summary = "outliers are to have the highest entropy"

    def loss(self, xp: Any, out: Outputs, batch: Mapping[str, Any]) -> Any:
        strange = uniform_cross_entropy(xp, out.logits, batch["outlier"])
        return cross_entropy(xp, out.logits, batch["targets"], batch["known"]) + strange


@dataclass(frozen=True)
class Objectosphere(FineTuning):
    r"""Dhamija, Günther & Boult, Reducing Network Agnostophobia, NeurIPS 2018 (arXiv:1811.04110), eq. 3.

        loss = the entropic open-set loss + weight * (mean over known of max(0, xi - ||f||)^2
               + mean over outliers of ||f||^2) / xi^2

    xi: the length that features of known images are to have at least; None: their median before training. Peers give 1
    or 50 whatever the network, which says nothing where features are a hundred long. Dividing by xi^2 makes weight mean
    the same for every network; the paper's 0.0001 at xi = 50 is 0.25.
    """

    weight: float = 0.25
    xi: float | None = None

    name = "objectosphere"
    outliers = "required"
    detector = "entropy"
    needs_features = True
    paper = PAPER
    summary = "and short features, where those of known images are long"

    def checked(self, task: Task) -> None:
        number("weight", self.weight, 0)
        if self.xi is not None:
            number("xi", self.xi, 1e-6)

    def settled(self, task: Task, known: Look, outliers: Look | None) -> Self:
        length = float(np.median(np.linalg.norm(known.features, axis=1)))
        return replace(self, xi=length) if self.xi is None else self

    def loss(self, xp: Any, out: Outputs, batch: Mapping[str, Any]) -> Any:
        assert self.xi is not None  # `settled`
        strange = uniform_cross_entropy(xp, out.logits, batch["outlier"])
        lengths = objectosphere(xp, out.features, batch["known"], batch["outlier"], xi=self.xi) / self.xi**2
        return cross_entropy(xp, out.logits, batch["targets"], batch["known"]) + strange + self.weight * lengths

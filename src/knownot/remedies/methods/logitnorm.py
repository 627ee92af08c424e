from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...arguments import number
from ...errors import OptionError
from ..base import Task
from ..training.fine_tuning import FineTuning
from ..training.loop import Outputs
from ..training.losses import feature_norm, least_logit_norm, logit_norm

LEAST = 0.1  # the loss has to be able to fall below this share of that of guessing


@dataclass(frozen=True)
class LogitNorm(FineTuning):
    r"""Wei et al., Mitigating Neural Network Overconfidence with Logit Normalization, ICML 2022 (arXiv:2205.09310).

        loss = CE(logits / (tau ||logits||), class)

    The length of the logits can no longer make the loss small, so that it does not grow with training. tau: 0.04 as in
    the paper; a larger one is refused where the loss could not become small: with 100 classes and tau = 1, a peer's
    default, it stays above 3.6 of the 4.6 that guessing has.
    """

    tau: float = 0.04

    name = "logitnorm"
    modes = ("full", "head")
    detector = "msp"
    paper = "Wei et al. 2022, arXiv:2205.09310"
    summary = "cross-entropy of logits of equal length"

    def checked(self, task: Task) -> None:
        number("tau", self.tau, 1e-4, 1e4)
        least, guess = least_logit_norm(task.classes, self.tau), math.log(task.classes)
        if least > LEAST * guess:
            raise OptionError(
                f"tau={self.tau:g}: with {task.classes} classes the loss cannot fall below {least:.2f}, and guessing "
                f"has {guess:.2f}. Give a smaller tau, such as 0.04."
            )

    def loss(self, xp: Any, out: Outputs, batch: Mapping[str, Any]) -> Any:
        return logit_norm(xp, out.logits, batch["targets"], batch["known"], tau=self.tau)


@dataclass(frozen=True)
class T2FNorm(FineTuning):
    r"""Regmi et al., T2FNorm: Train-time Feature Normalization, CVPR workshops 2024 (arXiv:2305.17797).

        loss = CE(W (f / (tau ||f||)) + b, class);  the classifier itself stays as it is: W f + b

    tau: 0.1 as in the paper. A head that was trained on features of their own length is far from one for features of
    length 1 / tau, so a short training changes it a lot; the tolerance tells whether it was too short.
    """

    tau: float = 0.1

    name = "t2fnorm"
    modes = ("full", "head")
    detector = "energy"
    needs_features = True
    paper = "Regmi et al. 2024, arXiv:2305.17797"
    summary = "cross-entropy of features of equal length"

    def checked(self, task: Task) -> None:
        number("tau", self.tau, 1e-4, 1e4)

    def loss(self, xp: Any, out: Outputs, batch: Mapping[str, Any]) -> Any:
        return feature_norm(xp, out.features, out.weight, out.bias, batch["targets"], batch["known"], tau=self.tau)

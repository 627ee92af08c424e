"""VOS on a classifier that stays: the weights of its energy are learnt from outliers that are drawn, not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import softmax
from ..detectors.base import number
from ..detectors.formulas import logsumexp
from ..detectors.weighted_energy import WeightedEnergy
from ..errors import UnsoundError
from ..outliers.features import virtual_outliers
from .base import Outcome, Remedy, Task
from .beside import SAME
from .layers import Adam, binary, falling
from .seen import look

STEPS, RATE = 500, 0.02


@dataclass(frozen=True)
class VOS(Remedy):
    r"""Du, Wang, Cai & Li, VOS, ICLR 2022 (arXiv:2202.01197), with the classifier as it is.

        v ~ tails of the Gaussian of each class's features;  E(x) = -log sum_k w_k exp(logit_k(x))
        min over w, a > 0, b:  mean over known of -log(1 - s(x)) + mean over v of -log s(v),  s = sigmoid(a E + b)

    The paper also trains the network, with this as a second loss: that moves the features, here they stay. No outliers
    are needed. share: how far out virtual outliers are drawn, the likelihood of a class's tail.
    """

    share: float = 1e-4

    name = "vos"
    modes = ("head",)
    keeps = ("head",)
    paper = "Du et al. 2022, arXiv:2202.01197; the classifier stays"
    summary = (
        "energy with weights for the classes, learnt from virtual outliers; no outliers needed, the classifier stays"
    )

    def retrain(self, task: Task) -> Outcome:
        number("share", self.share, 1e-12, 1)
        head = task.opened.head
        if head is None or not {"features", "logits"} <= task.opened.offers.kinds:
            raise UnsoundError(
                "Virtual outliers are features, and their energy takes the head: this classifier shows no features, no "
                "head, or probabilities only. 'discriminator' works without them."
            )
        seen = look(task, ["features"])
        features = seen.known["features"]
        made = virtual_outliers(features, seen.labels, len(features), task.settings.seed, share=self.share)
        u, history = learnt(*(np.asarray(head(x), dtype=np.float64) for x in (features, made)))
        return Outcome(detector=WeightedEnergy(u), history=history, notes=(SAME,))


def learnt(known: np.ndarray, made: np.ndarray) -> tuple[np.ndarray, tuple[dict[str, float], ...]]:
    """(log w [c], history) from logits of known images and of virtual outliers, by full gradients.

    A constant added to all log w changes only b; they are given with mean 0.
    """
    logits = np.concatenate([known, made])
    unknown = np.arange(len(logits)) >= len(known)
    arrays = [np.zeros(logits.shape[1]), np.zeros(1), np.zeros(1)]  # log w, log a, b
    scale = float(np.std(logsumexp(logits))) or 1.0
    arrays[1][0] = -np.log(scale)
    arrays[2][0] = float(np.mean(logsumexp(logits))) / scale
    adam = Adam(arrays, decay=0.0)
    history = []
    for step in range(STEPS):
        value, gradients = loss(arrays, logits, unknown)
        if step % 50 == 0:
            history.append({"loss": value})
        adam.step(arrays, gradients, falling(RATE, step, STEPS))
    return arrays[0] - arrays[0].mean(), tuple(history)


def loss(arrays: list[np.ndarray], logits: np.ndarray, unknown: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """(value, gradients) of the loss, for log w [c], log a [1], b [1]."""
    u, log_a, b = arrays
    energy, a = -logsumexp(logits + u), np.exp(log_a)
    value, d = binary((a * energy + b)[:, None], unknown)
    d = d[:, 0]
    return value, [-a * (d @ np.asarray(softmax(logits + u))), np.array([d @ energy]) * a, np.array([d.sum()])]

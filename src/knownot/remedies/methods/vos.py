"""VOS: energy with weights for the classes, learnt from outliers that are drawn as features, not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from ...arguments import number
from ...arrays import softmax
from ...detectors.formulas import logsumexp
from ...detectors.methods.weighted_energy import WeightedEnergy
from ...errors import UnsoundError
from ...outliers.features import tails, virtual_outliers
from ..base import Outcome, Remedy, Task
from ..training.activations import look
from ..training.batches import Plan
from ..training.fine_tuning import FineTuning, Look
from ..training.loop import Arrays, Outputs
from ..training.losses import cross_entropy, rooted, virtual_energy
from ..training.mlp import Adam, binary, decay_rate
from .none_head import SAME

STEPS, RATE = 500, 0.02
WINDOW = 1_000  # images of each class that its Gaussian is of, at most; the length of the authors' queues
RIDGE = 1e-4


@dataclass(frozen=True)
class VOS(Remedy):
    r"""Du, Wang, Cai & Li, VOS, ICLR 2022 (arXiv:2202.01197).

        v ~ tails of the Gaussian of each class's features;  E(x) = -log sum_k w_k exp(logit_k(x))
        L = mean over known of -log(1 - s(x)) + mean over v of -log s(v),  s = sigmoid(a E + b), a and w positive

    mode "head": the classifier stays; w, a and b alone are learnt. mode "full", the paper's: all weights are trained by
    cross-entropy + weight * L, so that features move as well; the Gaussians follow them. No outliers are needed.

    share: how far out virtual outliers are drawn, the likelihood of a class's tail. weight, select (of mode "full"): of
    L, 0.1 in the paper; how many are drawn around each class in each step.

    Differences from the authors' code: their queue of the last 1,000 features of a class is an average over about as
    many that forgets; tails are drawn from directly, not as the least likely of 10,000 draws; each mean is over its own
    rows, so that its strength does not depend on the batch; and training begins from a classifier that knows its
    classes, so virtual outliers are there from the first step on.
    """

    share: float = 1e-4
    weight: float = 0.1
    select: int = 1

    name = "vos"
    modes = ("head", "full")
    keeps = ("head",)
    paper = "Du et al. 2022, arXiv:2202.01197"
    summary = "energy with weights for the classes, learnt from virtual outliers; no outliers needed"

    def retrain(self, task: Task) -> Outcome:
        number("share", self.share, 1e-12, 1)
        number("weight", self.weight, 0)
        number("select", self.select, 1, 10_000, whole=True)
        if task.opened.head is None or not {"features", "logits"} <= task.opened.capabilities.outputs:
            raise UnsoundError(
                "Virtual outliers are features, and their energy takes the head: this classifier shows no features, no "
                "head, or probabilities only. 'discriminator' works without them."
            )
        tuned = Virtual(self.share, self.weight, self.select)
        return {"head": self._beside, "full": tuned.retrain}[task.settings.mode](task)

    def _beside(self, task: Task) -> Outcome:
        head = task.opened.head
        assert head is not None  # `retrain`
        seen = look(task, ["features"])
        features = seen.known["features"]
        made = virtual_outliers(features, seen.labels, len(features), task.settings.seed, share=self.share)
        u, history = learnt(*(np.asarray(head(x), dtype=np.float64) for x in (features, made)))
        return Outcome(detector=WeightedEnergy(u), history=history, notes=(SAME,))


@dataclass(frozen=True)
class Virtual(FineTuning):
    """`VOS` in full mode. window: of how many images of a class its Gaussian is, found by itself."""

    share: float
    weight: float
    select: int
    window: float = field(default=WINDOW, repr=False)

    name = "vos"
    needs_features = True
    whole = ("tail", "around")

    def settled(self, task: Task, known: Look, outliers: Look | None) -> Self:
        return replace(self, window=min(WINDOW, len(task.known) / task.classes))

    def own(self, task: Task, known: Look) -> Mapping[str, np.ndarray]:
        """log w [c], log a [], b []: those that suit the classifier as it is."""
        head = task.opened.head
        assert head is not None  # `VOS.retrain`
        made = virtual_outliers(known.features, known.labels, len(known.labels), task.settings.seed, share=self.share)
        (u, log_a, b), _ = fitted(known.logits.astype(np.float64), np.asarray(head(made), dtype=np.float64))
        return {"log_w": u - u.mean(), "log_a": log_a[0], "b": b[0] - np.exp(log_a[0]) * u.mean()}

    def memory(self, task: Task, known: Look) -> Mapping[str, np.ndarray]:
        """means [c, d], covariance [d, d] within the classes, of the features of the classifier as it is."""
        x = known.features.astype(np.float64)
        means = np.tile(x.mean(axis=0), (task.classes, 1))  # of classes that the sample lacks
        for k in np.unique(known.labels):
            means[k] = x[known.labels == k].mean(axis=0)
        off = x - means[known.labels]
        return {"means": means, "covariance": off.T @ off / len(off)}

    def remember(self, xp: Any, out: Outputs, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """The Gaussians with this batch: each image moves them by its share of the window."""
        means, covariance = out.memory["means"], out.memory["covariance"]
        rows = batch["targets"] * batch["known"][:, None]
        count, n = xp.sum(rows, axis=0), xp.sum(rows)
        off = (out.features - xp.matmul(rows, means)) * batch["known"][:, None]
        length = xp.where(count > self.window, count, xp.ones_like(count) * self.window)
        share = n / (self.window * rows.shape[1])
        share = xp.where(share < 1, share, xp.ones_like(share))
        within = xp.einsum("nd,ne->de", off, off) / xp.where(n > 0, n, xp.ones_like(n))
        return {
            "means": means + xp.einsum("nc,nd->cd", rows, off) / length[:, None],
            "covariance": covariance + share * (within - covariance),
        }

    def batch(self, task: Task, plan: Plan, step: int) -> Arrays:
        """Beside the known images: tail [m, d], where in the tail of a Gaussian virtual outliers lie; around [m, c]."""
        c, m = task.classes, task.classes * self.select
        assert task.opened.head is not None  # `VOS.retrain`
        d = np.asarray(task.opened.head.weight).shape[1]
        return {
            **super().batch(task, plan, step),
            "tail": tails(m, d, plan.rng(step, 23), self.share).astype(np.float32),
            "around": np.tile(np.eye(c, dtype=np.float32), (self.select, 1)),
        }

    def loss(self, xp: Any, out: Outputs, batch: Mapping[str, Any]) -> Any:
        root = rooted(xp, out.memory["covariance"], RIDGE)
        made = xp.matmul(batch["around"], out.memory["means"]) + xp.einsum("md,ed->me", batch["tail"], root)
        strange = xp.matmul(made, out.weight) + out.bias
        share = xp.sum(batch["share"]) if "share" in batch else 1.0
        second = virtual_energy(xp, out.logits, strange, batch["known"], **out.own, share=share)
        return cross_entropy(xp, out.logits, batch["targets"], batch["known"]) + self.weight * second

    def after(self, task: Task, model: Any, own: Mapping[str, np.ndarray]) -> Outcome:
        u = own["log_w"].astype(np.float64)
        return Outcome(model, detector=WeightedEnergy(u - u.mean()))


def learnt(known: np.ndarray, made: np.ndarray) -> tuple[np.ndarray, tuple[dict[str, float], ...]]:
    """(log w [c], history) from logits of known images and of virtual outliers.

    A constant added to all log w changes only b; they are given with mean 0.
    """
    (u, _, _), history = fitted(known, made)
    return u - u.mean(), history


def fitted(known: np.ndarray, made: np.ndarray) -> tuple[list[np.ndarray], tuple[dict[str, float], ...]]:
    """([log w [c], log a [1], b [1]], history), by full gradients."""
    logits = np.concatenate([known, made])
    unknown = np.arange(len(logits)) >= len(known)
    arrays = [np.zeros(logits.shape[1]), np.zeros(1), np.zeros(1)]
    scale = float(np.std(logsumexp(logits))) or 1.0
    arrays[1][0] = -np.log(scale)
    arrays[2][0] = float(np.mean(logsumexp(logits))) / scale
    adam = Adam(arrays, decay=0.0)
    history = []
    for step in range(STEPS):
        value, gradients = loss(arrays, logits, unknown)
        if step % 50 == 0:
            history.append({"loss": value})
        adam.step(arrays, gradients, decay_rate(RATE, step, STEPS))
    return arrays, tuple(history)


def loss(arrays: list[np.ndarray], logits: np.ndarray, unknown: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """(value, gradients) of the loss, for log w [c], log a [1], b [1]."""
    u, log_a, b = arrays
    energy, a = -logsumexp(logits + u), np.exp(log_a)
    value, d = binary((a * energy + b)[:, None], unknown)
    d = d[:, 0]
    return value, [-a * (d @ np.asarray(softmax(logits + u))), np.array([d @ energy]) * a, np.array([d.sum()])]

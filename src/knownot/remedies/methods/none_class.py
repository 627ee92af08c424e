from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from ...arguments import number
from ...arrays import softmax
from ...fitting.extraction import batch_size, forward
from ..base import Outcome, Task
from ..training.batches import Plan
from ..training.fine_tuning import FineTuning, Look
from ..training.loop import Arrays, Outputs
from ..training.losses import cross_entropy

PROBED = 300  # steps for the new rows alone
RARE = 4.0  # nats by which a new none-class begins below the least sure known images


@dataclass(frozen=True)
class NoneClass(FineTuning):
    r"""Further outputs that say "none of the classes", trained on outliers: the background class of object detectors.

        loss = CE(known, their class) + weight * CE(outliers, their none-class),  each the mean over its own rows

    Zhang & LeCun, Universum Prescription, AAAI 2017 (arXiv:1511.03719). The new rows of the head begin at zero, with a
    bias at which hardly any known image is called none, and are trained alone first, so that training begins from the
    classifier as it was.

    none_classes: how many; with several, outliers are grouped by k-means of their features, so that no single linear
    output has to mean everything strange. weight: of the outliers' term.
    """

    none_classes: int = 1
    weight: float = 0.5
    centres: np.ndarray | None = field(default=None, repr=False, compare=False)  # [k, d], found by itself

    name = "none-class"
    outliers = "required"
    modes = ("full", "head")
    detector = "none-class"
    paper = "Zhang & LeCun 2017, arXiv:1511.03719"
    summary = "further outputs that say none of the classes, trained on outliers"

    def checked(self, task: Task) -> None:
        number("none_classes", self.none_classes, 1, 1000, whole=True)
        number("weight", self.weight, 0)

    def settled(self, task: Task, known: Look, outliers: Look | None) -> Self:
        assert outliers is not None  # they are required
        if self.none_classes == 1:
            return self
        return replace(self, centres=k_means(outliers.features, self.none_classes, task.settings.seed))

    def rows(self, task: Task, known: Look, outliers: Look | None) -> tuple[np.ndarray, np.ndarray]:
        z = known.logits.astype(np.float64)
        top = z.max(axis=1)
        total = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
        bias = np.full(self.none_classes, np.quantile(total, 0.01) - RARE - np.log(self.none_classes))
        weight = np.zeros((self.none_classes, known.features.shape[1]))
        assert outliers is not None
        which = np.zeros(len(outliers.features), np.int64)
        if self.centres is not None:
            which = nearest(outliers.features, self.centres)
        return probe_logits(weight, bias, known, outliers, which, self.weight)

    def batch(self, task: Task, plan: Plan, step: int) -> Arrays:
        arrays = dict(super().batch(task, plan, step))
        n, k = len(arrays["targets"]), self.none_classes
        which = np.zeros(n, np.int64)
        rows = np.flatnonzero(arrays["outlier"])
        if self.centres is not None and len(rows):
            which[rows] = nearest(self._features(task, arrays["x"][rows]), self.centres)
        none = np.zeros((n, k), np.float32)
        none[rows, which[rows]] = 1
        return arrays | {"targets": np.concatenate([arrays["targets"], none], axis=1)}

    def _features(self, task: Task, x: np.ndarray) -> np.ndarray:
        """By the classifier as it was; in head mode they are features already."""
        if x.ndim == 2:
            return x
        each = batch_size(*x.shape[1:3])
        seen = forward(task.opened, (x[i : i + each] for i in range(0, len(x), each)))
        return np.concatenate([np.asarray(one.features) for one in seen])

    def loss(self, xp: Any, out: Outputs, batch: Mapping[str, Any]) -> Any:
        targets = batch["targets"]
        strange = cross_entropy(xp, out.logits, targets, batch["outlier"])
        return cross_entropy(xp, out.logits, targets, batch["known"]) + self.weight * strange

    def after(self, task: Task, model: Any, own: Mapping[str, np.ndarray]) -> Outcome:
        return Outcome(model, self.none_classes)


def probe_logits(
    weight: np.ndarray, bias: np.ndarray, known: Look, outliers: Look, which: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """New rows of the head, trained alone before anything else moves: Kumar et al., Fine-Tuning can Distort Pretrained
    Features, ICLR 2022 (arXiv:2202.10054). Otherwise the first gradients, of a head that knows nothing of outliers,
    spoil features that are good. Plain gradient descent on the loss of `NoneClass`, which is convex in these rows.
    """
    f = [look.features.astype(np.float64) for look in (known, outliers)]
    z = [look.logits.astype(np.float64) for look in (known, outliers)]
    truth = np.eye(len(bias))[which]
    step = 2 / np.mean([(x**2).sum(axis=1).mean() + 1 for x in f]) / max(1.0, share)  # short enough to go downhill
    for _ in range(PROBED):
        down, side = np.zeros_like(weight), np.zeros_like(bias)
        for x, logits, wanted, s in ((f[0], z[0], 0.0, 1.0), (f[1], z[1], truth, share)):
            error = (
                s * (softmax(np.concatenate([logits, x @ weight.T + bias], axis=1))[:, -len(bias) :] - wanted) / len(x)
            )
            down, side = down + error.T @ x, side + error.sum(axis=0)
        weight, bias = weight - step * down, bias - step * side
    return weight, bias


def k_means(x: np.ndarray, k: int, seed: int, rounds: int = 50) -> np.ndarray:
    """Centres [k, d] of x [n, d], by Lloyd's rounds from a k-means++ start."""
    x = x.astype(np.float64)
    rng = np.random.default_rng([seed, 8])
    centres = x[rng.integers(len(x))][None]
    while len(centres) < k:
        far = _squared(x, centres).min(axis=1)
        share = far / far.sum() if far.sum() > 0 else np.full(len(x), 1 / len(x))
        centres = np.concatenate([centres, x[rng.choice(len(x), p=share)][None]])
    for _ in range(rounds):
        own = _squared(x, centres).argmin(axis=1)
        new = np.stack([x[own == j].mean(axis=0) if (own == j).any() else centres[j] for j in range(k)])
        if np.array_equal(new, centres):
            break
        centres = new
    return centres


def nearest(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return _squared(x.astype(np.float64), centres).argmin(axis=1)


def _squared(x: np.ndarray, centres: np.ndarray) -> np.ndarray:  # [n, d], [k, d] -> [n, k]
    return np.maximum((x**2).sum(axis=1)[:, None] - 2 * x @ centres.T + (centres**2).sum(axis=1), 0)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head, softmax
from ...stats import ClassMeans, Reservoir, StatisticRequest
from ..base import Detector, number, some_images
from ..formulas import norm

STEEPEST = 1e3  # highest shape of a Weibull; distances that are all alike would have no bound


@dataclass(frozen=True)
class OpenMax(Detector):
    r"""Bendale & Boult, Towards Open Set Deep Networks, CVPR 2016 (arXiv:1511.06233).

        score(x) = softmax(l_0, l_1 (1 - w_1), ..., l_c (1 - w_c))_0,  l_0 = sum_k l_k w_k,  l = logits(x)
        w_k = (alpha + 1 - rank of k) / alpha * W_k(||l - mu_k||) for the alpha highest logits, else 0

    mu_k: mean logits of the correctly classified images of class k; W_k: Weibull distribution by maximum likelihood
    on the `tail` largest ||l - mu_k|| of theirs, shifted by the smallest of them minus 1 (as libMR does). Distances
    are Euclidean, as in OpenOOD; the paper adds a cosine. They need the means first, so they come from a sample of
    known images (10,000, or 20 per class if that is more). A class of which the sample holds fewer than two correctly
    classified images takes the distances of all classes; without any such image also the mean of its labelled images,
    without these of all. As in the paper, l_0 takes from the highest logits what they lose, which supposes that they
    are positive.
    """

    means: Array  # [c, c], mu_k
    shift: Array  # [c]
    shape: Array  # [c]
    log_scale: Array  # [c]
    alpha: int = 3

    needs = frozenset({"logits"})
    paper = "Bendale & Boult 2016, arXiv:1511.06233"
    summary = "probability of an extra class, from how extreme the distance to the class's mean logits is"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("tail", options["tail"], 2, whole=True)
        number("alpha", options["alpha"], 1, whole=True)
        size = max(10_000, 20 * capabilities.classes)
        return {
            "correct": StatisticRequest(ClassMeans, "logits", by="correct"),
            "all": StatisticRequest(ClassMeans, "logits"),
            "sample": StatisticRequest(Reservoir, ("logits", "class"), options=(("size", size),)),
        }

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None, *, tail: int = 20, alpha: int = 3) -> Self:
        correct, every, rows = statistics["correct"], statistics["all"], statistics["sample"].rows
        some_images(len(rows["class"]), "OpenMax")
        overall = every.count @ every.mean / every.count.sum()
        means = np.where(every.count[:, None] > 0, every.mean, overall)
        means = np.where(correct.count[:, None] > 0, correct.mean, means)
        logits, label = np.asarray(rows["logits"], dtype=np.float64), rows["class"]
        distance = norm(logits - means[label])
        right = logits.argmax(axis=1) == label
        right = right if right.any() else ~right
        models = []
        for k in range(len(means)):
            own = distance[right & (label == k)]
            models.append(weibull(np.sort(own if len(own) > 1 else distance[right])[-int(tail) :]))
        shift, shape, log_scale = np.array(models).T
        return cls(means, shift, shape, log_scale, min(int(alpha), len(means)))

    def score(self, batch: Activations) -> Array:
        logits = batch.logits
        xp = array_namespace(logits)
        classes, left, weight = xp.arange(logits.shape[-1]), logits, xp.zeros_like(logits)
        lowest = xp.min(logits, axis=-1, keepdims=True) - 1
        for rank in range(self.alpha):
            top = xp.argmax(left, axis=-1)
            here = classes[None, :] == top[:, None]
            left = xp.where(here, lowest, left)
            x = norm(logits - xp.take(self.means, top, axis=0)) - xp.take(self.shift, top)
            z = xp.take(self.shape, top) * (xp.log(xp.clip(x, 1e-6, None)) - xp.take(self.log_scale, top))
            extreme = -xp.expm1(-xp.exp(xp.clip(z, -80, 5)))
            weight = xp.where(here, ((self.alpha - rank) / self.alpha * extreme)[:, None], weight)
        taken = xp.sum(logits * weight, axis=-1, keepdims=True)
        return softmax(xp.concat([taken, logits * (1 - weight)], axis=-1))[:, 0]


def weibull(distance: np.ndarray) -> tuple[float, float, float]:  # [m]
    """Shift, shape and log scale of the Weibull distribution of `distance` - shift, by maximum likelihood."""
    from scipy.optimize import brentq

    shift = float(distance.min() - 1)
    log_x = np.log(distance - shift)  # from 0
    highest = log_x.max()

    def slope(shape: float) -> float:
        power = np.exp(shape * (log_x - highest))
        return float(power @ log_x / power.sum() - 1 / shape - log_x.mean())

    shape = float(brentq(slope, 1e-6, STEEPEST, xtol=1e-12)) if slope(STEEPEST) > 0 else STEEPEST
    return shift, shape, float(highest + np.log(np.mean(np.exp(shape * (log_x - highest)))) / shape)

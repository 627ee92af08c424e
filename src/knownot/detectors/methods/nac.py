from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...errors import UnsoundError
from ...stats import Reservoir, StatisticRequest
from ..base import Detector, number, some_images
from ..formulas import softmax

STEEP = 10.0  # root mean square over known images of what the sigmoid is taken of; best of 1 to 100 on made outliers


@dataclass(frozen=True)
class NAC(Detector):
    r"""Liu et al., Neuron Activation Coverage: Rethinking Out-of-distribution Detection and Generalization, ICLR 2024
    (arXiv:2306.02879), NAC-UE of the layer that the head reads.

        score(x) = -mean_j min(share_j(s_j(x)), full) / full
        s(x) = sigmoid(alpha f(x) * g(x)),   g = d KL(u || p) / d f = W^T (p(x) - u),   u = 1/c

    share_j(s): the share of known images (of a sample of 10,000) whose state of neuron j is in the same of `bins` equal
    intervals of (0, 1) as s. Of this layer the gradient is a closed form, so no more than the forward pass is
    needed; the authors' configuration reads this layer as well, their best numbers four layers, with the gradient
    at each for every image, and five numbers per layer tuned with unknown images. That is not offered here.

    alpha: the authors tune it, 100 (CIFAR-10) to 3000 (ImageNet), as it has to be the larger the more features share
    a logit. None: such that alpha f * g has a root mean square of 10 over the known images. full: from this share on
    an interval is covered; the authors' O* of 10 to 50 of 1000 images is 0.01 to 0.05. States between the centres of
    two intervals count for both, in part, so that the score is continuous and float32 gives what float64 gives; the
    authors' do not, their intervals are one fewer, and a state that rounds to 1 is in none. A peer has intervals of
    its own, geometric towards 0 and 1.
    """

    weight: Array  # [c, d]
    coverage: Array  # [d, bins], 0 to 1
    alpha: float

    needs = frozenset({"features", "head", "probabilities"})
    paper = "Liu et al. 2024, arXiv:2306.02879"
    summary = "how few known images bring each feature into the same state, its pull on the logits included"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("bins", options["bins"], 2, 1000, whole=True)
        number("full", options["full"], 1e-6, 1)
        if options["alpha"] is not None:
            number("alpha", options["alpha"], 1e-9)
        if capabilities.classes < 2:
            raise UnsoundError("NAC asks what pulls away from equal probabilities; this classifier has one class only.")
        return {"sample": StatisticRequest(Reservoir, ("features", "logits"), options=(("size", 10_000),))}

    @classmethod
    def fit(
        cls,
        statistics: Mapping[str, Any],
        head: Head,
        *,
        bins: int = 50,
        full: float = 0.01,
        alpha: float | None = None,
    ) -> Self:
        rows = statistics["sample"].rows
        f, logits = (np.asarray(rows[name], dtype=np.float64) for name in ("features", "logits"))
        some_images(len(f), "NAC")
        weight = np.asarray(head.weight, dtype=np.float64)
        pull = _pull(f, logits, weight)
        most = float(np.abs(pull).max())
        typical = most * float(np.sqrt(np.mean((pull / most) ** 2))) if most else 1.0
        alpha = STEEP / typical if alpha is None else float(alpha)
        low, part = _place(alpha * pull, int(bins))
        counts = np.zeros((f.shape[1], int(bins)))
        neuron = np.broadcast_to(np.arange(f.shape[1]), low.shape)
        np.add.at(counts, (neuron, low), 1 - part)
        np.add.at(counts, (neuron, low + 1), part)
        return cls(weight, np.minimum(counts / len(f) / full, 1), alpha)

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.features)
        d, bins = self.coverage.shape
        low, part = _place(self.alpha * _pull(batch.features, batch.logits, self.weight), bins)
        table, at = xp.reshape(self.coverage, (-1,)), xp.reshape(low + xp.arange(d)[None, :] * bins, (-1,))
        below, above = (xp.reshape(xp.take(table, i, axis=0), (-1, d)) for i in (at, at + 1))
        return -xp.mean(below + (above - below) * part, axis=-1)


def _pull(features: Array, logits: Array, weight: Array) -> Array:  # [n, d]
    """f * dKL(u || p)/df: what each feature does to move the probabilities away from equal ones."""
    p = softmax(logits)
    return features * ((p - 1 / p.shape[-1]) @ weight)


def _place(x: Array, bins: int) -> tuple[Array, Array]:
    """Of sigmoid(x): the lower one of the two intervals whose centres are around it, and how far it is to the upper."""
    xp = array_namespace(x)
    state = (xp.tanh(x / 2) + 1) / 2
    place = xp.clip(state * bins - 0.5, 0.0, bins - 1.0)
    low = xp.clip(xp.floor(place), 0.0, bins - 2.0)
    return xp.astype(low, xp.arange(1).dtype), place - low

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head, Preprocess
from ...errors import OptionError
from ...models import Model
from ...stats import Reservoir, StatisticRequest
from ..base import Detector, number, some_images
from ..formulas import divided, logsumexp
from ..passes import Pass, span

PIXELS, SHIFTED, CORRECTED, WEIGHT = 0.05, 0.01, 0.05, 10.0  # o, k1, k2, lambda of the paper


@dataclass(frozen=True)
class Shifted(Pass):
    """Q' of each image: how much its largest features move when its least important pixels are changed.

    x' = x + size * span * sign(g) on the 5 % of the values with the smallest |g|,  g = d/dx max_c z_c(x)
    Q' = lambda * sum over the k1 largest features of |f - f'| + sum over the k2 largest features of max(f', 0)
    """

    size: float

    @property
    def name(self) -> str:
        return f"adascale size={self.size!r}"

    def run(self, model: Model, x: np.ndarray, seen: Activations, way: Preprocess | None) -> dict[str, np.ndarray]:
        winner = np.argmax(seen.logits, axis=1)
        g = model.gradient(x, {"logits": np.eye(seen.logits.shape[1], dtype=np.float32)[winner]})
        flat = np.abs(g).reshape(len(g), -1)
        few = np.argpartition(flat, few_of(PIXELS, flat.shape[1]) - 1, axis=1)[:, : few_of(PIXELS, flat.shape[1])]
        mask = np.zeros_like(flat)
        np.put_along_axis(mask, few, 1, axis=1)
        changed = model.forward(x + self.size * span(model, way) * np.sign(g) * mask.reshape(g.shape))
        f, moved = (np.asarray(a.features, np.float64) for a in (seen, changed))
        order = np.argsort(-f, axis=1, kind="stable")
        first, second = order[:, : few_of(SHIFTED, f.shape[1])], order[:, : few_of(CORRECTED, f.shape[1])]
        shift = np.take_along_axis(np.abs(f - moved), first, axis=1).sum(axis=1)
        kept = np.take_along_axis(np.maximum(moved, 0), second, axis=1).sum(axis=1)
        return {"shift": (WEIGHT * shift + kept)[:, None].astype(np.float32)}


def few_of(share: float, n: int) -> int:
    return max(1, int(share * n))


@dataclass(frozen=True)
class AdaScale(Detector):
    r"""Regmi, AdaSCALE: Adaptive Scaling for OOD Detection, 2025 (arXiv:2503.08023), variant A.

        score(x) = -log sum_c exp z_c,  z = W f(x) exp(s1 / s2(p)) + b,  p = low + (1 - F(Q'(x))) (high - low)

    s1: the sum of an image's features above 0, s2(p): that of its largest (100 - p) %. F: the distribution of Q' (see
    `Shifted`) over a sample of known images. So likely known images are scaled more.

    The shares in Q' are k1 = 1 % of the features for the shift and k2 = 5 % for the correction, as in the paper's
    algorithm and the authors' results; in one peer the names are the other way round, the roles are not. At least one
    feature each. low, high: 75 and 85, which the paper chooses with unknown images. size: 0.113 of the whole range of
    pixel values, which is the paper's 0.5 of an input divided by the usual standard deviation of 0.226.
    Two passes more than other detectors, and one back, over known images too.
    """

    reference: Array  # [r], Q' of known images, ascending
    head: Head
    low: float
    high: float
    size: float

    needs = frozenset({"features", "head", "gradient"})
    paper = "Regmi 2025, arXiv:2503.08023"
    summary = "energy of features scaled by how little they move when unimportant pixels are changed"
    fits_on_passes = True

    @classmethod
    def passes_before(cls, **options: Any) -> tuple[Pass, ...]:
        return (Shifted(float(options["size"])),)

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        low, high, size = options["low"], options["high"], options["size"]
        number("low", low, 0, 95)
        number("high", high, 0, 95)
        number("size", size, 0, 1)
        if low > high:
            raise OptionError(f"low={low!r}, high={high!r}: low is at most high.")
        return {"shifts": StatisticRequest(Reservoir, f"extra/{Shifted(float(size)).name}/shift")}

    @classmethod
    def fit(
        cls, statistics: Mapping[str, Any], head: Head, *, low: float = 75.0, high: float = 85.0, size: float = 0.113
    ) -> Self:
        (shifts,) = statistics["shifts"].rows.values()
        some_images(len(shifts), "AdaSCALE")
        own = Head(np.asarray(head.weight), np.asarray(head.bias))
        return cls(np.sort(shifts[:, 0].astype(np.float64)), own, float(low), float(high), float(size))

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Shifted(self.size),)

    def score(self, batch: Activations) -> Array:
        f: Any = batch.features
        shift = self.passes[0].read(batch, "shift")
        xp = array_namespace(f)
        column = xp.asarray(shift[:, 0], copy=True)  # contiguous, which torch wants
        below = xp.astype(xp.searchsorted(self.reference, column, side="right"), f.dtype)
        p = self.low + (1 - below / self.reference.shape[0]) * (self.high - self.low)
        d = f.shape[-1]
        kept = xp.clip(d - xp.round(d * p / 100), min=1.0)[:, None]
        values = xp.sort(xp.clip(f, min=0.0), axis=-1, descending=True)
        s2 = xp.sum(xp.where(xp.astype(xp.arange(d), f.dtype)[None, :] < kept, values, xp.zeros_like(values)), axis=-1)
        ratio = xp.where(s2 > 0, divided(xp.sum(values, axis=-1), s2), xp.ones_like(s2))
        return -logsumexp(self.head(f * xp.exp(ratio)[:, None]))

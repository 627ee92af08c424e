from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head, Preprocess, softmax
from ...models import Model
from ...stats import StatisticRequest
from ..base import Detector, number, one_of
from ..passes import Pass


@dataclass(frozen=True)
class Thinned(Pass):
    """Mean [n, c] and variance [n, c] of the softmax over `count` networks thinned by dropout."""

    count: int
    seed: int

    @property
    def name(self) -> str:
        return f"mc-dropout count={self.count} seed={self.seed}"

    def run(self, model: Model, x: np.ndarray, seen: Activations, way: Preprocess | None) -> dict[str, np.ndarray]:
        mean, spread = np.zeros(seen.logits.shape), np.zeros(seen.logits.shape)
        for i in range(self.count):
            p = softmax(model.dropped(x, self.seed * 1_000_003 + i).astype(np.float64))
            gap = p - mean
            mean += gap / (i + 1)
            spread += gap * (p - mean)
        return {"mean": mean.astype(np.float32), "variance": (spread / self.count).astype(np.float32)}


@dataclass(frozen=True)
class MCDropout(Detector):
    r"""Gal & Ghahramani, Dropout as a Bayesian Approximation, ICML 2016 (arXiv:1506.02142).

        of="entropy":   score(x) = -sum_c m_c log m_c,  m = mean over s of softmax(z_s(x))
        of="variance":  score(x) = mean over c of var over s of softmax(z_s(x))_c

    z_s: the logits of the network with dropout at work, s = 1 … count. The mean of the softmax as in the paper, not of
    the logits (one peer); entropy by default (one peer: the variance, of 30; one counts its first pass twice).
    What is dropped is chosen by `seed` and is the same for every image: so many thinned networks, each asked about all
    images. So a score depends neither on the batch nor on the day. Dropout layers only, not those that act otherwise
    in training. count passes more than other detectors.
    """

    count: int
    seed: int
    of: str

    needs = frozenset({"probabilities", "dropout"})
    paper = "Gal & Ghahramani 2016, arXiv:1506.02142"
    summary = "entropy of the mean softmax over passes with dropout at work"

    @classmethod
    def passes_before(cls, **options: Any) -> tuple[Pass, ...]:
        return (Thinned(int(options["count"]), int(options["seed"])),)

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("count", options["count"], 2, 1000, whole=True)
        number("seed", options["seed"], 0, 1e6, whole=True)
        one_of("of", options["of"], ("entropy", "variance"))
        return {}

    @classmethod
    def fit(
        cls, statistics: Mapping[str, Any], head: Head | None, *, count: int = 10, seed: int = 0, of: str = "entropy"
    ) -> Self:
        return cls(int(count), int(seed), of)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Thinned(self.count, self.seed),)

    def score(self, batch: Activations) -> Array:
        found = self.passes[0].read(batch, "mean" if self.of == "entropy" else "variance")
        xp = array_namespace(found)
        if self.of == "variance":
            return xp.mean(found, axis=-1)
        return -xp.sum(found * xp.log(xp.clip(found, min=1e-30)), axis=-1)

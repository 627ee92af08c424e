from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head, Preprocess, softmax
from ...models import Model
from ...stats import StatisticRequest
from ..base import Detector, number
from ..passes import Pass, direction, span


@dataclass(frozen=True)
class Confirmed(Pass):
    """Logits of images moved towards the class that wins: x + eps * span * sign(d/dx log max softmax(z(x) / T))."""

    temperature: float
    eps: float

    @property
    def name(self) -> str:
        return f"odin T={self.temperature!r} eps={self.eps!r}"

    def run(self, model: Model, x: np.ndarray, seen: Activations, way: Preprocess | None) -> dict[str, np.ndarray]:
        if not self.eps:
            return {"logits": seen.logits}
        z = np.asarray(seen.logits, np.float64) / self.temperature
        winner = np.eye(z.shape[1])[np.argmax(z, axis=1)]
        others = softmax(np.where(winner > 0, -1e30, z))  # by themselves: nothing cancels when p_max rounds to 1
        up = direction(model, x, {"logits": winner - others})  # d log p_max / dz, times T / (1 - p_max)
        return {"logits": model.forward(x + self.eps * span(model, way) * up).logits}


@dataclass(frozen=True)
class ODIN(Detector):
    r"""Liang, Li & Srikant, Enhancing the Reliability of Out-of-distribution Image Detection in Neural Networks,
    ICLR 2018 (arXiv:1706.02690), eq. 1 and 2.

        x' = x - eps * sign(-d/dx log S(x; T)),  S(x; T) = max_c softmax(z(x) / T)_c
        score(x) = -log S(x'; T) - log(number of classes)

    The logarithm keeps the order and is exact where T = 1000 makes all classes nearly alike. Two passes more than other
    detectors, and one back. temperature: T, 1000 as in the paper.

    eps: in units of the whole range of pixel values, 0.0014 by default (a third of a grey level). That is what the
    paper's code does: it divides by the standard deviation by which its input was normalised. Peers: one divides so,
    one only if it is told the deviations, two never do; defaults are .0014, .014 and 0. Float arrays that are the
    classifier's own input are taken to be in [0, 1], unless the model says how it is made from pixels. Where
    the gradient is exactly zero nothing is moved (one peer moves it up).
    """

    temperature: float
    eps: float

    needs = frozenset({"probabilities", "gradient"})
    paper = "Liang, Li & Srikant 2018, arXiv:1706.02690"
    summary = "softmax at a high temperature, of the image moved a little towards its class"

    @classmethod
    def passes_before(cls, **options: Any) -> tuple[Pass, ...]:
        return (Confirmed(float(options["temperature"]), float(options["eps"])),)

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("temperature", options["temperature"], 1e-3)
        number("eps", options["eps"], 0, 1)
        return {}

    @classmethod
    def fit(
        cls, statistics: Mapping[str, Any], head: Head | None, *, temperature: float = 1000.0, eps: float = 0.0014
    ) -> Self:
        return cls(float(temperature), float(eps))

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Confirmed(self.temperature, self.eps),)

    def score(self, batch: Activations) -> Array:
        z = self.passes[0].read(batch, "logits") / self.temperature
        xp = array_namespace(z)
        return xp.log1p(xp.mean(xp.expm1(z - xp.max(z, axis=-1, keepdims=True)), axis=-1))

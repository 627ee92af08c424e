from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ...arrays import Activations, Array, Capabilities, Head, Preprocess
from ...models import Model
from ...stats import StatisticRequest
from ..base import Detector, number
from ..passes import Pass, direction, span
from .mahalanobis import Mahalanobis


@dataclass(frozen=True, eq=False)
class Nearer(Pass):
    """Features of images moved towards the nearest class mean: x - eps * span * sign(d/dx distance(f(x)))."""

    distance: Mahalanobis
    eps: float

    @property
    def name(self) -> str:
        return f"mahalanobis unit={self.distance.unit} eps={self.eps!r}"

    def run(self, model: Model, x: np.ndarray, seen: Activations, way: Preprocess | None) -> dict[str, np.ndarray]:
        if not self.eps:
            return {"features": np.asarray(seen.features)}
        away = direction(model, x, {"features": slope(self.distance, np.asarray(seen.features, np.float64))})
        return {"features": np.asarray(model.forward(x - self.eps * span(model, way) * away).features)}


def slope(distance: Mahalanobis, features: np.ndarray) -> np.ndarray:  # [n, d] -> [n, d]
    """The derivative of the squared distance to the nearest class mean with respect to the features."""
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    length = np.where(norm > 0, norm, 1) if distance.unit else np.ones_like(norm)
    white = (features / length - distance.center) @ distance.whiten
    gaps = (white**2).sum(1)[:, None] - 2 * white @ distance.means.T + (distance.means**2).sum(1)
    back = 2 * (white - distance.means[np.argmin(gaps, axis=1)]) @ distance.whiten.T
    if not distance.unit:
        return back
    unit = features / length
    return (back - (back * unit).sum(1, keepdims=True) * unit) / length


@dataclass(frozen=True)
class MahalanobisODIN(Detector):
    r"""Lee et al., A Simple Unified Framework for Detecting OOD Samples, NeurIPS 2018 (arXiv:1807.03888), eq. 2 with
    its section 2.2, "input pre-processing": the distance after a step of the image towards its class.

        x' = x - eps * sign(d/dx M(x)),  score(x) = M(x'),  M(x) = min_c (f(x) - mu_c)^T S^+ (f(x) - mu_c)

    eps: in units of the whole range of pixel values, as for ODIN, 0.0014 by default; the paper chooses it from 0 to .01
    with unknown images. Peers: .0014, .002, and one has it on in its plain Mahalanobis. Two passes more than other
    detectors, and one back. Features only, not the earlier layers. The step depends on what was learnt, so calibration
    images have to be given: none can be held out.
    unit: divide features by their L2 norm first, as Mahalanobis++.
    """

    distance: Mahalanobis
    eps: float

    needs = frozenset({"features", "gradient"})
    paper = "Lee et al. 2018, arXiv:1807.03888"
    summary = "Mahalanobis distance of the image moved a little towards its class"
    passes_by_fit = True

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("eps", options["eps"], 0, 1)
        return Mahalanobis.required_statistics(capabilities, of="features", unit=options["unit"])

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None, *, eps: float = 0.0014, unit: bool = False) -> Self:
        return cls(Mahalanobis.fit(statistics, head, unit=unit), float(eps))

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Nearer(self.distance, self.eps),)

    def score(self, batch: Activations) -> Array:
        return self.distance.score(replace(batch, features=self.passes[0].read(batch, "features")))

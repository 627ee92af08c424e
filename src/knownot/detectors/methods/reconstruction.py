from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import ClassMoments, Reservoir, StatisticRequest
from ..base import Detector, flag, number, some_images
from ..formulas import norm, unit


@dataclass(frozen=True)
class PCA(Detector):
    r"""Reconstruction error of the principal components of the features (Pearson 1901); with unit features Fang et
    al., Kernel PCA for Out-of-Distribution Detection, NeurIPS 2024 (arXiv:2402.02949): CoP.

        score(x) = ||(I - U U^T)(z(x) - mu)||,  z = f, or with unit f / ||f||

    mu the mean of z; U its first principal components, as few as explain `variance` of it, and at least one less than
    its dimensions, so that something is left to measure. CoP's variance is 0.85, as the authors take for CIFAR-10
    (0.7 to 0.99 for ImageNet).
    """

    mean: Array  # [d]
    residual: Array  # [d, d - q], orthonormal columns
    unit: bool = False

    needs = frozenset({"features"})
    paper = "Pearson 1901"
    summary = "length of the features outside their principal components"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("variance", options["variance"], 0, 1)
        flag("unit", options["unit"])
        return {"moments": StatisticRequest(ClassMoments, "features", unit=options["unit"])}

    @classmethod
    def fit(
        cls, statistics: Mapping[str, Any], head: Head | None, *, variance: float = 0.9, unit: bool = False
    ) -> Self:
        moments = statistics["moments"]
        some_images(moments.count.sum(), "PCA")
        every = moments.pooled
        return cls(every.mean, beyond(every.covariance, variance), unit)

    def score(self, batch: Activations) -> Array:
        z = unit(batch.features) if self.unit else batch.features
        return norm((z - self.mean) @ self.residual)


@dataclass(frozen=True)
class CoRP(Detector):
    r"""Fang et al., Kernel PCA for Out-of-Distribution Detection, NeurIPS 2024 (arXiv:2402.02949): CoRP.

        score(x) = ||(I - U U^T)(phi(x) - mu)||,  phi = sqrt(2 / m) cos(f / ||f|| W + b)

    phi are m random Fourier features of the kernel exp(-gamma ||z - z'||^2): W of normal numbers with variance 2 gamma,
    b uniform in [0, 2 pi), drawn with the fixed `seed`; mu and U as for PCA. variance 0.8 and gamma 2 are the authors'
    for CIFAR-10; m = 4 d as theirs there, but at most 2048. mu and U come from a sample of 10,000 known images.
    """

    weight: Array  # [d, m]
    phase: Array  # [m], b + pi / 2
    mean: Array  # [m]
    residual: Array  # [m, m - q], orthonormal columns

    needs = frozenset({"features"})
    paper = "Fang et al. 2024, arXiv:2402.02949"
    summary = "length outside the principal components of a cosine-Gaussian kernel"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("variance", options["variance"], 0, 1)
        number("gamma", options["gamma"], 1e-6, 1e6)
        number("seed", options["seed"], 0, whole=True)
        if options["m"] is not None:
            number("m", options["m"], 2, whole=True)
        return {"sample": StatisticRequest(Reservoir, "features", options=(("size", 10_000),))}

    @classmethod
    def fit(
        cls,
        statistics: Mapping[str, Any],
        head: Head | None,
        *,
        variance: float = 0.8,
        gamma: float = 2.0,
        m: int | None = None,
        seed: int = 0,
    ) -> Self:
        rows = np.asarray(statistics["sample"].rows["rows"], dtype=np.float64)
        some_images(len(rows), "CoRP")
        d = rows.shape[1]
        m = min(4 * d, 2048) if m is None else int(m)
        rng = np.random.default_rng(seed)
        weight = rng.normal(size=(d, m)) * np.sqrt(2 * gamma)
        phase = rng.uniform(0, 2 * np.pi, size=m) + np.pi / 2  # the sine of it is the cosine of b
        phi = np.asarray(_fourier(rows, weight, phase))
        mean = phi.mean(axis=0)
        return cls(weight, phase, mean, beyond((phi - mean).T @ (phi - mean) / len(phi), variance))

    def score(self, batch: Activations) -> Array:
        return norm((_fourier(batch.features, self.weight, self.phase) - self.mean) @ self.residual)


def _fourier(features: Array, weight: Array, phase: Array) -> Array:  # [n, d] -> [n, m]
    xp = array_namespace(features)
    # A cosine: onnxruntime has the sine in float64, not the cosine.
    return xp.sin(unit(features) @ weight + phase) * float(np.sqrt(2 / phase.shape[0]))


def beyond(covariance: np.ndarray, variance: float) -> np.ndarray:  # [d, d] -> [d, d - q]
    """Orthonormal basis of all but the first q principal directions, the fewest that explain this share; q < d."""
    values, directions = np.linalg.eigh(covariance)  # ascending
    values = np.maximum(values[::-1], 0)
    share = np.cumsum(values) / max(values.sum(), np.finfo(float).tiny)
    q = min(int(np.searchsorted(share, variance - 1e-12)) + 1, len(values) - 1) if values.sum() > 0 else 0
    return np.ascontiguousarray(directions[:, : len(values) - q])

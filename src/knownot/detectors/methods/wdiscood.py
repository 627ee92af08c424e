from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import StatisticRequest
from ..base import Detector, flag, number, some_images
from ..formulas import kth_nearest, norm, unit
from .mahalanobis import Mahalanobis


@dataclass(frozen=True)
class WDiscOOD(Detector):
    r"""Chen et al., WDiscOOD: Out-of-Distribution Detection via Whitened Linear Discriminant Analysis, ICCV 2023
    (arXiv:2303.07543).

        score(x) = min_c ||G^T (w(x) - m_c)|| + weight ||(I - G G^T) w(x)||

    w: features less the mean of all, whitened by the covariance about the class means (over the directions that
    Mahalanobis keeps); m_c: mean of w for class c; G: orthonormal basis of the discriminants, which after whitening
    span the m_c. weight = 1 and `unit` features (f / ||f||), as the authors take for a ViT; for a ResNet-50 they take
    5 and f. A peer divides both lengths by their medians.
    """

    center: Array  # [d]
    whiten: Array  # [d, r]
    basis: Array  # [r, q], orthonormal columns
    means: Array  # [k, q], of the k classes that have images
    weight: float = 1.0
    unit: bool = True

    needs = frozenset({"features"})
    paper = "Chen et al. 2023, arXiv:2303.07543"
    summary = "distance to the nearest class mean among discriminants, plus the length outside them"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("weight", options["weight"], 0)
        flag("unit", options["unit"])
        return Mahalanobis.required_statistics(capabilities, of="features", unit=options["unit"])

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None, *, weight: float = 1.0, unit: bool = True) -> Self:
        moments = statistics["moments"]
        some_images(moments.count.sum(), "WDiscOOD")
        white = Mahalanobis.of_classes(moments, "features", unit)
        _, size, directions = np.linalg.svd(white.means, full_matrices=False)
        q = max(1, int(np.sum(size > 1e-6 * max(size[0], 1e-6))))
        basis = np.ascontiguousarray(directions[:q].T)
        return cls(white.center, white.whiten, basis, white.means @ basis, float(weight), unit)

    def score(self, batch: Activations) -> Array:
        w = ((unit(batch.features) if self.unit else batch.features) - self.center) @ self.whiten
        inside = w @ self.basis
        return kth_nearest(inside, self.means, 1) + self.weight * norm(w - inside @ self.basis.T)

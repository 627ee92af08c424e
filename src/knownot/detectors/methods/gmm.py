from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...errors import UnsoundError
from ...stats import ClassMoments, Reservoir, StatisticRequest
from ..base import Detector, flag, one_of, some_images
from ..formulas import logsumexp, unit
from .mahalanobis import Mahalanobis

LARGEST = 1 << 26  # numbers that the covariances of all classes may take together (half a gigabyte)


@dataclass(frozen=True)
class GMM(Detector):
    r"""Mukhoti et al., Deep Deterministic Uncertainty, CVPR 2023 (arXiv:2102.11582), on the features of any network.

        score(x) = -log sum_c pi_c N(z(x); mu_c, S_c),  z = f / ||f||, without `unit` f

    pi_c: the share of class c among the known images. covariance: "full", S_c of each class, as in the paper;
    "diagonal", its diagonal; "tied", one S about the class means, as for Mahalanobis. S_c comes from a sample of
    10,000 known images, of which m are of class c, and is drawn towards the tied one: (m S_c + v S) / (m + v), with v
    = d (the diagonal: 1); so fewer images than features do no harm (the paper adds a small multiple of I). Densities
    are those in the subspace in which S has no variance of rounding noise only. Classes without images are left out.
    The paper takes f of networks that it trains for this; f / ||f|| is what helps Mahalanobis on any (Mueller & Hein
    2025), and here as well.
    """

    center: Array  # [d]
    whiten: Array  # [d, r]; of the covariances there, the tied one is I
    means: Array  # [k, r], of the k classes that have images
    offset: Array  # [k], log pi_c - log det(2 pi S_c) / 2
    factors: Array | None = None  # inverse roots of S_c there: [k, r, r], or [k, r] if diagonal; None if tied
    unit: bool = True

    needs = frozenset({"features"})
    paper = "Mukhoti et al. 2023, arXiv:2102.11582"
    summary = "minus the log density of unit features, a Gaussian for each class"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        unit = options["unit"]
        one_of("covariance", options["covariance"], ("full", "diagonal", "tied"))
        flag("unit", unit)
        moments = {"moments": StatisticRequest(ClassMoments, "features", unit=unit)}
        if options["covariance"] == "tied":
            return moments
        return moments | {
            "sample": StatisticRequest(Reservoir, ("features", "class"), unit=unit, options=(("size", 10_000),))
        }

    @classmethod
    def fit(
        cls, statistics: Mapping[str, Any], head: Head | None, *, covariance: str = "full", unit: bool = True
    ) -> Self:
        moments: ClassMoments = statistics["moments"]
        some_images(moments.count.sum(), "GMM")
        has = moments.count > 0
        within = np.diag(np.diag(moments.within)) if covariance == "diagonal" else moments.within
        white = Mahalanobis.about(moments.pooled.mean, moments.mean[has], within, "features", False)
        log_prior = np.log(moments.count[has] / moments.count.sum())
        k, r = white.means.shape
        # log det of the tied covariance from the columns of `whiten`, each of length 1 / root of its variance
        offset = log_prior - r / 2 * np.log(2 * np.pi) + np.log(np.linalg.norm(white.whiten, axis=0)).sum()
        if covariance == "tied":
            return cls(white.center, white.whiten, white.means, offset, None, unit)
        if covariance == "full" and k * r * r > LARGEST:
            raise UnsoundError(
                f"Full covariances of {k} classes in {r} dimensions take {k * r * r * 8 / 1e9:.1f} GB. "
                "Choose covariance='diagonal' or 'tied'."
            )
        rows, label = statistics["sample"].rows["features"], statistics["sample"].rows["class"]
        factors = []
        for i, c in enumerate(np.flatnonzero(has)):
            z = (np.asarray(rows[label == c], dtype=np.float64) - white.center) @ white.whiten - white.means[i]
            if covariance == "diagonal":
                variance = ((z * z).sum(axis=0) + 1) / (len(z) + 1)
                factors.append(1 / np.sqrt(variance))
            else:
                variance, directions = np.linalg.eigh((z.T @ z + r * np.eye(r)) / (len(z) + r))
                factors.append(directions / np.sqrt(variance))
            offset[i] -= np.log(variance).sum() / 2
        return cls(white.center, white.whiten, white.means, offset, np.stack(factors), unit)

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.features)
        z = ((unit(batch.features) if self.unit else batch.features) - self.center) @ self.whiten
        if self.factors is None:
            squared = xp.sum(z * z, axis=-1)[:, None] - 2 * (z @ self.means.T) + xp.sum(self.means**2, axis=-1)[None, :]
        else:
            squared = xp.stack(
                [_squared(z - self.means[c, :], self.factors[c, ...]) for c in range(self.means.shape[0])], axis=1
            )
        return -logsumexp(self.offset - squared / 2)


def _squared(off: Array, factor: Array) -> Array:  # [n, r], [r, r] or [r] -> [n]
    off = off @ factor if len(factor.shape) == 2 else off * factor
    return array_namespace(off).sum(off * off, axis=-1)

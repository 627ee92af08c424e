from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ...arrays import Activations, Array, Capabilities, Head
from ...errors import OptionError, UnsoundError
from ...stats import ClassMoments, Reservoir, StatisticRequest
from ..base import Detector, number, some_images
from ..formulas import kth_nearest, unit

# Below these a direction holds rounding noise of float32 features, not variation of the images:
SMALLEST = 1e-10  # of the largest variance
ROUNDING = 1e-14  # of the squared length of unit features


@dataclass(frozen=True)
class DKNN(Detector):
    r"""Peng et al., Breaking Semantic Hegemony: Decoupling Principal and Residual Subspaces for Generalized OOD
    Detection, 2026 (arXiv:2602.05360), "D-KNN".

        score(x) = (p(x) - mean(p)) / std(p)  +  (r(x) - mean(r)) / std(r)
        p, r = distance to the k-th nearest known image of P^T (z - m) and of R^T (z - m),  z = f / ||f||

    m: mean of z over the known images; P: the `dim` directions in which they vary most, R: the others in which they
    vary. mean, std: over known images, each compared with the others of a sample of them. So what the residual tells
    counts as much as what the principal directions tell, however small it is beside them.

    From the abstract: an orthogonal decomposition into principal and residual subspaces, nearest neighbours in each,
    and a calibration of both. From a summary of the paper: unit features come first. Not verified, as the text of the
    paper could not be read: that the calibration is by mean and standard deviation, and the two are added with
    equal weights; dim, by default here the number of classes less one (in which collapsed classes lie), at most
    half of the rank; k = 10, as for KNN; whether the residual is normalised again (here it is not).
    """

    mean: Array  # [d]
    principal: Array  # [d, dim], orthonormal columns
    residual: Array  # [d, rest], orthonormal columns, orthogonal to those
    principal_bank: Array  # [m, dim]
    residual_bank: Array  # [m, rest]
    center: Array  # [2]: mean(p), mean(r)
    scale: Array  # [2]: std(p), std(r)
    k: int

    needs = frozenset({"features"})
    paper = "Peng et al. 2026, arXiv:2602.05360"
    summary = "distances to the k-th nearest known image in the principal and the residual subspace, summed"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("k", options["k"], 1, whole=True)
        number("bank", options["bank"], options["k"], whole=True)
        if options["dim"] is not None:
            number("dim", options["dim"], 1, whole=True)
        return {
            "moments": StatisticRequest(ClassMoments, "features", unit=True),
            "bank": StatisticRequest(Reservoir, "features", options=(("size", int(options["bank"])),)),
        }

    @classmethod
    def fit(
        cls,
        statistics: Mapping[str, Any],
        head: Head | None,
        *,
        k: int = 10,
        bank: int = 10_000,
        dim: int | None = None,
    ) -> Self:
        moments = statistics["moments"]
        some_images(moments.count.sum(), "D-KNN")
        every = moments.pooled
        variance, directions = np.linalg.eigh(every.covariance)  # ascending
        kept = variance > max(SMALLEST * variance[-1], ROUNDING)
        rank = int(kept.sum())
        usual = max(1, min(len(moments.count) - 1, rank // 2))
        if dim is not None and dim >= len(variance):
            raise OptionError(f"dim={dim}: the features have {len(variance)} dimensions; expected fewer.")
        dim = usual if dim is None else int(dim)
        if rank <= dim:
            raise UnsoundError(
                f"The unit features of the known images do not vary in more than {rank} directions, so nothing is left "
                f"beside {dim} principal ones. Give more images, or choose another detector, such as 'knn'."
            )
        z = unit(np.asarray(statistics["bank"].rows["rows"], dtype=np.float64)) - every.mean
        principal, residual = directions[:, -dim:], directions[:, kept][:, : rank - dim]
        banks = z @ principal, z @ residual
        k = max(1, min(int(k), len(z) - 1))
        own = np.stack([kth_nearest(rows, rows, min(k + 1, len(rows))) for rows in banks])  # the nearest is itself
        spread = own.std(axis=1)
        scale = np.where(spread > 1e-9 * np.abs(own).max(axis=1), spread, 1.0)
        return cls(every.mean, principal, residual, banks[0], banks[1], own.mean(axis=1), scale, k)

    def score(self, batch: Activations) -> Array:
        z = unit(batch.features) - self.mean
        p = kth_nearest(z @ self.principal, self.principal_bank, self.k)
        r = kth_nearest(z @ self.residual, self.residual_bank, self.k)
        return (p - self.center[0]) / self.scale[0] + (r - self.center[1]) / self.scale[1]

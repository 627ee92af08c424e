from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ...arrays import Activations, Array, Capabilities, Head
from ...errors import OptionError, UnsoundError
from ...stats import ClassMoments, Moments, Reservoir, StatisticRequest
from ..base import Detector, number, some_images
from ..formulas import logsumexp, norm

SMALLEST = 1e-10  # of the largest second moment: below it a direction is rounding noise of float32 features


@dataclass(frozen=True)
class ViM(Detector):
    r"""Wang et al., ViM: Out-Of-Distribution with Virtual-logit Matching, CVPR 2022 (arXiv:2203.10807).

        score(x) = alpha ||R^T (f(x) - o)|| - log sum_k exp(logit_k(x))

    o = -W^+ b; R spans the eigenvectors of the second moment about o but for the `dim` largest; alpha = |mean highest
    logit| / mean residual length over a sample of 10,000 known images (the paper: over the training set).

    dim: by default 256, but at most half of the rank of the features, so that something is always left for R (in a
    peer a dim that reaches the number of features makes every score NaN). Another peer centres on the mean of the
    features; this is the paper's o. A mean highest logit below 0 would flip the sign of the residual, hence | |.
    """

    origin: Array  # [d]
    residual: Array  # [d, d - dim], orthonormal columns
    alpha: float

    needs = frozenset({"features", "head", "logits"})
    paper = "Wang et al. 2022, arXiv:2203.10807"
    summary = "length outside the principal subspace, as a logit, against the energy"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        if options["dim"] is not None:
            number("dim", options["dim"], 0, whole=True)
        return {
            "moments": StatisticRequest(ClassMoments, "features"),
            "sample": StatisticRequest(Reservoir, "features", options=(("size", 10_000),)),
        }

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head, *, dim: int | None = None) -> Self:
        sample = np.asarray(statistics["sample"].rows["rows"], dtype=np.float64)
        some_images(len(sample), "ViM")
        weight, bias = (np.asarray(x, dtype=np.float64) for x in (head.weight, head.bias))
        origin, residual, rank = null_space(statistics["moments"].pooled, head, dim)
        d, left = residual.shape
        length = norm((sample - origin) @ residual).mean()
        if not length > 1e-6 * norm(sample - origin).mean():
            raise UnsoundError(
                f"The features of the known images have no length outside {d - left} dimensions (their rank is "
                f"{rank} of {d}), so ViM has nothing to measure. Choose dim below {max(rank, 1)}, or another detector."
            )
        return cls(origin, residual, float(abs((sample @ weight.T + bias).max(axis=1).mean()) / length))

    def score(self, batch: Activations) -> Array:
        return self.alpha * norm((batch.features - self.origin) @ self.residual) - logsumexp(batch.logits)


def null_space(pooled: Moments, head: Head, dim: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    """Origin [d], an orthonormal basis [d, d - dim] of what lies outside the principal subspace about it, and the rank
    of the features. Raises OptionError when `dim` leaves nothing."""
    weight, bias = (np.asarray(x, dtype=np.float64) for x in (head.weight, head.bias))
    origin = -np.linalg.pinv(weight, rcond=1e-6) @ bias
    moment, directions = np.linalg.eigh(pooled.about(origin))  # ascending
    d = len(origin)
    rank = int(np.sum(moment > SMALLEST * moment[-1]))
    if dim is not None and dim >= d:
        raise OptionError(f"dim={dim}: the features have {d} dimensions, and what lies outside dim is measured.")
    dim = min(256, rank // 2) if dim is None else int(dim)
    return origin, directions[:, : d - dim], rank

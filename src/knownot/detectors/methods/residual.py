from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ...arrays import Activations, Array, Capabilities, Head
from ...errors import UnsoundError
from ...stats import ClassMoments, StatisticRequest
from ..base import Detector, number, some_images
from ..formulas import norm
from .vim import null_space


@dataclass(frozen=True)
class Residual(Detector):
    r"""Wang et al., ViM: Out-Of-Distribution with Virtual-logit Matching, CVPR 2022 (arXiv:2203.10807), its residual.

        score(x) = ||R^T (f(x) - o)||,  o and R as for ViM

    Never with an empty R: by default as many dimensions are principal as for ViM (a peer's fixed 512 leaves nothing
    of 512 features, and AUROC 50). Fitted on the known images; a peer fits it on those that it then scores.
    """

    origin: Array  # [d]
    residual: Array  # [d, d - dim], orthonormal columns

    needs = frozenset({"features", "head"})
    paper = "Wang et al. 2022, arXiv:2203.10807"
    summary = "length of the features outside the principal subspace"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        if options["dim"] is not None:
            number("dim", options["dim"], 0, whole=True)
        return {"moments": StatisticRequest(ClassMoments, "features")}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head, *, dim: int | None = None) -> Self:
        moments = statistics["moments"]
        some_images(moments.count.sum(), "Residual")
        origin, residual, rank = null_space(moments.pooled, head, dim)
        moment = moments.pooled.about(origin)
        left, whole = float(np.sum(residual * (moment @ residual))), float(np.trace(moment))
        if not left > 1e-12 * whole:
            raise UnsoundError(
                f"The features of the known images have no length outside {len(origin) - residual.shape[1]} dimensions "
                f"(their rank is {rank} of {len(origin)}), so there is nothing to measure. Choose dim below "
                f"{max(rank, 1)}, or another detector."
            )
        return cls(origin, residual)

    def score(self, batch: Activations) -> Array:
        return norm((batch.features - self.origin) @ self.residual)

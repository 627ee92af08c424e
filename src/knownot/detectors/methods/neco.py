from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...errors import OptionError
from ...stats import ClassMoments, StatisticRequest
from ..base import Detector, flag, number, some_images
from ..formulas import divided, norm


@dataclass(frozen=True)
class NECO(Detector):
    r"""Ben Ammar et al., NECO: Neural Collapse Based Out-of-distribution Detection, ICLR 2024 (arXiv:2310.06823).

        score(x) = -||P^T h(x)|| / ||h(x)||, with `maxlogit` times max_k logit_k(x)

    h: features less their mean, and with `scale` each divided by its standard deviation, as in the authors' code; P
    the first `dim` principal components of h. dim is by default the number of classes less one, the dimensions in which
    collapsed classes lie, but at most half of the rank of h; the paper tunes it. The authors multiply by the highest
    logit except for ResNets. An h of zeros scores 0, the most unknown.
    """

    mean: Array  # [d]
    scale: Array  # [d], what h is multiplied by
    principal: Array  # [d, dim], orthonormal columns
    maxlogit: bool = False

    needs = frozenset({"features"})
    paper = "Ben Ammar et al. 2024, arXiv:2310.06823"
    summary = "minus the share of the features' length in the principal subspace"

    @classmethod
    def needs_with(cls, **options: Any) -> frozenset[str]:
        return cls.needs | ({"logits"} if options["maxlogit"] else set())

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        if options["dim"] is not None:
            number("dim", options["dim"], 1, whole=True)
        flag("scale", options["scale"])
        flag("maxlogit", options["maxlogit"])
        return {"moments": StatisticRequest(ClassMoments, "features")}

    @classmethod
    def fit(
        cls,
        statistics: Mapping[str, Any],
        head: Head | None,
        *,
        dim: int | None = None,
        scale: bool = True,
        maxlogit: bool = False,
    ) -> Self:
        moments = statistics["moments"]
        some_images(moments.count.sum(), "NECO")
        every = moments.pooled
        d, std = len(every.mean), np.sqrt(np.diag(every.covariance))
        if dim is not None and dim > d:
            raise OptionError(f"dim={dim}: the features have {d} dimensions; expected at most {d}.")
        moves = std > 1e-7 * max(float(np.abs(every.mean).max()), float(std.max()))  # else rounding of float32
        factor = np.where(moves, 1 / np.where(moves, std, 1) if scale else 1.0, 0.0 if scale else 1.0)
        values, directions = np.linalg.eigh(every.covariance * np.outer(factor, factor))  # ascending
        rank = int(np.sum(values > 1e-10 * max(values[-1], 0)))
        dim = max(1, min(len(moments.count) - 1, rank // 2)) if dim is None else int(dim)
        return cls(every.mean, factor, np.ascontiguousarray(directions[:, d - dim :]), maxlogit)

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.features)
        h = (batch.features - self.mean) * self.scale
        length = norm(h)
        share = divided(norm(h @ self.principal), length)
        return -share * xp.max(batch.logits, axis=-1) if self.maxlogit else -share

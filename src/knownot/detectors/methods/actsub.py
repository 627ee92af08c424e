from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...errors import UnsoundError
from ...stats import Reservoir, StatisticRequest
from ..base import Detector, number, some_images
from ..formulas import logsumexp, mean_of_largest, over_products, unit
from .scale import mass_ratio

NEAREST = 1e-6  # least 1 - cosine that is told from 0 in float32
SAMPLE = 2000  # images that tell where the decisive subspace ends


@dataclass(frozen=True)
class ActSub(Detector):
    r"""Demirel et al., Activation Subspaces for Out-of-Distribution Detection, ICCV 2025 (arXiv:2508.21695).

        score(x) = -d(x) * i(x)^power
        d = log sum_k exp(logit_k(SCALE(D f))) - o,  i = -log(1 - mean of the k largest over the bank of cos(N f, N y))

    D projects on the first right singular vectors of W, the decisive ones, N on the others, the insignificant ones,
    split where both parts of known features are equally long. SCALE: see there. power = 2, percentile = 95 and
    k = 10 are the authors' for ResNets (theirs for ViT: 1 and 97.5); the bank is a sample of 10,000 known images.

    A mean cosine below 0 counts as 0 (its logarithm has the other sign, and a square would hide that), one
    above 1 - 1e-6 as that. o is 0, as in the paper, unless a known image has a d below 0, where the product would
    turn its sign: then it is the lowest d.
    """

    decisive: Array  # [d, j], orthonormal columns
    insignificant: Array  # [d, d - j]
    bank: Array  # [r, d - j], rows of length 1 (or 0)
    head: Head
    origin: float = 0.0
    k: int = 10
    power: float = 2.0
    percentile: float = 95.0

    needs = frozenset({"features", "head", "logits"})
    paper = "Demirel et al. 2025, arXiv:2508.21695"
    summary = "energy in the head's decisive directions times likeness to known images in the others"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("k", options["k"], 1, whole=True)
        number("bank", options["bank"], options["k"], whole=True)
        number("power", options["power"], 0, 10)
        number("percentile", options["percentile"], 0, 95)
        return {"bank": StatisticRequest(Reservoir, "features", options=(("size", int(options["bank"])),))}

    @classmethod
    def fit(
        cls,
        statistics: Mapping[str, Any],
        head: Head,
        *,
        k: int = 10,
        bank: int = 10_000,
        power: float = 2.0,
        percentile: float = 95.0,
    ) -> Self:
        rows = np.asarray(statistics["bank"].rows["rows"], dtype=np.float64)
        some_images(len(rows), "ActSub")
        own = Head(np.asarray(head.weight, dtype=np.float64), np.asarray(head.bias, dtype=np.float64))
        d = rows.shape[1]
        if d < 2:
            raise UnsoundError("ActSub splits the space of the features in two, and these have one dimension.")
        basis = np.linalg.svd(own.weight)[2].T  # columns, the most decisive first
        squares = np.cumsum((rows[:SAMPLE] @ basis) ** 2, axis=1)
        inside = np.sqrt(squares).mean(axis=0)
        outside = np.sqrt(np.maximum(squares[:, -1:] - squares, 0)).mean(axis=0)
        j = 1 + int(np.argmin(np.abs(inside - outside)[: d - 1]))
        first, others = basis[:, :j], basis[:, j:]
        raw = cls(first, others, unit(rows @ others), own, 0.0, min(int(k), len(rows)), float(power), float(percentile))
        lowest = float(raw.decisive_energy(rows).min())
        return cls(first, others, raw.bank, own, min(0.0, lowest), raw.k, raw.power, raw.percentile)

    def decisive_energy(self, f: Array) -> Array:  # [n, d] -> [n]
        xp = array_namespace(f)
        part = xp.reshape((f @ self.decisive) @ self.decisive.T, (-1, self.decisive.shape[0]))  # see products
        return logsumexp(self.head(part * xp.exp(mass_ratio(part, self.percentile))))

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.features)
        other = unit(batch.features @ self.insignificant)
        likeness = over_products(lambda table, _: mean_of_largest(table, self.k), other, self.bank)
        known = -xp.log(xp.clip(1 - xp.clip(likeness, min=0.0), min=NEAREST))
        return (self.origin - self.decisive_energy(batch.features)) * known**self.power

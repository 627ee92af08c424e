from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import Reservoir, StatisticRequest
from ..base import Detector, number, some_images
from ..formulas import against, logsumexp, mean_of_largest, unit


@dataclass(frozen=True)
class NNGuide(Detector):
    r"""Park, Jung & Teoh, Nearest Neighbor Guidance for Out-of-Distribution Detection, ICCV 2023 (arXiv:2309.14888).

        score(x) = -e(x) * mean of the k largest over the bank of <z(x), e(y) z(y)>
        z = f / ||f||,  e = log sum_k exp(logit_k) - o

    k = 10, as in the authors' code; the bank is a sample of 10,000 known images, with their energies by the head. One
    peer takes k = 100 of the first hundredth of the training set; another takes cosines, which undoes the
    scaling by e(y). o is 0, as in the paper, unless an image of the bank has e(y) < 0, where the product would
    turn its sign: then it is the lowest e(y).
    """

    bank: Array  # [r, d], z(y), in the precision of the features
    energy: Array  # [r], e(y)
    k: int
    origin: float  # o

    needs = frozenset({"features", "head", "logits"})
    paper = "Park, Jung & Teoh 2023, arXiv:2309.14888"
    summary = "energy times the likeness to known images of high energy"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("k", options["k"], 1, whole=True)
        number("bank", options["bank"], options["k"], whole=True)
        return {"bank": StatisticRequest(Reservoir, "features", options=(("size", int(options["bank"])),))}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head, *, k: int = 10, bank: int = 10_000) -> Self:
        given = statistics["bank"].rows["rows"]
        rows = np.asarray(given, dtype=np.float64)
        some_images(len(rows), "NNGuide")
        energy = logsumexp(rows @ np.asarray(head.weight, dtype=np.float64).T + np.asarray(head.bias, dtype=np.float64))
        origin = min(0.0, float(energy.min()))
        return cls(unit(rows).astype(given.dtype), energy - origin, min(int(k), len(rows)), origin)

    def score(self, batch: Activations) -> Array:
        guidance = against(lambda table, _: mean_of_largest(table * self.energy, self.k), batch, self.bank)
        return (self.origin - logsumexp(batch.logits)) * guidance

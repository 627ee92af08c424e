from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head, softmax
from ...stats import Reservoir, StatisticRequest
from ..base import Detector, number, some_images
from ..formulas import against, unit


@dataclass(frozen=True)
class Relation(Detector):
    r"""Kim et al., Neural Relation Graph: A Unified Framework for Identifying Label Noise and Outlier Data, NeurIPS
    2023 (arXiv:2301.12321).

        score(x) = -mean over the bank t of k(x, t)^power where k(x, t) > cut, else 0
        k(x, t) = max(0, cos(f(x), f(t))) p(x)^T p(t)

    cut = 0.03 and power = 1 as in the authors' code and in OpenOOD, which sum over all training images; here the bank
    is a sample of 10,000 distinct ones, and the mean, which ranks alike, does not grow with it.
    """

    bank: Array  # [r, d], rows of length 1 (or 0), in the precision of the features
    probabilities: Array  # [r, c]
    power: float = 1.0
    cut: float = 0.03

    needs = frozenset({"features", "probabilities"})
    paper = "Kim et al. 2023, arXiv:2301.12321"
    summary = "minus the mean similarity in features and probabilities to known images"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("power", options["power"], 0.1, 100)
        number("cut", options["cut"], 0, 1)
        number("bank", options["bank"], 1, whole=True)
        return {"bank": StatisticRequest(Reservoir, ("features", "logits"), options=(("size", int(options["bank"])),))}

    @classmethod
    def fit(
        cls,
        statistics: Mapping[str, Any],
        head: Head | None,
        *,
        power: float = 1.0,
        cut: float = 0.03,
        bank: int = 10_000,
    ) -> Self:
        rows = statistics["bank"].rows
        some_images(len(rows["features"]), "Relation")
        features, logits = (np.asarray(rows[name], dtype=np.float64) for name in ("features", "logits"))
        kept = (unit(features).astype(rows["features"].dtype), softmax(logits).astype(rows["logits"].dtype))
        return cls(*kept, float(power), float(cut))

    def score(self, batch: Activations) -> Array:
        return against(self._score, batch, self.bank, softmax(batch.logits))

    def _score(self, table: Array, z: Array, probabilities: Array) -> Array:
        xp = array_namespace(z)
        k = xp.clip(table, 0, None) * (probabilities @ self.probabilities.T)
        raised = k if self.power == 1 else k**self.power
        return -xp.mean(xp.where(k > self.cut, raised, xp.zeros_like(k)), axis=-1)

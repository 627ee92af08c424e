from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import Reservoir, StatisticRequest
from ..base import Detector, number, one_of, some_images
from ..formulas import against, logsumexp, squares, unit


@dataclass(frozen=True)
class KDE(Detector):
    r"""Parzen, On Estimation of a Probability Density Function and Mode, 1962, on unit features.

        score(x) = -log 1/r sum over the bank t of exp(-||z(x) - z(t)||^2 / (2 h^2)),  z = f / ||f||

    Minus the log density but for a constant. The bank is a sample of r <= 10,000 distinct known images. Bandwidth by
    rule: s r^(-1/(d + 4)) (Scott 1992), times (4 / (d + 2))^(1/(d + 4)) (Silverman 1986), with s^2 the mean variance
    of the d dimensions of the bank, the same for all of them. A bank that does not vary has h = 1.
    """

    bank: Array  # [r, d], rows of length 1 (or 0), in the precision of the features
    bandwidth: float

    needs = frozenset({"features"})
    paper = "Parzen 1962; Silverman 1986"
    summary = "minus the log density around known images, by a Gaussian kernel on unit features"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        one_of("rule", options["rule"], ("scott", "silverman"))
        number("bank", options["bank"], 1, whole=True)
        return {"bank": StatisticRequest(Reservoir, "features", options=(("size", int(options["bank"])),))}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None, *, rule: str = "scott", bank: int = 10_000) -> Self:
        rows = statistics["bank"].rows["rows"]
        some_images(len(rows), "KDE")
        z = np.asarray(unit(np.asarray(rows, dtype=np.float64)))
        r, d = z.shape
        spread = float(np.sqrt(z.var(axis=0).mean()))
        factor = r ** (-1 / (d + 4)) * ((4 / (d + 2)) ** (1 / (d + 4)) if rule == "silverman" else 1.0)
        return cls(z.astype(rows.dtype), spread * factor if spread > 1e-6 else 1.0)

    def score(self, batch: Activations) -> Array:
        narrow = 0.5 / self.bandwidth**2
        lengths = (squares(batch, self.bank) * narrow)[None, :]

        def minus_log_density(table: Array, z: Array) -> Array:  # [n, r], [n, d] -> [n]
            xp = array_namespace(z)
            own = (xp.sum(z * z, axis=-1) * narrow)[:, None]  # a distance is not below 0: the rest at most this
            return xp.squeeze(own, axis=-1) - logsumexp(xp.minimum(table * (2 * narrow) - lengths, own))

        return float(np.log(self.bank.shape[0])) + against(minus_log_density, batch, self.bank)

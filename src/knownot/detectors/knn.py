from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..arrays import Activations, Array, Head, Offers
from ..stats import Reservoir, Want
from .base import Detector, number, place, some_images
from .formulas import kth_nearest, unit


@dataclass(frozen=True)
class KNN(Detector):
    r"""Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022 (arXiv:2204.06507).

        score(x) = || z(x) - z_(k) ||,  z = f / ||f||, z_(k) the k-th nearest row of a bank of known images

    The distance itself; some peers return its square, which ranks alike. k = 10 rather than the paper's 50 or 1000,
    because the bank is a sample of 10,000 distinct known images (of smallest hash, see Reservoir) and not all of
    them. A bank of fewer than k rows lowers k to its size. A vector of zeros stays one, at distance 1 from all.

    of: "features", "stages/<name>", or with a second network "second/features" and "second/stages/<name>".
    """

    bank: Array  # [r, d], rows of length 1 (or 0), in the precision of the features
    k: int = 10
    of: str = "features"

    needs = frozenset({"features"})
    paper = "Sun et al. 2022, arXiv:2204.06507"
    summary = "distance to the k-th nearest known image, features of length 1"

    @classmethod
    def needs_with(cls, *, of: str = "features", **options: Any) -> frozenset[str]:
        return frozenset({str(of).partition("/")[0]})

    @classmethod
    def wants(cls, offers: Offers, *, k: int = 10, bank: int = 10_000, of: str = "features") -> dict[str, Want]:
        place(of, offers)
        number("k", k, 1, whole=True)
        number("bank", bank, k, whole=True)
        return {"bank": Want(Reservoir, of, options=(("size", int(bank)),))}

    @classmethod
    def fit(
        cls, seen: Mapping[str, Any], head: Head | None, *, k: int = 10, bank: int = 10_000, of: str = "features"
    ) -> Self:
        rows = seen["bank"].rows["rows"]
        some_images(len(rows), "KNN")
        return cls(unit(np.asarray(rows, dtype=np.float64)).astype(rows.dtype), min(int(k), len(rows)), of)

    def score(self, batch: Activations) -> Array:
        return kth_nearest(unit(batch.named()[self.of]), self.bank, self.k)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ...arrays import Activations, Array, Capabilities, Head
from ...errors import missing_extra
from ...stats import Reservoir, StatisticRequest
from .. import neighbours
from ..base import Detector, number, one_of, place, some_images
from ..coreset import COMPACT
from ..formulas import against, kth_nearest_by_products, squares, unit
from ..neighbours import INDEXES, chosen, kth_nearest_by


@dataclass(frozen=True)
class KNN(Detector):
    r"""Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022 (arXiv:2204.06507).

        score(x) = || z(x) - z_(k) ||,  z = f / ||f||, z_(k) the k-th nearest row of a bank of known images

    The distance itself; some peers return its square, which ranks alike. k = 10 rather than the paper's 50 or 1000,
    because the bank is a sample of 10,000 distinct known images (of smallest hash, see Reservoir) and not all of
    them. A bank of fewer than k rows lowers k to its size. A vector of zeros stays one, at distance 1 from all.

    of: "features", "stages/<name>", or with a second network "second/features" and "second/stages/<name>".
    keep: leave only so many rows of the bank, chosen by compact: "k-center" (they cover all rows), "herding" (they
    have the mean of all rows) or "reservoir" (at random).
    index: "exact"; "ivf" or "hnsw", approximate, by faiss, for large banks; "auto": exact up to a measured size and
    where faiss is missing, else ivf. The bank is what is saved; the index is made of it anew, the same each time.
    """

    bank: Array  # [r, d], rows of length 1 (or 0), in the precision of the features
    k: int = 10
    of: str = "features"
    index: str = "exact"  # never "auto"

    needs = frozenset({"features"})
    paper = "Sun et al. 2022, arXiv:2204.06507"
    summary = "distance to the k-th nearest known image, features of length 1"

    @classmethod
    def needs_with(cls, **options: Any) -> frozenset[str]:
        return frozenset({str(options["of"]).partition("/")[0]})

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        k, index = options["k"], options["index"]
        place(options["of"], capabilities)
        number("k", k, 1, whole=True)
        number("bank", options["bank"], k, whole=True)
        if options["keep"] is not None:
            number("keep", options["keep"], k, whole=True)
        one_of("compact", options["compact"], tuple(COMPACT))
        one_of("index", index, INDEXES)
        if index in ("ivf", "hnsw") and neighbours._faiss() is None:
            raise missing_extra("faiss-cpu", "knn", f"KNN with index={index!r}")
        return {"bank": StatisticRequest(Reservoir, options["of"], options=(("size", int(options["bank"])),))}

    @classmethod
    def fit(
        cls,
        statistics: Mapping[str, Any],
        head: Head | None,
        *,
        k: int = 10,
        bank: int = 10_000,
        of: str = "features",
        keep: int | None = None,
        compact: str = "reservoir",
        index: str = "auto",
    ) -> Self:
        rows = statistics["bank"].rows["rows"]
        some_images(len(rows), "KNN")
        z = np.empty_like(rows)
        for i in range(0, len(rows), 4096):  # a block at a time: all rows in float64 would be twice the bank again
            z[i : i + 4096] = unit(rows[i : i + 4096].astype(np.float64))
        if keep is not None and keep < len(z):
            z = z[COMPACT[compact](z, int(keep))]
        return cls(z, min(int(k), len(z)), of, chosen(index, len(z)))

    def exactly(self) -> Self:
        return self if self.index == "exact" else replace(self, index="exact")

    def score(self, batch: Activations) -> Array:
        if self.index != "exact":
            return kth_nearest_by(self.index, unit(batch.named()[self.of]), self.bank, self.k)
        half = squares(batch, self.bank) / 2

        def distance(table: Array, z: Array) -> Array:  # [n, r], [n, d] -> [n]
            return kth_nearest_by_products(table, z, self.bank, half, self.k)

        return against(distance, batch, self.bank, of=self.of)

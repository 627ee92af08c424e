from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities
from ...errors import unknown_name
from ...stats import ClassRange, Reduction, StatisticRequest
from ..base import Detector, number, some_images
from ..formulas import NEAR, in_chunks, predicted, root
from ..maps import OfLayer, scaled

SMALLEST = 1e-3  # of a layer's typical bound: a bound below it (a channel that is silent for a class) counts as this


@dataclass(frozen=True)
class GramRows(OfLayer):
    """Row sums of G_p = (F^p F^pT)^(1/p) for p = 1 .. powers, F [k, h w] the map of one image: [n, powers k].

    Powers and roots are element by element; the root keeps the sign. G is of degree 2 in F, so F is divided by
    its largest value first and nothing overflows.
    """

    powers: int

    def made(self, f: Array, batch: Activations) -> Array:
        _, k, s = f.shape
        return in_chunks(self._rows, k * max(k, s), f, most=NEAR)

    def _rows(self, f: Array) -> Array:  # [n, k, h w] -> [n, powers k]
        xp = array_namespace(f)
        f, top = scaled(f)
        rows = [f @ xp.sum(f, axis=1)[:, :, None]]  # of the first order G need not be formed
        one = xp.ones((f.shape[1], 1), dtype=f.dtype)  # a sum over few numbers is faster as a product
        power = f
        for p in range(2, self.powers + 1):
            if p == 2:
                power = f * f
            else:
                power *= f  # in place: half the memory to go through
            rows.append(root(power @ xp.matrix_transpose(power), p) @ one)
        return xp.squeeze(xp.concat(rows, axis=1) * top**2, axis=2)


@dataclass(frozen=True)
class Gram(Detector):
    r"""Sastry & Oore, Detecting OOD Examples with Gram Matrices, ICML 2020 (arXiv:1912.12510), eqs. 2–6.

        delta_l(x) = sum over powers p and rows i of  max(0, low - g) / |low| + max(0, g - high) / |high|
        score(x) = sum over layers l of delta_l(x) / E[delta_l]

    g: row sums of the Gram matrix of order p of layer l. low, high: the smallest and largest g among known images that
    are predicted as the class that x is predicted as. E: over known images that are in no range: a tenth of them,
    told by a checksum, 300 at most. Everything comes from one pass: ranges merge, maps do not outlive their batch.

    Row sums, as in the authors' code (the paper flattens the triangle). Differences: the authors and peers read every
    convolution and activation, here the last one of each resolution; the authors use powers up to 10, peers up to 5;
    the authors' code and one peer also divide by the largest probability, which is not in the paper (by_confidence);
    peers add 1e-6 to bounds, so that a channel that is silent for one class outweighs all others, while here a bound
    counts as at least 0.001 of the layer's typical one. A class that was never predicted has the range of all images.

    layers: of `capabilities.maps`, all if None. Memory: 2 c (powers k) numbers per layer; time: powers k^2 h w per
    image.
    """

    layers: tuple[str, ...]
    powers: int
    low: tuple[Array, ...]  # per layer [c, powers k]
    high: tuple[Array, ...]
    floor: tuple[Array, ...]  # per layer [powers k], smallest size of a bound
    usual: tuple[float, ...]  # per layer, E[delta_l]
    by_confidence: bool = False

    needs = frozenset({"probabilities", "maps"})
    paper = "Sastry & Oore 2020, arXiv:1912.12510"
    summary = "how far correlations of channels, layer by layer, leave the range of the predicted class"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("powers", options["powers"], 1, 10, whole=True)
        for name in options["layers"] or ():
            if name not in capabilities.maps:
                raise unknown_name("map of this classifier", str(name), capabilities.maps)
        return {
            name: StatisticRequest(ClassRange, GramRows(name, int(options["powers"])), by="prediction")
            for name in options["layers"] or capabilities.maps
        }

    @classmethod
    def fit(
        cls,
        statistics: Mapping[str, Any],
        head: Any,
        *,
        layers: Sequence[str] | None = None,
        powers: int = 5,
        by_confidence: bool = False,
    ) -> Self:
        ranges = [r.whole for r in statistics.values()]
        some_images(min(len(r.classes) for r in ranges), "Gram")
        bounds = [_bounds(r) for r in ranges]
        low, high, floor = (tuple(b[i] for b in bounds) for i in range(3))
        found = []
        for r, *b in zip(ranges, low, high, floor, strict=True):
            rows, classes = r.held.rows["row"], r.held.rows["class"]
            delta = _deviation(rows, b[0][classes], b[1][classes], b[2])
            found.append(float(np.mean(delta)) if len(delta) else 0.0)
        some = [x for x in found if x > 0]
        rest = float(np.mean(some)) if some else 1.0  # of a layer whose range no held-out image leaves
        return cls(
            tuple(statistics), int(powers), low, high, floor, tuple(x or rest for x in found), bool(by_confidence)
        )

    @property
    def map_reductions(self) -> tuple[Reduction, ...]:
        return tuple(GramRows(layer, self.powers) for layer in self.layers)

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.logits)
        total = xp.zeros_like(batch.logits[:, 0])
        for reduction, low, high, floor, usual in zip(
            self.map_reductions, self.low, self.high, self.floor, self.usual, strict=True
        ):
            g = reduction.read(batch)
            total = total + _deviation(g, predicted(batch.logits, low), predicted(batch.logits, high), floor) / usual
        if not self.by_confidence:
            return total
        top = xp.max(batch.logits, axis=-1, keepdims=True)
        return total * xp.sum(xp.exp(batch.logits - top), axis=-1)  # over the largest probability


def _bounds(r: ClassRange) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(low [c, d], high [c, d], floor [d]); one floor for the rows of a layer, whatever the power."""
    low = np.broadcast_to(r.low.min(axis=0), (r.count, r.low.shape[1])).copy()
    high = np.broadcast_to(r.high.max(axis=0), low.shape).copy()
    low[r.classes], high[r.classes] = r.low, r.high
    typical = np.mean(np.maximum(np.abs(r.low), np.abs(r.high)), dtype=np.float64)
    return low, high, np.full(low.shape[1], max(SMALLEST * typical, np.finfo(np.float32).tiny), dtype=low.dtype)


def _deviation(g: Array, low: Array, high: Array, floor: Array) -> Array:  # [n, d], [n, d], [n, d], [d] -> [n]
    xp = array_namespace(g)
    nothing = xp.zeros_like(g)
    below = xp.maximum(low - g, nothing) / xp.maximum(xp.abs(low), floor)
    above = xp.maximum(g - high, nothing) / xp.maximum(xp.abs(high), floor)
    return xp.sum(below + above, axis=-1)

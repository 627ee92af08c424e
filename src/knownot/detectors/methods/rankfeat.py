from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...errors import UnsoundError, unknown_name
from ...stats import Reduction, Reservoir, StatisticRequest
from ..base import Detector, number, some_images
from ..formulas import NEAR, divided, in_chunks, logsumexp, unit
from ..maps import OfLayer, scaled

UNSCALED = 2  # steps of the iteration between two divisions by the length
TOLERANCE = 1e-3  # of the pooled map against the features, relative to the largest of them


@dataclass(frozen=True)
class RankOneRest(OfLayer):
    """Mean over space of a map [k, h w] without its largest singular component, [n, k]; and, as a last column, how far
    the mean of the whole map is from the features, relative to the largest of these.

    The component is found by power iteration from a fixed start; s u v^T = (F v) v^T, so the rest itself is not formed.
    The steps v <- F^T F v are taken with the smaller of F F^T and F^T F, formed once: v is F^T u, up to its length.
    """

    iterations: int

    def made(self, f: Array, batch: Activations) -> Array:
        xp = array_namespace(f)
        mean, (_, k, s) = xp.mean(f, axis=2), f.shape
        rest = in_chunks(self._rest, k * max(k, s), f, mean, most=NEAR)
        return xp.concat([rest, self._gap(batch, mean)], axis=1)

    def _rest(self, f: Array, mean: Array) -> Array:  # [n, k, s], [n, k] -> [n, k]
        xp = array_namespace(f)
        f, top = scaled(f)
        _, k, s = f.shape
        # Columns' lengths, which a map without negatives cannot be orthogonal to; uneven, for maps that can.
        ripple = 1 + xp.astype(xp.arange(s), f.dtype) * (0.5 / s)
        v = unit(xp.sqrt(xp.sum(f * f, axis=1)) * ripple)
        turned = xp.matrix_transpose(f)
        if k < s:
            u = _iterate(f @ turned, _times(f, v), self.iterations - 1)
            v = unit(_times(turned, u))
        else:
            v = _iterate(turned @ f, v, self.iterations)
        return mean - _times(f, v) * xp.mean(v, axis=1, keepdims=True) * xp.squeeze(top, axis=2)

    def _gap(self, batch: Activations, mean: Array) -> Array:  # [n, 1]
        xp = array_namespace(mean)
        if batch.features is None or batch.features.shape[1] != mean.shape[1]:
            return xp.ones_like(mean[:, :1])
        gap = xp.max(xp.abs(mean - batch.features), axis=1, keepdims=True)
        return divided(gap, xp.max(xp.abs(batch.features), axis=1, keepdims=True))


def _iterate(square: Array, v: Array, steps: int) -> Array:  # [n, a, a], [n, a] -> [n, a]
    """Of length 1 every second step only: the largest singular value of a scaled map is at least 1, at most the root of
    k s, so nothing vanishes, nor overflows in float32 while k s < 10^9."""
    for step in range(1, steps + 1):
        v = _times(square, v)
        v = unit(v) if step % UNSCALED == 0 or step == steps else v
    return v


def _times(matrix: Array, vector: Array) -> Array:  # [n, a, b], [n, b] -> [n, a]
    return array_namespace(matrix).squeeze(matrix @ vector[:, :, None], axis=2)


@dataclass(frozen=True)
class RankFeat(Detector):
    r"""Song, Sebe & Wang, RankFeat: Rank-1 Feature Removal for OOD Detection, NeurIPS 2022 (arXiv:2209.08590), eq. 3.

        score(x) = -log sum_c exp( head( mean over space of (F - s_1 u_1 v_1^T) ) )_c

    F [k, h w]: the last map, which the head reads the spatial mean of; s_1, u_1, v_1: its largest singular value and
    vectors. The paper's block-4 variant; its fusion with block 3 has to run the last block again on a changed map,
    which no adapter can. The component is found by power iteration, as the paper offers (20 steps by default).

    Refused where the head does not read the mean of the last map (flattened maps, class tokens, layers in between):
    that is measured on known images, not assumed.

    layer: of `capabilities.maps`, the last if None.
    """

    head: Head
    layer: str
    iterations: int = 20

    needs = frozenset({"features", "head", "maps"})
    paper = "Song et al. 2022, arXiv:2209.08590"
    summary = "energy after taking the largest singular component out of the last map"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        layer = options["layer"]
        number("iterations", options["iterations"], 1, 10_000, whole=True)
        if layer is not None and layer not in capabilities.maps:
            raise unknown_name("map of this classifier", str(layer), capabilities.maps)
        name = layer or capabilities.maps[-1]
        return {
            name: StatisticRequest(Reservoir, RankOneRest(name, int(options["iterations"])), options=(("size", 64),))
        }

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head, *, layer: str | None = None, iterations: int = 20) -> Self:
        ((name, sample),) = statistics.items()
        some_images(len(sample), "RankFeat")
        gap = float(sample.rows["rows"][:, -1].max())
        if gap > TOLERANCE:
            raise UnsoundError(
                f"RankFeat recomputes logits from the spatial mean of the map {name!r}, but this classifier's head "
                f"does not read that. Mean and features differ by up to {gap:.2g} of the largest feature. Name the map "
                "that is pooled with layer=, or choose another detector, such as 'energy' or 'scale'."
            )
        return cls(Head(np.asarray(head.weight), np.asarray(head.bias)), name, int(iterations))

    @property
    def map_reductions(self) -> tuple[Reduction, ...]:
        return (RankOneRest(self.layer, self.iterations),)

    def score(self, batch: Activations) -> Array:
        (reduction,) = self.map_reductions
        return -logsumexp(self.head(reduction.read(batch)[:, :-1]))

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...errors import UnsoundError
from ...stats import Reservoir, StatisticRequest
from ..base import Detector, flag, number, some_images
from ..formulas import NEAR, in_chunks
from ..formulas import unit as _unit
from .mahalanobis import ROUNDING, SMALLEST

KNOTS = np.linspace(-2, 2, 9)  # where the knots of a marginal map go, in standard deviations of the normal
STEEPEST = 8.0  # slope of a marginal map, and the inverse of the flattest: no value is squeezed into a point
CLOSEST = 0.05  # distance of two knots, so that ties among the known images bend nothing into a step


@dataclass(frozen=True)
class Flow(Detector):
    r"""Laparra, Camps-Valls & Malo, Iterative Gaussianization: From ICA to Random Rotations, IEEE TNN 2011 (RBIG).

        score(x) = -log p(f),  log p(f) = log N(z_L; 0, I) + sum over layers and coordinates log g'(.) + log |det W|
        z_0 = W^T (f - mean),  z_l = g_l(R_l^T z_(l-1))

    A normalising flow fitted in closed form: W whitens, each rotation R_l is followed by a monotone map g_l per
    coordinate that makes its distribution over the sample normal. Exactly a density of the features (in the space
    that they span): it integrates to one. A sample of 10,000 distinct known images; no labels, no gradient steps.

    Here R_l are the eigenvectors of E ||z||^2 z z^T (FOBI, Cardoso 1989), those directions that differ most in
    kurtosis, every second layer a random rotation of fixed seed; g_l are quadratic splines between nine quantiles with
    linear ends, so the density is continuous, and far outside it falls like a Gaussian's. Only the `dim` coordinates
    of largest variance go through the layers; the others count as normal.

    unit: divide the features by their L2 norm first (as measured, much better: a large norm is no sign of the unknown).
    """

    center: Array  # [d]
    whiten: Array  # [d, r]
    rotations: Array  # [l, m, m], m = min(dim, r)
    knots: Array  # [l, m, k]
    bends: Array  # [l, m, k], what the slope changes by per unit after each knot
    ends: Array  # [l, m, 2], slope before the first and after the last knot
    shift: Array  # [l, m], taken off the spline's value
    constant: float  # (r / 2) log 2 pi - log |det W|
    unit: bool = True

    needs = frozenset({"features"})
    paper = "Laparra et al. 2011 (IEEE TNN)"
    summary = "minus the log density of the features, by a flow of rotations and marginal maps to a Gaussian"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("layers", options["layers"], 1, whole=True)
        number("dim", options["dim"], 1, whole=True)
        number("sample", options["sample"], 2, whole=True)
        flag("unit", options["unit"])
        return {"sample": StatisticRequest(Reservoir, "features", options=(("size", int(options["sample"])),))}

    @classmethod
    def fit(
        cls,
        statistics: Mapping[str, Any],
        head: Head | None,
        *,
        layers: int = 10,
        dim: int = 256,
        unit: bool = True,
        sample: int = 10_000,
    ) -> Self:
        rows = np.asarray(statistics["sample"].rows["rows"], dtype=np.float64)
        some_images(len(rows), "Flow")
        rows = np.asarray(_unit(rows)) if unit else rows
        center = rows.mean(axis=0)
        variance, directions = np.linalg.eigh((rows - center).T @ (rows - center) / len(rows))
        kept = np.flatnonzero(variance > max(SMALLEST * variance[-1], ROUNDING * center @ center, 0))[::-1]
        if not len(kept):
            raise UnsoundError(
                "The features of the known images do not vary, so they have no density. Give more images, or choose a "
                "detector that reads logits, such as 'gen'."
            )
        whiten = directions[:, kept] / np.sqrt(variance[kept])
        z = ((rows - center) @ whiten)[:, : int(dim)]
        rng = np.random.default_rng(0)
        made = []
        for i in range(int(layers)):
            rotation = _rotation(z, None if i % 2 == 0 else rng)
            z, marginal = _marginal(z @ rotation)
            made.append((rotation, *marginal))
        constant = len(kept) / 2 * np.log(2 * np.pi) + np.log(variance[kept]).sum() / 2
        rotations, knots, bends, ends, shift = (np.stack(x) for x in zip(*made, strict=True))
        return cls(center, whiten, rotations, knots, bends, ends, shift, float(constant), bool(unit))

    def score(self, batch: Activations) -> Array:
        f = _unit(batch.features) if self.unit else batch.features
        table = self.knots.shape[1] * self.knots.shape[2]
        return in_chunks(self._score, table, (f - self.center) @ self.whiten, most=NEAR)

    def _score(self, z: Array) -> Array:
        xp = array_namespace(z)
        m = self.rotations.shape[1]
        score = self.constant + xp.sum(z[:, m:] * z[:, m:], axis=-1) / 2
        z = xp.matrix_transpose(z[:, :m])  # a coordinate's images side by side: they share its knots
        for i in range(self.rotations.shape[0]):
            z, slope = spline(
                xp.matrix_transpose(self.rotations[i, ...]) @ z,
                self.knots[i, ...],
                self.bends[i, ...],
                self.ends[i, ...],
                self.shift[i, ...],
            )
            score = score - xp.sum(xp.log(slope), axis=0)
        return score + xp.sum(z * z, axis=0) / 2


def spline(t: Array, knots: Array, bends: Array, ends: Array, shift: Array) -> tuple[Array, Array]:
    """(value, slope) [m, n] of each coordinate's monotone map at t [m, n]: the slope is linear between knots."""
    xp = array_namespace(t)
    first, last, low, high = knots[:, :1], knots[:, -1:], ends[:, :1], ends[:, 1:]
    inner = xp.minimum(xp.maximum(t, first), last)  # beyond, nothing large cancels
    knots, bends = (xp.matrix_transpose(x)[:, :, None] for x in (knots, bends))  # sums over the first axis are fast
    above = xp.clip(inner[None, ...] - knots, 0, None)  # [k, m, n]
    bent = bends * above
    slope = low + xp.sum(bent, axis=0)
    bent *= above
    value = low * (inner - first) + xp.sum(bent, axis=0) / 2
    value = value + xp.where(t < first, low * (t - first), high * (t - inner)) - shift[:, None]
    return value, slope


def _rotation(z: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    """[m, m]: a random one, or without `rng` the eigenvectors of the fourth moment."""
    if rng is None:
        weight = (z * z).sum(axis=1)
        return np.linalg.eigh((z * weight[:, None]).T @ z / len(z))[1]
    q, r = np.linalg.qr(rng.normal(size=(z.shape[1],) * 2))
    return q * np.sign(np.diag(r))


def _marginal(t: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """(values [n, m], (knots, bends, ends, shift)) of the maps that make each column of t [n, m] about N(0, 1)."""
    from scipy.special import ndtr

    knots = np.quantile(t, ndtr(KNOTS), axis=0).T  # [m, k]
    for j in range(1, len(KNOTS)):
        knots[:, j] = np.maximum(knots[:, j], knots[:, j - 1] + CLOSEST)
    slopes = np.gradient(KNOTS) * 2 / np.stack([np.gradient(row) * 2 for row in knots])
    slopes = np.clip(slopes, 1 / STEEPEST, STEEPEST)
    change = np.diff(slopes, axis=1) / np.diff(knots, axis=1)
    bends = np.diff(change, axis=1, prepend=0, append=0)
    ends = slopes[:, [0, -1]]
    zero = np.zeros(len(knots))

    def values(t: np.ndarray) -> np.ndarray:
        return np.asarray(spline(np.ascontiguousarray(t.T), knots, bends, ends, zero)[0].T)

    value = in_chunks(values, knots.size, t, most=NEAR)
    mean, std = value.mean(axis=0), value.std(axis=0)
    std = np.where(std > 0, std, 1.0)
    return (value - mean) / std, (knots, bends / std[:, None], ends / std[:, None], mean / std)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import Reservoir, StatisticRequest
from ..base import Detector, number, some_images
from ..formulas import NEAR, RAMPS, histogram, in_chunks

MOST = 2000  # projections, c times the repeats
SAMPLE = 1000  # known images whose histograms are averaged


@dataclass(frozen=True)
class Histogram:
    """How far the values of an image are from being distributed as those of known images are."""

    low: float
    width: float  # of a bin; the centres are low, low + width ...
    smooth: Array  # [bins, bins], a moving average, edges repeated
    log_known: Array  # [bins], log of the mean density of known images
    least: float

    @classmethod
    def of(cls, rows: np.ndarray, bins: int, window: int, least: float) -> Self:  # rows [n, m]
        low, high = float(rows.min()), float(rows.max())
        smooth = np.zeros((bins, bins))
        for offset in range(-((window - 1) // 2), window // 2 + 1):
            np.add.at(smooth, (np.clip(np.arange(bins) + offset, 0, bins - 1), np.arange(bins)), 1 / window)
        empty = cls(low, (high - low) / (bins - 1) or 1.0, smooth, np.zeros(bins), least)
        known = empty.density(rows).mean(axis=0) + least
        return cls(low, empty.width, smooth, np.log(known / known.sum()), least)

    def density(self, x: Array) -> Array:  # [n, m] -> [n, bins]
        """Share of each row's values in each bin; one between two centres counts for both, in part."""
        return histogram((x - self.low) / self.width, self.log_known.shape[0])

    def divergence(self, x: Array) -> Array:  # [n, m] -> [n]
        """Kullback-Leibler divergence from the known density, and back, summed."""
        xp = array_namespace(x)
        q = self.density(x) @ self.smooth + self.least
        q = q / xp.sum(q, axis=-1, keepdims=True)
        return xp.sum((xp.exp(self.log_known) - q) * (self.log_known - xp.log(q)), axis=-1)


@dataclass(frozen=True)
class WeiPer(Detector):
    r"""Granz, Heurich & Landgraf, WeiPer: OOD Detection using Weight Perturbations of Class Projections, NeurIPS 2024,
    WeiPer+KLD.

        score(x) = KLD(f(x)) + divergence KLD(V f(x) + b) - confidence mean_r max softmax(V_r f(x) + b)

    V_r: the head's weights, each row with a random vector of `distance` times its length added; V: all V_r. KLD: the
    symmetric divergence of the histogram of an image's values (smoothed over a window of 4 bins, of 15 for V) from
    the mean histogram of known images (a sample of 1000). Drawn once, at fit, from `seed`.

    Options and windows as the authors report for CIFAR-10 (they tune seven per data set, with unknown images). Not as
    in the paper: 100 repeats only while they give at most 2000 projections (with 1000 classes, two); values count
    for the two nearest bins, in part, so that the score is continuous and float32 gives what float64 gives.
    """

    weight: Array  # [c r, d], those of the first class first
    bias: Array  # [c r]
    classes: int
    features: Histogram
    projections: Histogram
    lambdas: tuple[float, float]

    needs = frozenset({"features", "head", "logits"})
    paper = "Granz, Heurich & Landgraf 2024 (NeurIPS)"
    summary = "how unusually the values of features and of random projections are distributed"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        for name in ("distance", "divergence", "confidence"):
            number(name, options[name], 0)
        number("repeats", options["repeats"], 1, whole=True)
        number("bins", options["bins"], 20, 1000, whole=True)
        number("seed", options["seed"], 0, whole=True)
        return {"sample": StatisticRequest(Reservoir, "features", options=(("size", 10_000),))}

    @classmethod
    def fit(
        cls,
        statistics: Mapping[str, Any],
        head: Head,
        *,
        distance: float = 1.8,
        divergence: float = 2.5,
        confidence: float = 0.1,
        repeats: int = 100,
        bins: int = 100,
        seed: int = 0,
    ) -> Self:
        rows = np.asarray(statistics["sample"].rows["rows"], dtype=np.float64)[:SAMPLE]
        some_images(len(rows), "WeiPer")
        weight, bias = (np.asarray(x, dtype=np.float64) for x in (head.weight, head.bias))
        repeats = max(1, min(int(repeats), MOST // len(weight)))
        noise = np.random.default_rng(int(seed)).normal(size=(repeats, *weight.shape))
        noise *= distance * np.linalg.norm(weight, axis=1)[:, None] / np.linalg.norm(noise, axis=2, keepdims=True)
        spread = (weight + noise).swapaxes(0, 1).reshape(-1, weight.shape[1])
        offset = np.repeat(bias, repeats)
        features = Histogram.of(rows, int(bins), 4, 0.01)
        projections = Histogram.of(rows @ spread.T + offset, int(bins), 15, 0.025)
        return cls(spread, offset, len(weight), features, projections, (float(divergence), float(confidence)))

    def score(self, batch: Activations) -> Array:
        return in_chunks(self._score, RAMPS * max(self.weight.shape), batch.features, most=NEAR)

    def _score(self, f: Array) -> Array:
        xp = array_namespace(f)
        projected = f @ self.weight.T + self.bias
        logits = xp.reshape(projected, (-1, self.classes, self.weight.shape[0] // self.classes))
        shift = logits - xp.max(logits, axis=1, keepdims=True)
        surest = xp.mean(1 / xp.sum(xp.exp(shift), axis=1), axis=-1)
        first, second = self.lambdas
        return self.features.divergence(f) + first * self.projections.divergence(projected) - second * surest

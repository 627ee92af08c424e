"""Decisions over a batch: which images to trust as unknown, and a bound that holds for any later choice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..errors import OptionError
from .conformal import percent
from .counts import at_least, checked_p, checked_share

METHODS = ("storey", "bh")
LEVELS = 64  # p-values at which the simultaneous bound looks
DRAWS = 4999  # of the joint law, to find what each level may spend


@dataclass(frozen=True)
class Selection:
    """Images selected as unknown so that on average at most a share `fdr` of the selected ones is known."""

    selected: np.ndarray  # [n] bool; False where unreadable
    q_value: np.ndarray  # [n] float64: the smallest fdr at which the image is selected; NaN where unreadable
    fdr: float
    method: str
    known_share: float  # of the batch, as the method estimates it (1 for "bh")
    images: int  # readable ones
    calibration: int  # images
    needed: int  # so many images at least are selected at once, or none

    @property
    def count(self) -> int:
        return int(self.selected.sum())

    @property
    def rows(self) -> np.ndarray:
        """Indices of the selected images, the smallest q-value first, [k] int64."""
        chosen = np.flatnonzero(self.selected)
        return chosen[np.argsort(self.q_value[chosen], kind="stable")]

    @property
    def sentence(self) -> str:
        """What was selected and what that means, for people."""
        with_ = f"with {self.calibration:,} calibration images and {self.images:,} incoming ones"
        if self.count:
            return (
                f"{self.count:,} of {self.images:,} images are selected as unknown; on average at most "
                f"{percent(self.fdr)} of the selected ones are known"
            )
        if not self.images:
            return "there are no readable images to select from"
        if self.needed > self.images:
            return (
                f"nothing can be selected: {with_}, {percent(self.fdr)} cannot be promised of any selection; at least "
                f"{images_for_one(self.images, self.fdr):,} calibration images let even one image be selected"
            )
        return (
            f"nothing is selected: {with_}, at least {self.needed:,} must look stranger than every calibration image "
            f"to promise {percent(self.fdr)}; with {images_for_one(self.images, self.fdr):,} calibration images one "
            "suffices"
        )


def select(p: np.ndarray, calibration: int, *, fdr: float = 0.1, method: str = "storey") -> Selection:
    """Benjamini & Hochberg's procedure on split-conformal p-values [n] (NaN: unreadable, left out).

    calibration: how many images the p-values were computed against. method "bh": as published; "storey": its level
    divided by Storey's estimate of the share of known images, (1 + #{p > 1/2}) / (m / 2), never above 1. Either
    holds E[known among selected / selected] <= fdr for known images exchangeable with the calibration images, though
    the p-values depend on each other through that set (Bates, Candès, Lei, Romano & Sesia, Annals of Statistics 2023,
    arXiv:2104.08279, theorems 2 and 3). Raises OptionError, CalibrationError.
    """
    from scipy.stats import false_discovery_control

    checked_share("fdr", fdr)
    if method not in METHODS:
        raise OptionError(f"method={method!r}: expected one of {', '.join(METHODS)}.")
    p = np.asarray(p, dtype=np.float64)
    fine = checked_p(p, calibration)
    m = len(fine)
    known = min(1.0, 2 * (1 + int((fine > 0.5).sum())) / m) if method == "storey" and m else 1.0
    q = np.full(len(p), np.nan)
    if m:
        q[~np.isnan(p)] = np.minimum(known * false_discovery_control(fine, method="bh"), 1.0)
    needed = math.ceil(m * known / (fdr * (calibration + 1)) - 1e-9)
    chosen = np.nan_to_num(q, nan=np.inf) <= fdr * (1 + 1e-12)
    return Selection(
        selected=chosen,
        q_value=q,
        fdr=float(fdr),
        method=method,
        known_share=known,
        images=m,
        calibration=calibration,
        needed=max(1, needed),
    )


def images_for_one(images: int, fdr: float) -> int:
    """Calibration images with which one strange image among `images` can be selected."""
    return max(1, math.ceil(images / fdr - 1 - 1e-9))


@dataclass(frozen=True)
class KnownBound:
    """With `confidence`, for all choices of images at once: at most so many of the chosen ones are known.

    Of any choice S: min over levels j of c_j + #{i in S: p_i > t_j}, where at most c_j known images have p <= t_j.
    """

    p: np.ndarray  # [n] float64, NaN where unreadable
    levels: np.ndarray  # [l] float64: t_j
    allowed: np.ndarray  # [l] int64: c_j
    known: int  # at most so many of all the readable images are known
    confidence: float

    def among(self, chosen: np.ndarray) -> int:
        """Of these images (indices, or a mask [n] of bool) at most so many are known."""
        p = self.p[np.asarray(chosen)]
        p = p[~np.isnan(p)]
        above = len(p) - np.searchsorted(np.sort(p), self.levels, side="right")
        return int(min((self.allowed + above).min(initial=self.known), len(p), self.known))

    def curve(self) -> np.ndarray:
        """Of the k images with the smallest p-values at most so many are known, for k = 1 … m, [m] int64."""
        p = np.sort(self.p[~np.isnan(self.p)])
        k = np.arange(1, len(p) + 1)
        below = np.searchsorted(p, self.levels, side="right")
        bound = np.minimum(k, self.known)
        for c, n in zip(self.allowed, below, strict=True):
            bound = np.minimum(bound, c + np.maximum(k - n, 0))
        return bound

    def largest(self, share: float) -> int:
        """The most images, in the order of their p-values, of which at most this share is known; 0 when none."""
        bound = self.curve()
        good = np.flatnonzero(bound <= share * np.arange(1, len(bound) + 1) + 1e-9)
        return int(good[-1]) + 1 if len(good) else 0

    def some(self, most: int) -> list[tuple[int, int]]:
        """[(k, of the k strangest images at most so many are known)] for round k up to `most` images, where that says
        something."""
        curve = self.curve()
        most = min(most, len(curve))
        ks = sorted({k for k in (10, 20, 40, 100, 200, 400, 1000, 2000, 4000, 10_000) if k < most} | {most} - {0})
        return [(k, int(curve[k - 1])) for k in ks if curve[k - 1] < k]

    def sentence(self, k: int) -> str:
        """The bound on the k strangest, in words."""
        bound = int(self.curve()[k - 1]) if k else 0
        return f"of the {k:,} strangest images at most {bound:,} are known ({percent(self.confidence)} confidence)"


def known_bound(p: np.ndarray, calibration: int, *, confidence: float = 0.95, seed: int = 0) -> KnownBound:
    """A bound on known images among any images that one picks, after having looked at all of them.

    p: split-conformal p-values [n]. The counts V_j of known images with p <= j / (n + 1) follow a known joint law (see
    `counts`); each is bounded by a quantile of its own law, all at one level, which is found by drawing from the joint
    law so that all bounds hold together with `confidence` (simultaneous bounds as in Bates et al. 2023, section 4, and
    Gazin, Blanchard & Roquain, AISTATS 2024, with quantiles in place of a band of one width). How many of the images
    are known is at first taken to be all of them, then bounded by the same event. The draws are those of `seed`.
    """
    checked_share("confidence", confidence)
    p = np.asarray(p, dtype=np.float64)
    fine = np.sort(checked_p(p, calibration))
    m, n = len(fine), calibration
    ranks = _ranks(n)
    levels = ranks / (n + 1) * (1 + 1e-12)
    if not m:
        return KnownBound(p=p, levels=levels, allowed=np.zeros(len(ranks), np.int64), known=0, confidence=confidence)
    spend = min(_spend(u, n, 1 - confidence, seed) for u in sorted({m, -(-m // 4), -(-m // 16)}))
    above = m - np.searchsorted(fine, levels, side="right")
    known = m
    while True:
        allowed = _allowed(known, n, spend)
        fewer = int(min(known, (allowed + above).min()))
        if fewer >= known:
            return KnownBound(p=p, levels=levels, allowed=allowed, known=known, confidence=confidence)
        known = fewer


def _ranks(n: int) -> np.ndarray:
    """The levels j at which the bound looks, close together where p-values are small, [l]."""
    return np.unique(np.round(np.geomspace(1, n, LEVELS)).astype(np.int64))


@lru_cache(maxsize=4096)
def _allowed(u: int, n: int, spend: float) -> np.ndarray:
    """The smallest c with P(V_j > c) <= spend, for u known images, [l]."""
    tails = (at_least(u, j, n + 1 - j) for j in _ranks(n))
    return np.array([int(np.argmax(tail <= spend)) - 1 for tail in tails], dtype=np.int64)


@lru_cache(maxsize=64)
def _spend(u: int, n: int, error: float, seed: int) -> float:
    """What each level may spend so that some V_j is above its bound with probability at most `error`.

    Draws of the smallest tail probability; the one of rank error (draws + 1), so that drawing costs no validity.
    """
    rng, ranks = np.random.default_rng([seed, u, n]), _ranks(n)
    steps = np.diff(np.append(ranks, n + 1), prepend=0)
    rates = rng.standard_gamma(steps, (DRAWS, len(steps)))
    counts = np.cumsum(rng.multinomial(u, rates / rates.sum(axis=1, keepdims=True)), axis=1)
    smallest = np.ones(DRAWS)
    for column, j in enumerate(ranks):
        smallest = np.minimum(smallest, at_least(u, j, n + 1 - j)[counts[:, column]])
    return float(np.nextafter(np.sort(smallest)[max(0, math.floor(error * (DRAWS + 1)) - 1)], 0))

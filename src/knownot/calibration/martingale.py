"""Bets against "nothing has changed": evidence that may be looked at after every image, for ever.

Each bet's capital starts at 1 and is a nonnegative supermartingale as long as nothing has changed, so that it ever
reaches 1 / error with probability at most `error` (Ville 1939). All capitals are kept as logarithms; the state is
nothing but counts and capitals. Leading axes of the state are streams, so that many can be run side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import CalibrationError

SETTLED = 250  # images: see `speed`
REACTS = 0.9  # share of the capital on the jumpers; the rest is on the Beta mixtures
RATES = np.array([1.0, 1.5, 2.5, 5.0, 12.0, 30.0])  # of flags, in units of the promised one
FRACTIONS = (256, 64, 16, 4)  # flagged are images stranger than about n / 256, … of the calibration images
ENDS = 1 / np.array(FRACTIONS)
SHAPES = ((1, 1, 1, 1), (0, 1, 2, 1))  # of unknown images' p-values: weights of uniform laws up to ENDS
SHARES = (0.015, 0.04, 0.1, 0.25, 0.6, 0.95)  # of unknown images
SLOPES = np.array([-1.8, -0.9, 0.0, 0.9, 1.8])  # of the densities that are bet on
BINS = 1024
SMALLEST = 40  # calibration images


def pac_levels(n: int, delta: float) -> tuple[np.ndarray, np.ndarray]:
    """(thresholds, rates), both [l]: with confidence 1 - delta over the calibration set, all at once, known images have
    P(p <= threshold) <= rate.

    Given the calibration set, P(p <= k / (n + 1)) follows Beta(k, n + 1 - k) (Vovk 2012, arXiv:1209.2673), so the rate
    is a quantile of it, at delta divided among the levels. Several levels, because few very strange images and many
    somewhat strange ones are seen best at different ones. Raises CalibrationError when n is too small.
    """
    from scipy.special import betaincinv

    if n < SMALLEST:
        raise CalibrationError(
            f"{n} calibration images are too few to watch a stream: at least {SMALLEST} are needed, and with some "
            "hundreds alarms come much earlier."
        )
    ranks = np.unique([max(1, round(n / f)) for f in FRACTIONS])
    rates = np.array([betaincinv(k, n + 1 - k, 1 - delta / len(ranks)) for k in ranks])
    return ranks / (n + 1) * (1 + 1e-12), rates


def speed(images: np.ndarray | int) -> np.ndarray:
    """How much of the capital moves between the bets after so many images.

    At a constant speed a quiet stream loses capital exponentially, and after 50,000 images a change is told thousands
    of images later. At 1 / (2 (t + 250)) the capital falls as the root of t only, and a bet that begins to win after t
    images has begun with a share of some t^-3/2 of it: a logarithm more of evidence.
    """
    return 0.5 / (np.asarray(images, dtype=np.float64) + SETTLED)


def jump(
    shares: np.ndarray,
    log_capital: np.ndarray,
    factors: np.ndarray,
    speed: float | np.ndarray,
    onto: np.ndarray | None = None,
) -> np.ndarray:
    """One image of a jumper (Vovk, Petej, Nouretdinov, Ahlberg, Carlsson & Gammerman 2021, "Retrain or not retrain").

    shares [..., k] of the capital on each of k bets, factors [..., k] by which each bet's capital grows, log_capital
    [...]; both are changed in place. onto: how what moves is shared out, [k], equally when left out. Returns
    log_capital.
    """
    shares *= 1 - speed
    shares += speed * (1 / shares.shape[-1] if onto is None else onto)  # they sum to 1
    shares *= factors
    total = shares.sum(axis=-1, keepdims=True)
    shares /= total
    log_capital += np.log(total[..., 0])
    return log_capital


def beta_mixture(flags: np.ndarray, images: np.ndarray, rate: float | np.ndarray) -> np.ndarray:
    """log of the capital of bets on all rates above `rate`, mixed uniformly, from counts of flags and images.

    It depends on counts only, so it is the same in any order, and counts of several streams may be added.
    """
    from scipy.special import betainc, betaln

    s, t = np.asarray(flags, dtype=np.float64), np.asarray(images, dtype=np.float64)
    tail = betainc(t - s + 1, s + 1, 1 - rate)  # P(Beta(s + 1, t - s + 1) > rate)
    with np.errstate(divide="ignore", invalid="ignore"):
        log = betaln(s + 1, t - s + 1) + np.log(tail) - np.log1p(-rate) - s * np.log(rate) - (t - s) * np.log1p(-rate)
        # where that is too small for floating point, the capital falls steeply from 1 at theta = rate: by Laplace, with
        # the next term, which is negative
        slope, bend = (t - s) / (1 - rate) - s / rate, (t - s) / (1 - rate) ** 2 + s / np.square(rate)
        steep = -np.log(slope) + np.log1p(-bend / slope**2) - np.log1p(-rate)
    return np.where(tail > 1e-290, log, steep)


@dataclass
class FlagBets:
    """Bets on more images that look strange than the calibration set allows, at each level of `pac_levels`.

    Given the calibration set, P(p <= threshold) <= rate for known images, so products of theta / rate for flagged and
    (1 - theta) / (1 - rate) for other images are supermartingales for theta >= rate. At each level most of the capital
    is on a jumper over six rates, which reacts fast; the rest on the Beta mixture, which merges.
    """

    thresholds: np.ndarray  # [l]
    rates: np.ndarray  # [l]
    shares: np.ndarray  # [..., l, 6]
    log_jumper: np.ndarray  # [..., l]
    flags: np.ndarray  # [..., l] int64
    images: np.ndarray  # [...] int64

    @classmethod
    def start(cls, thresholds: np.ndarray, rates: np.ndarray, streams: tuple[int, ...] = ()) -> FlagBets:
        shape = (*streams, len(rates))
        shares = np.full((*shape, len(RATES)), 1 / len(RATES))
        return cls(thresholds, rates, shares, np.zeros(shape), np.zeros(shape, np.int64), np.zeros(streams, np.int64))

    def __post_init__(self) -> None:
        rate = self.rates[:, None]
        theta = np.minimum(rate * RATES, (1 + rate) / 2)
        self._won, self._lost = theta / rate, (1 - theta) / (1 - rate)

    def step(self, p: np.ndarray | float) -> np.ndarray:
        """log capital [...] after one more image of each stream, p-values [...]."""
        flag = np.asarray(p)[..., None] <= self.thresholds
        factors = np.where(flag[..., None], self._won, self._lost)
        jump(self.shares, self.log_jumper, factors, speed(self.images)[..., None, None])
        self.flags += flag
        self.images += 1
        return self.log_capital

    @property
    def log_levels(self) -> np.ndarray:
        """log capital at each level, [..., l]."""
        return np.logaddexp(self.log_jumper + math.log(REACTS), self.log_mixtures + math.log1p(-REACTS))

    @property
    def log_capital(self) -> np.ndarray:
        return np.logaddexp.reduce(self.log_levels, axis=-1) - math.log(len(self.rates))

    @property
    def log_mixtures(self) -> np.ndarray:
        """log capital of the Beta mixture at each level, [..., l]."""
        return beta_mixture(self.flags, np.asarray(self.images)[..., None], self.rates)

    @property
    def log_merging(self) -> np.ndarray:
        """log capital of the Beta mixtures alone, [...]: those of several streams merge by adding their counts."""
        return np.logaddexp.reduce(self.log_mixtures, axis=-1) - math.log(len(self.rates))


@dataclass
class Ranks:
    """Where each number stands among all before it: p-values that are independent and uniform if nothing changes.

    Numbers are counted in bins, so memory does not grow with the stream; ties within a bin are broken at random, which
    keeps the p-values exactly uniform whatever the bins (Vovk, Gammerman & Shafer 2005, theorem 2.8). The bins' edges
    must not come from numbers that are counted. A p-value against a fixed calibration set will not do: given the set it
    is not uniform, and a long stream finds that out.
    """

    edges: np.ndarray  # [b] float64, ascending
    counts: np.ndarray  # [b + 1] int64, of the numbers so far
    seed: int = 0
    drawn: int = 0  # random numbers used

    def __post_init__(self) -> None:
        self._next = -1
        self._generator = np.random.default_rng()  # replaced before it is used

    @classmethod
    def start(cls, scores: np.ndarray, seed: int = 0, *, one_of: int = 2) -> Ranks:
        """From scores [m] of known images: one of two, or more, drawn by `seed`, makes an edge, the others are
        counted."""
        scores = np.random.default_rng(seed).permutation(np.sort(np.asarray(scores, dtype=np.float64)))
        few = len(scores) // one_of
        edges = np.sort(scores[:few])
        if len(edges) > BINS - 1:
            edges = edges[np.linspace(0, len(edges) - 1, BINS - 1).round().astype(np.int64)]
        ranks = cls(edges, np.zeros(len(edges) + 1, np.int64), seed)
        np.add.at(ranks.counts, ranks._bins(scores[few:]), 1)
        return ranks

    def forget(self) -> None:
        """Begin again with an empty past: what comes is compared with what comes."""
        self.counts[:] = 0

    def add(self, scores: np.ndarray) -> np.ndarray:
        """p-values [n] in (0, 1) of scores [n], one after the other; large scores give small ones."""
        bins = self._bins(np.asarray(scores, dtype=np.float64))
        p = np.empty(len(bins))
        for start in range(0, len(bins), 512):
            part = bins[start : start + 512]
            p[start : start + 512] = self._add(part)
        return p

    def _add(self, bins: np.ndarray) -> np.ndarray:
        n = len(bins)
        earlier = np.tri(n, k=-1, dtype=bool)
        above = self.counts[::-1].cumsum()[::-1][bins] - self.counts[bins]
        above = above + (earlier & (bins[None, :] > bins[:, None])).sum(axis=1)
        equal = self.counts[bins] + (earlier & (bins[None, :] == bins[:, None])).sum(axis=1) + 1
        past = self.counts.sum() + np.arange(1, n + 1)
        np.add.at(self.counts, bins, 1)
        return np.clip((above + self._random(n) * equal) / past, 1e-12, 1 - 1e-12)

    def _random(self, n: int) -> np.ndarray:
        """The next n random numbers: the same however the stream is cut, and after a state is read again."""
        if self._next != self.drawn:
            source = np.random.PCG64(self.seed)
            source.advance(self.drawn)
            self._generator, self._next = np.random.Generator(source), self.drawn
        self.drawn += n
        self._next = self.drawn
        return self._generator.random(n)

    def _bins(self, scores: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.edges, scores, side="left")


def _densities() -> np.ndarray:
    """Of p-values that are bet on, in the intervals that end at ENDS and at 1, [l + 1, k]: uniform, and for
    each share and shape that share of unknown images among known ones. Each column integrates to 1."""
    columns = [np.ones(len(ENDS) + 1)]
    for shape in SHAPES:
        heights = np.array(shape) / sum(shape) / ENDS
        unknown = np.append(heights[::-1].cumsum()[::-1], 0.0)
        columns += [1 - share + share * unknown for share in SHARES]
    return np.stack(columns, axis=1)


@dataclass
class TailBets:
    """Bets on more small p-values than uniform ones: unknown images of several kinds and shares, a jumper over them.

    For p-values among all images so far (`Ranks`), which are exactly uniform as long as nothing changes: unlike
    `FlagBets` these bets pay nothing for a calibration set that is finite, and so react much faster to a change;
    but images that came before are all that they know, so of what was there from the first image on they see little.
    Half of what moves goes to the bet that nothing has changed, so that a quiet stream costs little.
    """

    shares: np.ndarray  # [..., 13]
    log_capital: np.ndarray  # [...]
    images: np.ndarray  # [...] int64

    DENSITIES: ClassVar[np.ndarray] = _densities()

    @classmethod
    def start(cls, streams: tuple[int, ...] = ()) -> TailBets:
        shares = np.broadcast_to(cls.prior(), (*streams, cls.DENSITIES.shape[1])).copy()
        return cls(shares, np.zeros(streams), np.zeros(streams, np.int64))

    @classmethod
    def prior(cls) -> np.ndarray:
        k = cls.DENSITIES.shape[1] - 1
        return np.append(0.5, np.full(k, 0.5 / k))

    def step(self, p: np.ndarray | float) -> np.ndarray:
        """log capital [...] after one more p-value of each stream, p [...]."""
        factors = self.DENSITIES[np.searchsorted(ENDS, p)]
        jump(self.shares, self.log_capital, factors, speed(self.images)[..., None], self.prior())
        self.images += 1
        return self.log_capital


@dataclass
class RankBets:
    """A bet on p-values that are not uniform: the simple jumper over densities 1 + slope (p - 1/2)."""

    shares: np.ndarray  # [..., 5]
    log_capital: np.ndarray  # [...]
    images: np.ndarray  # [...] int64

    @classmethod
    def start(cls, streams: tuple[int, ...] = ()) -> RankBets:
        k = len(SLOPES)
        return cls(np.full((*streams, k), 1 / k), np.zeros(streams), np.zeros(streams, np.int64))

    def step(self, p: np.ndarray | float) -> np.ndarray:
        """log capital [...] after one more p-value of each stream, p [...]."""
        factors = 1 + SLOPES * (np.asarray(p)[..., None] - 0.5)
        jump(self.shares, self.log_capital, factors, speed(self.images)[..., None])
        self.images += 1
        return self.log_capital

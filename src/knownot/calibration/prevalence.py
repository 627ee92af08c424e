"""How much of a batch is unknown: an estimate with a confidence interval, from unlabelled images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .conformal import percent
from .counts import at_most, checked_p, checked_share
from .fdr import known_bound


@dataclass(frozen=True)
class UnknownShare:
    """The share of images that look unknown. Unknown images that look known to the detector are in no such number."""

    estimate: float
    low: float  # two-sided, with `confidence`
    high: float
    at_least: float  # one-sided, with `confidence`: holds for the true share of unknown images
    confidence: float
    images: int  # readable ones
    calibration: int  # images
    above: float  # images with p above this are taken to be known

    @property
    def sentence(self) -> str:
        """The estimate, for people."""
        if not self.images:
            return "there are no readable images"
        return (
            f"about {percent(self.estimate)} of {self.images:,} images look unknown (between {percent(self.low)} and "
            f"{percent(self.high)}, {percent(self.confidence)} confidence); unknown images that look known are not "
            "counted"
        )


def unknown_share(p: np.ndarray, calibration: int, *, confidence: float = 0.95, above: float = 0.5) -> UnknownShare:
    """From split-conformal p-values [m] (NaN: unreadable, left out) against `calibration` images.

    Of u known images, those with p > j / (n + 1) follow a Beta-binomial law of u trials with rate Beta(n + 1 - j, j)
    (see `counts`). The upper limit inverts it: the fewest known images for which so many large p-values are not
    improbable. The lower limits are those of `known_bound`, which inverts the laws at all levels of p at once. All hold
    for any number of images and of calibration images. The lower limits hold for the true share whatever unknown images
    look like; the upper one for the share that looks unknown: it takes images with p > `above` to be known. Raises
    OptionError, CalibrationError.
    """
    checked_share("confidence", confidence)
    checked_share("above", above)
    fine = checked_p(p, calibration)
    m, n = len(fine), calibration
    if not m:
        return UnknownShare(
            estimate=math.nan,
            low=0.0,
            high=1.0,
            at_least=0.0,
            confidence=confidence,
            images=0,
            calibration=n,
            above=above,
        )
    j = min(n, max(1, math.floor(above * (n + 1) + 1e-9)))
    seen = int((fine > j / (n + 1) * (1 + 1e-12)).sum())
    rate = (n + 1 - j) / (n + 1)
    error = 1 - confidence
    low = 1 - known_bound(fine, n, confidence=1 - error / 2).known / m
    high = 1 - _fewest(seen, m, n, j, error / 2) / m
    if high < low:  # more small p-values than known images give, but no lack of large ones: some unknown have those
        high = 1.0
    return UnknownShare(
        estimate=float(np.clip(1 - seen / (rate * m), low, high)),
        low=low,
        high=high,
        at_least=1 - known_bound(fine, n, confidence=confidence).known / m,
        confidence=confidence,
        images=m,
        calibration=n,
        above=above,
    )


def _fewest(seen: int, m: int, n: int, j: int, error: float) -> int:
    """The smallest number of known images for which so many with a large p-value are not improbable."""
    low, high = seen - 1, m  # not; plausible, or the most there can be
    while high - low > 1:
        u = (low + high) // 2
        low, high = (low, u) if 1 - at_most(seen - 1, u, n + 1 - j, j) > error else (u, high)
    return high

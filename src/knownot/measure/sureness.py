"""Whether a classifier is as often right as it is sure. c classes, n images.

confidence [n]: the largest softmax probability; right [n] bool: whether that class is the true one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError

BINS = 15  # as in most papers since Guo et al. 2017
LOWEST, HIGHEST = 0.01, 100.0  # temperatures


@dataclass(frozen=True)
class Bin:
    """Images of a span of confidence: how sure they are on average, and how many of them are right."""

    low: float
    high: float
    images: int
    confidence: float
    right: int


def equal_width(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> tuple[Bin, ...]:
    """Bins (low, high] of equal width from 0 to 1; those without images are left out."""
    confidence, right = _pair(confidence, right)
    edges = np.linspace(0.0, 1.0, bins + 1)
    # A confidence of 0 belongs to the first bin. np.searchsorted on the edges themselves: no arithmetic that rounds.
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    return tuple(
        _bin(confidence[place == i], right[place == i], edges[i], edges[i + 1])
        for i in range(bins)
        if (place == i).any()
    )


def equal_count(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> tuple[Bin, ...]:
    """Bins of as equal numbers of images as can be; equal confidences stay together, so that the order of images does
    not matter."""
    confidence, right = _pair(confidence, right)
    if not len(confidence):
        return ()
    _, index, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    first = np.cumsum(counts) - counts  # images before each value
    place = np.minimum((first + (counts - 1) / 2) * bins // len(confidence), bins - 1).astype(int)[index]
    made = []
    for i in np.unique(place):
        mine = confidence[place == i]
        made.append(_bin(mine, right[place == i], float(mine.min()), float(mine.max())))
    return tuple(made)


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """ECE: sum over bins of their share of images times |right - confidence| (Naeini et al. 2015; Guo et al. 2017,
    arXiv:1706.04599, eq. 3). With bins of equal count it is the adaptive one (Nguyen & O'Connor 2015). NaN without
    images.
    """
    n = sum(b.images for b in bins)
    if not n:
        return float("nan")
    return float(sum(abs(b.right - b.images * b.confidence) for b in bins) / n)


def calibration_error_by_chance(
    confidence: np.ndarray, bins: int = BINS, *, adaptive: bool = False, draws: int = 200, seed: int = 0
) -> tuple[float, float]:
    """(mean, 95 % quantile) of the ECE that a perfectly calibrated classifier of these confidences would show.

    ECE is never negative, so few images make it large by chance alone. Consistency resampling: Bröcker & Smith, Weather
    and Forecasting 2007, 22:651.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    if not len(confidence):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    cut = equal_count if adaptive else equal_width
    found = [calibration_error(cut(confidence, rng.random(len(confidence)) < confidence, bins)) for _ in range(draws)]
    return float(np.mean(found)), float(np.quantile(found, 0.95))


def temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The T for which softmax(logits / T) has the least negative log-likelihood (Guo et al. 2017), within 0.01 to 100.

    logits [n, c]; labels [n], -1 for none. Logits need be known only up to a constant per image. None where every image
    is right, or there is none: then nothing bounds T from below.
    """
    from scipy.optimize import minimize_scalar

    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    logits, labels = logits[labels >= 0], labels[labels >= 0]
    if not len(labels) or (logits.argmax(axis=1) == labels).all():
        return None

    best = minimize_scalar(
        lambda log_t: log_loss(logits / np.exp(log_t), labels),
        bounds=np.log([LOWEST, HIGHEST]), method="bounded", options={"xatol": 1e-8},
    )  # fmt: skip
    return float(np.exp(best.x))


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood of the labels [n] under softmax(logits [n, c]), in nats."""
    logits = np.asarray(logits, dtype=np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    truth = logits[np.arange(len(labels)), labels]
    return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - truth))


def _bin(confidence: np.ndarray, right: np.ndarray, low: float, high: float) -> Bin:
    return Bin(
        low=float(low),
        high=float(high),
        images=len(confidence),
        confidence=float(confidence.mean()),
        right=int(right.sum()),
    )


def _pair(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=bool)
    if confidence.ndim != 1 or confidence.shape != right.shape:
        raise InputError(
            f"Confidences of shape {confidence.shape}, answers of shape {right.shape}: expected one of each per image."
        )
    if len(confidence) and not ((confidence >= 0) & (confidence <= 1)).all():
        raise InputError(
            f"Confidences from {confidence.min():.3g} to {confidence.max():.3g}: expected probabilities, none NaN."
        )
    return confidence, right

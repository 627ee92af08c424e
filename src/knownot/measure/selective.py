"""Selective classification: what a classifier gets wrong when it may stay silent on the images that look most unknown.

scores [n]: larger = more unknown, so the first to be left unanswered; right [n] bool: whether the class is the true
one.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError


def risk_coverage(scores: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(coverage [n], risk [n]): the share of images answered, 1/n to 1, and the share of wrong answers among them.

    Images of one score come in no order: the risk within them is what a random order has on average, so that the curve
    does not depend on the order of the images. Raises InputError without images or for NaN.
    """
    scores, right = np.asarray(scores, np.float64).ravel(), np.asarray(right, bool).ravel()
    if not len(scores) or len(scores) != len(right) or np.isnan(scores).any():
        raise InputError(f"{len(scores)} scores, {len(right)} answers: expected one of each per image, none NaN.")
    _, group, count = np.unique(scores, return_inverse=True, return_counts=True)
    wrong = np.bincount(group, weights=~right)
    rate = (wrong / count)[np.repeat(np.arange(len(count)), count)]
    answered = np.arange(1, len(scores) + 1)
    return answered / len(scores), np.cumsum(rate) / answered


def aurc(scores: np.ndarray, right: np.ndarray) -> float:
    """Mean of the risk over all coverages (Geifman & El-Yaniv, NeurIPS 2017, arXiv:1705.08500); lower is better."""
    return float(risk_coverage(scores, right)[1].mean())


def excess_aurc(scores: np.ndarray, right: np.ndarray) -> float:
    """E-AURC: `aurc` less that of the best order of the same answers, all right ones first (Geifman et al., ICLR 2019,
    arXiv:1805.08206, whose logarithm is the limit for many images; here the exact sum)."""
    right = np.asarray(right, bool).ravel()
    return aurc(scores, right) - aurc(~right, right)

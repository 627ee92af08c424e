"""All metrics of two sets of scores from one sort, for tables of many detectors and sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .metrics import _at_least, _right, _scores


@dataclass(frozen=True)
class Curve:
    """What every threshold does, the largest first: an image is called unknown at a score of at least that.

    threshold [k]: the different scores. caught, alarms [k]: how many of the n unknown and of the m known images are
    called unknown.
    """

    threshold: np.ndarray
    caught: np.ndarray
    alarms: np.ndarray
    n: int
    m: int


def curve(known: np.ndarray, unknown: np.ndarray) -> Curve:
    """Of scores [m], [n]. Raises InputError without any, or for NaN."""
    known, unknown = _scores(known, unknown)
    steps, place = np.unique(np.concatenate([known, unknown]), return_inverse=True)
    alarms, caught = (
        np.cumsum(np.bincount(part, minlength=len(steps))[::-1]) for part in (place[: len(known)], place[len(known) :])
    )
    return Curve(threshold=steps[::-1], caught=caught, alarms=alarms, n=len(unknown), m=len(known))


def all_metrics(known: np.ndarray, unknown: np.ndarray, right: np.ndarray | None = None) -> dict[str, float]:
    """{the name of each function of this package that takes two sets of scores: its value}.

    right [m] bool: whether the class of a known image is the true one; without it what needs it is NaN.
    """
    c = curve(known, unknown)
    before = np.append(0, c.alarms[:-1])
    caught_now, alarms_now = np.diff(c.caught, prepend=0), np.diff(c.alarms, prepend=0)
    precision = c.caught / (c.caught + c.alarms)
    # The other way round: of the images accepted at a threshold, the share that is known.
    kept, passed = c.m - before, c.n - np.append(0, c.caught[:-1])
    known_precision = kept / (kept + passed)
    at = int(np.searchsorted(c.caught, _at_least(0.95, c.n)))
    accepted = c.m - c.alarms  # strictly below each threshold; the threshold above is the largest of these accepted
    first = int(np.searchsorted(-accepted, -_at_least(0.95, c.m), side="right")) - 1
    found = {
        "auroc": float((caught_now * (2 * c.m - c.alarms - before)).sum() / (2 * c.n * c.m)),
        "aupr_unknown": float((caught_now * precision).sum() / c.n),
        "aupr_known": float((alarms_now * known_precision).sum() / c.m),
        "aupr_unknown_trapezoid": _trapezoids(c.caught / c.n, precision),
        "aupr_known_trapezoid": _trapezoids(kept[::-1] / c.m, known_precision[::-1]),
        "fpr_at_95_unknown_recall": float(c.alarms[at] / c.m),
        "fpr_at_95_known_recall": float((c.n - (c.caught[first] if first >= 0 else 0)) / c.n),
    }
    return found | _classify(c, *_scores(known, unknown), right)


def _classify(c: Curve, known: np.ndarray, unknown: np.ndarray, right: np.ndarray | None) -> dict[str, float]:
    names = ("oscr", "ccr_at_fpr_0.1", "ccr_at_fpr_0.01")
    if right is None:
        return dict.fromkeys(names, float("nan"))
    right = _right(known, right)
    place = np.searchsorted(-c.threshold, -known)
    hits = np.bincount(place[right], minlength=len(c.threshold))
    above = np.append(0, c.caught[:-1]) + np.diff(c.caught, prepend=0) / 2
    values = [float((hits * above).sum() / (c.m * c.n))]
    for fpr in (0.1, 0.01):
        allowed = int(np.floor(fpr * c.n + 1e-9))
        fine = c.n - c.caught <= allowed  # of the unknown images strictly below each threshold
        below = np.append(np.cumsum(hits[::-1])[::-1][1:], 0)
        values.append(float(below[fine].max(initial=0) / c.m) if allowed < c.n else float(right.mean()))
    return dict(zip(names, values, strict=True))


def _trapezoids(recall: np.ndarray, precision: np.ndarray) -> float:
    recall, precision = np.append(0.0, recall), np.append(1.0, precision)
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))

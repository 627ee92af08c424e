"""How well scores separate known from unknown images. Larger score = more unknown; unknown is the positive class.

All are exact (no binned thresholds) and count ties as the decision rule would.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """Probability that a random unknown image scores above a random known one, ties counting one half.

    known [m], unknown [n]: scores. The Mann-Whitney statistic divided by m n.
    """
    known, unknown = _scores(known, unknown)
    ordered = np.sort(known)
    below = np.searchsorted(ordered, unknown, side="left")
    up_to = np.searchsorted(ordered, unknown, side="right")
    return float((below + up_to).sum() / (2 * len(known) * len(unknown)))


def fpr_at_95_unknown_recall(known: np.ndarray, unknown: np.ndarray, recall: float = 0.95) -> float:
    """Share of known images rejected when at least 95 % of the unknown ones are (OpenOOD's FPR@95)."""
    known, unknown = _scores(known, unknown)
    threshold = np.sort(unknown)[len(unknown) - _at_least(recall, len(unknown))]
    return float((known >= threshold).mean())


def fpr_at_95_known_recall(known: np.ndarray, unknown: np.ndarray, recall: float = 0.95) -> float:
    """Share of unknown images accepted when at least 95 % of the known ones are (the ODIN paper's FPR@95)."""
    known, unknown = _scores(known, unknown)
    threshold = np.sort(known)[_at_least(recall, len(known)) - 1]
    return float((unknown <= threshold).mean())


def aupr_unknown(known: np.ndarray, unknown: np.ndarray) -> float:
    """Average precision with unknown images as positives, tied scores taken as one step."""
    known, unknown = _scores(known, unknown)
    recall, precision = _precision_recall(known, unknown)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def aupr_known(known: np.ndarray, unknown: np.ndarray) -> float:
    """Average precision with known images as positives, the least unknown first, tied scores taken as one step."""
    known, unknown = _scores(known, unknown)
    return aupr_unknown(-unknown, -known)


def aupr_unknown_trapezoid(known: np.ndarray, unknown: np.ndarray) -> float:
    """Area under the precision-recall curve of unknown images by trapezoids: OpenOOD's AUPR_OUT.

    Straight lines between the points of the curve are more than any threshold reaches (Davis & Goadrich, ICML 2006), so
    with few different scores it is up to some hundredths above the average precision of `aupr_unknown`.
    """
    recall, precision = _precision_recall(*_scores(known, unknown))
    recall, precision = np.append(0.0, recall), np.append(1.0, precision)
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))


def aupr_known_trapezoid(known: np.ndarray, unknown: np.ndarray) -> float:
    """The same with known images as positives: OpenOOD's AUPR_IN."""
    known, unknown = _scores(known, unknown)
    return aupr_unknown_trapezoid(-unknown, -known)


def ccr_at_fpr(known: np.ndarray, right: np.ndarray, unknown: np.ndarray, fpr: float) -> float:
    """The largest share of known images both accepted and classified right, when at most a share `fpr` of the unknown
    ones is accepted (Dhamija et al., NeurIPS 2018, arXiv:1811.04110). right [m] bool: whether the class is the true
    one.

    Where fpr * n is a whole number, old versions of OpenOOD accept one unknown image fewer.
    """
    known, unknown = _scores(known, unknown)
    right = _right(known, right)
    allowed = int(np.floor(fpr * len(unknown) + 1e-9))
    if allowed >= len(unknown):
        return float(right.mean())
    return float((right & (known < np.partition(unknown, allowed)[allowed])).mean())


def oscr(known: np.ndarray, right: np.ndarray, unknown: np.ndarray) -> float:
    """Area under the curve of correct classification (CCR) over false acceptance (FPR) of Dhamija et al. 2018.

    It is the probability that a known image is classified right and scores below an unknown one, ties counting one
    half: at most the accuracy.
    """
    known, unknown = _scores(known, unknown)
    right = _right(known, right)
    return float(auroc(known[right], unknown) * right.mean()) if right.any() else 0.0


def _precision_recall(known: np.ndarray, unknown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(recall, precision) of unknown images at every different score, the largest first."""
    steps = np.unique(np.concatenate([known, unknown]))[::-1]
    true = len(unknown) - np.searchsorted(np.sort(unknown), steps, side="left")
    false = len(known) - np.searchsorted(np.sort(known), steps, side="left")
    return true / len(unknown), true / (true + false)


def _right(known: np.ndarray, right: np.ndarray) -> np.ndarray:
    right = np.asarray(right, dtype=bool).ravel()
    if len(right) != len(known):
        raise InputError(f"{len(right)} answers for {len(known)} scores of known images: expected one for each.")
    return right


def _at_least(share: float, n: int) -> int:
    return int(np.clip(np.ceil(share * n - 1e-9), 1, n))


def _scores(known: np.ndarray, unknown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pair = []
    for name, scores in (("known", known), ("unknown", unknown)):
        scores = np.asarray(scores, dtype=np.float64).ravel()
        if not len(scores):
            raise InputError(f"There are no scores of {name} images to compare.")
        if np.isnan(scores).any():
            raise InputError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores of {name} images are NaN.")
        pair.append(scores)
    return pair[0], pair[1]

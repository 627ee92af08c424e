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
    steps = np.unique(np.concatenate([known, unknown]))[::-1]
    true = len(unknown) - np.searchsorted(np.sort(unknown), steps, side="left")
    false = len(known) - np.searchsorted(np.sort(known), steps, side="left")
    recall = true / len(unknown)
    return float(np.sum(np.diff(recall, prepend=0.0) * true / (true + false)))


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

"""One pass over a set of images: every detector's score of each."""

from __future__ import annotations

import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Activations, Preprocess
from ..detectors import Detector
from ..detectors.base import to_namespace
from ..fitting.cache import Cost
from ..fitting.extraction import Extracted, Observer
from ..fitting.labels import class_order
from ..fitting.many import ROWS, CalibratedDetector
from ..fitting.setup import FitJob
from ..images import Images
from ..images.prefetch import overlap_work
from ..stats import one_blas_thread


@dataclass(frozen=True)
class SetScores:
    """Of the n images of a set that could be read.

    scores: {detector: [n] float32}. predicted, labels [n]: outputs of the classifier, -1 without a label. rows [n]:
    their places in the source. unreadable: (id, reason) of the others.
    """

    scores: Mapping[str, np.ndarray]
    predicted: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    ids: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.predicted)

    @property
    def labelled(self) -> np.ndarray:
        """[n] bool."""
        return self.labels >= 0

    @property
    def right(self) -> np.ndarray:
        """[n] bool: whether the class is the true one; False without a label."""
        return self.labelled & (self.predicted == self.labels)

    @property
    def accuracy(self) -> float:
        """NaN without labels."""
        return float(self.right.sum() / self.labelled.sum()) if self.labelled.any() else float("nan")


@dataclass(frozen=True)
class NetworkScores:
    """What one network gave.

    sets: {set: scores}, "test" among them. rejected: {set: {detector: share called unknown}}. left_out: {detector:
    why}. tuned: {detector: what was chosen}. extra: {detector: its passes beside the one that all share}. fit, score:
    {detector: seconds}. costs: {pass: cost}, "forward" the shared one. fitted_on, calibrated_on: images.
    """

    name: str
    sets: Mapping[str, SetScores]
    rejected: Mapping[str, Mapping[str, float]]
    left_out: Mapping[str, str]
    notes: tuple[str, ...]
    tuned: Mapping[str, Any]
    extra: Mapping[str, tuple[str, ...]]
    fit: Mapping[str, float]
    score: Mapping[str, float]
    costs: Mapping[str, Cost]
    fitted_on: int
    calibrated_on: int
    preprocess: Preprocess | None = None


class _Places(Observer):
    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []
        self.ids: list[str] = []

    def see(self, images: Extracted) -> Extracted:
        self.rows.append(images.numbers)
        self.ids += images.ids
        return images


def score_set(
    detectors: Mapping[str, Detector],
    job: FitJob,
    name: str,
    source: Images,
    *,
    known: bool,
    preprocess: Preprocess | None = None,
    seconds: MutableMapping[str, float] | None = None,
) -> SetScores:
    """known: whether its labels are the classifier's. preprocess: of this set, where it is not the job's. seconds: of
    each detector's score, by the clock, are added to it; what several share counts for the first of them."""
    extractor = job.extractor([one for detector in detectors.values() for one in detector.passes])
    extractor.way = preprocess or extractor.way
    order = class_order(source, job.model, job.names)[1] if known else None
    quick: tuple[Detector, ...] = to_namespace(tuple(detectors.values()), np, np.float32)
    parts: dict[str, list[np.ndarray]] = {one: [] for one in detectors}
    predicted, labels, places = [], [], _Places()

    def score(item: tuple[Activations, np.ndarray]) -> None:
        batch, truth = item
        labels.append(truth)
        predicted.append(np.argmax(batch.logits, axis=1))
        with one_blas_thread():
            for begin in range(0, len(batch), ROWS):
                some = batch.take(slice(begin, begin + ROWS)).with_cache()
                for one, detector in zip(parts, quick, strict=True):
                    start = time.perf_counter()
                    parts[one].append(np.asarray(detector.score(some)))
                    if seconds is not None:
                        seconds[one] = seconds.get(one, 0.0) + time.perf_counter() - start

    batches = extractor.run(source, name, (places,), order=order, names=job.names, labelled=known)
    for _ in overlap_work(score, (batch for batch in batches)):
        pass
    return SetScores(
        scores={one: np.concatenate(x) for one, x in parts.items()},
        predicted=np.concatenate(predicted),
        labels=np.concatenate(labels),
        rows=np.concatenate(places.rows),
        ids=tuple(places.ids),
        unreadable=tuple(extractor.unreadable),
    )


def rejected(rule: CalibratedDetector, scored: SetScores, name: str) -> float:
    """The share that the rule of the detector `name` calls unknown."""
    p = rule.calibration.p_value(scored.scores[name], scored.predicted)
    return float(rule.calibration.unknown(p, scored.predicted).mean())

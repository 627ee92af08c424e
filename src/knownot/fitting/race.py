"""Ways of feeding a classifier, tried on the same labelled images a few at a time: those clearly worse are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import Preprocess
from ..images.base import Images
from ..models.base import Model
from ..progress import bar
from .labels import Confusion, in_order
from .trial import Trial

TRIAL_IMAGES = 512
STAGES = (64, 128, 256, TRIAL_IMAGES)  # images after which ways are compared
SURELY = 0.85  # right on so many: what the model says of its input is not doubted, and others may be dropped
WORSE, LEAST = 3.0, 4  # standard errors of a paired difference, and images of it, from which a way is clearly worse
FEWEST = 20  # labelled images before anything is compared
CERTAIN = 1 - 1e-6  # a probability that is one: of inputs far larger than in training


@dataclass(frozen=True)
class TrialData:
    """Labelled raw images that ways of feeding `model` are tried on. order [c]: `labels.in_order`."""

    model: Model
    images: Images
    order: np.ndarray | None
    batch_size: int


@dataclass(frozen=True)
class Tried:
    """What the classifier answers to labelled images that are fed one way. way: None for its own input."""

    way: Preprocess | None
    right: np.ndarray  # [n] bool
    confidence: np.ndarray  # [n] the largest probability
    log_likelihood: np.ndarray  # [n] log of the true class's probability
    confusion: Confusion
    looked: int = 0  # images of the sample, with labels and without

    @property
    def accuracy(self) -> float:
        return self.confusion.accuracy

    @property
    def trial(self) -> Trial:
        assert self.way is not None  # only raw images are tried in several ways
        return Trial(self.way, self.accuracy, self.confusion.images)

    @property
    def rank(self) -> tuple[bool, float]:
        """Among equally accurate ways the larger one is right: answers that are not all certain come first (a network
        without biases gives the same classes for x and 255 x), and then those that make the labels most likely."""
        n = len(self.confidence)
        certain = n > 0 and float((self.confidence >= CERTAIN).mean()) > 0.9
        return not certain, float(self.log_likelihood.mean()) if n else 0.0


def attempt(data: TrialData, way: Preprocess | None, before: Tried | None = None, stop: int | None = None) -> Tried:
    """Feed labelled images one way. before: what its first images gave; stop: how many to look at, None for all."""
    parts: list[tuple[np.ndarray, ...]] = [(np.empty(0, bool), np.empty(0), np.empty(0))]
    model, order = data.model, data.order
    confusion, start = Confusion(model.capabilities.classes), 0
    if before is not None:
        parts, start = [(before.right, before.confidence, before.log_likelihood)], before.looked
        confusion.counts += before.confusion.counts
    looked, size = start, data.batch_size if stop is None else min(data.batch_size, stop - start)
    for batch in data.images.batches(size, way, spec=model.input, start=start):
        looked += len(batch)
        if len(batch.x):
            labels = in_order(batch.labels[batch.rows], order, model.capabilities.classes)
            logits = np.nan_to_num(model.forward(model.input.to_layout(batch.x)).logits).astype(np.float64)
            said, has = np.argmax(logits, axis=1), labels >= 0
            confusion.add(labels, said)
            log_p = logits - logits.max(axis=1, keepdims=True)
            log_p = (log_p - np.log(np.exp(log_p).sum(axis=1, keepdims=True)))[has]
            truth = log_p[np.arange(len(log_p)), labels[has]]
            parts.append(((said == labels)[has], np.exp(log_p.max(axis=1)), truth))
        if stop is not None and looked >= stop:
            break
    right, sure, likely = (np.concatenate([p[i] for p in parts]) for i in range(3))
    return Tried(way=way, right=right, confidence=sure, log_likelihood=likely, confusion=confusion, looked=looked)


def race(
    data: TrialData,
    ways: Sequence[Preprocess],
    *,
    best: Tried | None = None,
    patience: int = 0,
    whole: bool = False,
    progress: bool = False,
) -> list[Tried]:
    """What each way gave, `best` first where it is given: the one that the others have to beat.

    All look at the same images, more and more of them. Dropped is what is clearly worse than the most accurate one, and
    of those that have to beat `best` also what is not better than it after `patience` images. Over when one is left
    that is right on most; what is left otherwise has looked at the whole sample. whole: nothing is dropped, and neither
    it is where the images come in the source's order: the first ones may all be of one class.
    """
    whole = whole or not data.images.mixed
    tried: list[Tried | None] = [None] * len(ways) if best is None else [best, *([None] * len(ways))]
    fed = list(ways) if best is None else [best.way, *ways]
    live = list(range(len(fed)))
    if len(live) == 1 and best is not None:
        return [best]
    with bar("finding the preprocessing", None, progress) as advance:
        for stop in (TRIAL_IMAGES,) if whole else STAGES:
            for i in live:
                had = tried[i]
                if had is None or had.looked < stop:
                    tried[i] = attempt(data, fed[i], had, stop)
                    advance(tried[i].looked - (0 if had is None else had.looked))  # type: ignore[union-attr]
            now = [tried[i] for i in live]
            if whole or any(t is not None and t.looked < stop for t in now):
                break  # there are no more images
            live = _left([t for t in now if t is not None], live, None if best is None or stop < patience else 0)
            alone = tried[live[0]]
            if len(live) == 1 and alone is not None and alone.accuracy >= SURELY and alone.confusion.images >= FEWEST:
                break
        winner, held = tried[live[0]], tried[0]
        if best is not None and held is not None and winner is not None and winner.looked < held.looked:
            # It overturns what was taken so far: on as many images as that has looked at.
            tried[live[0]] = attempt(data, fed[live[0]], winner, held.looked)
    return [t for t in tried if t is not None]


def _left(now: Sequence[Tried], live: Sequence[int], holder: int | None) -> list[int]:
    """Which of `live` go on; all of them unless one is right on nearly all: labels may be in another order, and then a
    wrong way can look best. holder: the place of the one that others have to beat by now."""
    leader = max(now, key=lambda t: (t.accuracy, t.rank))
    if leader.confusion.images < FEWEST or leader.accuracy < SURELY:
        return list(live)
    left = [i for i, t in zip(live, now, strict=True) if t is leader or not clearly_worse(t, leader)]
    if holder is not None and live[holder] in left:
        held = now[holder]
        better = {i for i, t in zip(live, now, strict=True) if np.subtract(*duel(t, held)) > 0}
        left = [i for i in left if i == live[holder] or i in better]
    return left


def duel(a: Tried, b: Tried) -> tuple[int, int]:
    """Of the images that both have looked at: (only a is right, only b is right)."""
    n = min(len(a.right), len(b.right))
    first, second = a.right[:n], b.right[:n]
    return int((first & ~second).sum()), int((second & ~first).sum())


def clearly_worse(a: Tried, b: Tried) -> bool:
    """Whether a is wrong where b is right more often than chance makes it."""
    gains, losses = duel(a, b)
    return losses - gains >= LEAST and losses - gains > WORSE * np.sqrt(gains + losses)

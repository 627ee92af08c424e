"""What an audit notes of each image of a pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import Activations, softmax
from ..fitting.extraction import Extracted, Observer
from ..stats import Reservoir

MISTAKES, SUREST = 12, 4  # kept as pictures
SIDE = 64
LOGITS = 10_000  # labelled images kept for the temperature, those of smallest hash


@dataclass(frozen=True)
class Picture:
    """An image that is kept to be shown."""

    confidence: float
    id: str
    true: int
    said: int
    thumb: np.ndarray
    key: int = 0  # of its content: of images that it is as sure of, the smallest come first


class Spread:
    """Least, largest, mean and standard deviation of each channel of what passes, in constant memory."""

    def __init__(self) -> None:
        self.n = 0
        self.low = self.high = self.total = self.squares = np.zeros(0)

    def add(self, x: np.ndarray) -> None:  # [n, h, w, k]
        flat = x.reshape(-1, x.shape[-1]).astype(np.float64)
        low, high, total, squares = flat.min(axis=0), flat.max(axis=0), flat.sum(axis=0), (flat**2).sum(axis=0)
        if self.n:
            low, high = np.minimum(low, self.low), np.maximum(high, self.high)
            total, squares = total + self.total, squares + self.squares
        self.low, self.high, self.total, self.squares = low, high, total, squares
        self.n += len(flat)

    @property
    def mean(self) -> np.ndarray:
        return self.total / max(self.n, 1)

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(np.maximum(self.squares / max(self.n, 1) - self.mean**2, 0))


class Notes(Observer):
    """What is noted of the images of a pass: twelve bytes each, and a few pictures."""

    side = SIDE

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._rows: list[tuple[np.ndarray, ...]] = []
        self._logits: Reservoir | None = None
        self.wrong: list[Picture] = []  # of labelled images, those it is surest of and wrong about
        self.surest: list[Picture] = []
        self.spread = Spread()
        self.unreadable: list[tuple[str, str]] = []

    def add(self, activations: Activations, labels: np.ndarray) -> np.ndarray:
        """Softmax of the largest output, [n] float32, as the classifier itself computes it."""
        p = np.asarray(softmax(np.asarray(activations.logits, dtype=np.float32)))
        said, confidence = p.argmax(axis=1), p.max(axis=1)
        self._rows.append((labels.astype(np.int32), said.astype(np.int32), confidence))
        has = labels >= 0
        if has.any():
            rows = {"logits": np.asarray(activations.logits)[has], "label": labels[has].astype(np.int64)}
            keys = None if activations.keys is None else np.asarray(activations.keys)[has]
            some = Reservoir.of(rows, size=LOGITS, keys=keys)
            self._logits = some if self._logits is None else self._logits.merge(some)
        return np.asarray(confidence)

    def see(self, images: Extracted) -> Extracted:
        confidence = self.add(images.activations, images.labels)
        self.spread.add(images.x)
        _keep(self, images, confidence)
        return images

    def _column(self, i: int, dtype: type) -> np.ndarray:
        return np.concatenate([r[i] for r in self._rows]) if self._rows else np.empty(0, dtype)

    @property
    def labels(self) -> np.ndarray:
        return self._column(0, np.int32)

    @property
    def said(self) -> np.ndarray:
        return self._column(1, np.int32)

    @property
    def confidence(self) -> np.ndarray:
        return self._column(2, np.float32)

    def logits(self) -> tuple[np.ndarray, np.ndarray]:
        """(logits, labels) of labelled images, at most LOGITS, each once; the same ones in any order of the images."""
        if self._logits is None:
            return np.empty((0, self.classes)), np.empty(0, np.int64)
        return self._logits.rows["logits"], self._logits.rows["label"]


def _keep(notes: Notes, images: Extracted, confidence: np.ndarray) -> None:
    """Pictures of the most confident mistakes, and of the images that it is surest of."""
    thumbs, ids, labels = images.thumbs, images.ids, images.labels
    if not thumbs:
        return
    said, keys = np.argmax(images.activations.logits, axis=1), images.activations.keys
    assert keys is not None  # for the type checker: an extractor sets them
    wrong = (labels >= 0) & (labels != said)
    for kept, rows, most in (
        (notes.wrong, np.flatnonzero(wrong), MISTAKES),
        (notes.surest, np.arange(len(said)), SUREST),
    ):
        least = kept[-1].confidence if len(kept) >= most else -1.0
        for i in rows[confidence[rows] >= least]:
            kept.append(
                Picture(
                    confidence=float(confidence[i]),
                    id=ids[i],
                    true=int(labels[i]),
                    said=int(said[i]),
                    thumb=thumbs[i],
                    key=int(keys[i]),
                )
            )
        kept.sort(key=lambda w: (-w.confidence, w.key))
        del kept[most:]

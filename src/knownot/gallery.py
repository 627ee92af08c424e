"""Small pictures for people: a bank of known images kept at fit time, and the most telling incoming ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .arrays import Activations, softmax
from .verdicts import Verdicts

SIDE = 64  # pixels of a thumbnail's longer side


def eyes(batch: Activations) -> np.ndarray:
    """What neighbours are looked up by, rows of unit length, [n, d] float32: features, or probabilities without."""
    rows = batch.features if batch.features is not None else softmax(batch.logits)
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def squared(thumb: np.ndarray, side: int = SIDE) -> np.ndarray:
    """A thumbnail [h, w, 3] uint8 enlarged (nearest pixel) to fill a grey square [side, side, 3] on its longer side."""
    height, width = thumb.shape[:2]
    longer = max(height, width)
    rows, columns = (np.arange(max(1, side * n // longer)) * n // max(1, side * n // longer) for n in (height, width))
    big = thumb[rows][:, columns]
    canvas = np.full((side, side, 3), 128, dtype=np.uint8)
    top, left = (side - big.shape[0]) // 2, (side - big.shape[1]) // 2
    canvas[top : top + big.shape[0], left : left + big.shape[1]] = big
    return canvas


@dataclass(frozen=True)
class Bank:
    """Thumbnails of some known images, to show what an incoming image looks like to the classifier."""

    thumbs: np.ndarray  # [m, side, side, 3] uint8
    eyes: np.ndarray  # [m, d] float32, unit rows
    labels: np.ndarray  # [m] int64, -1 where unknown

    def nearest(self, eyes_: np.ndarray, k: int = 3) -> np.ndarray:
        """Indices of the k known images most alike (cosine), the nearest first, [n, <= k]."""
        return np.argsort(-(eyes_ @ self.eyes.T), axis=1, kind="stable")[:, :k]


@dataclass(frozen=True)
class Gallery:
    """The most unknown images and those nearest to the threshold, with what is needed to show them."""

    unknown: Verdicts | None = None
    unknown_thumbs: np.ndarray | None = None  # [<= size, side, side, 3]
    unknown_eyes: np.ndarray | None = None  # [<= size, d]
    borderline: Verdicts | None = None
    borderline_thumbs: np.ndarray | None = None
    borderline_eyes: np.ndarray | None = None

    def with_batch(
        self,
        verdicts: Verdicts,
        thumbs: Sequence[np.ndarray],
        eyes_: np.ndarray,
        threshold: float,
        size: int = 24,
    ) -> Gallery:
        """Also these (readable images only). threshold: the p-value at which images are unknown."""
        squares = np.stack([squared(t) for t in thumbs]) if len(thumbs) else np.empty((0, SIDE, SIDE, 3), np.uint8)
        new = (verdicts, squares, eyes_)
        # A saturated p-value ties at 1 / (n + 1): the score decides which is more unknown.
        most = self._kept(self.unknown, self.unknown_thumbs, self.unknown_eyes, *new, lambda v: -v.score, size)
        most = _only(most, lambda v: v.unknown)
        near = self._kept(
            self.borderline,
            self.borderline_thumbs,
            self.borderline_eyes,
            *new,
            lambda v: np.abs(np.log(v.p_value) - np.log(threshold)),
            size,
        )
        return Gallery(*most, *near)

    @staticmethod
    def _kept(verdicts, thumbs, eyes_, new_verdicts, new_thumbs, new_eyes, key, size):  # type: ignore[no-untyped-def]
        if verdicts is not None:
            new_verdicts = Verdicts.concat([verdicts, new_verdicts])
            new_thumbs = np.concatenate([thumbs, new_thumbs])
            new_eyes = np.concatenate([eyes_, new_eyes])
        best = np.argsort(key(new_verdicts), kind="stable")[:size]
        return new_verdicts.take(best), new_thumbs[best], new_eyes[best]


def _only(kept, which):  # type: ignore[no-untyped-def]
    verdicts, thumbs, eyes_ = kept
    rows = np.flatnonzero(which(verdicts))
    return verdicts.take(rows), thumbs[rows], eyes_[rows]

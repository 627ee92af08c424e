"""Small pictures of known images, kept at fit time to show people what an incoming image looks like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace

from ..arrays import Activations, Array, softmax
from ..detectors.formulas import unit
from .extraction import Extracted, Observer

SIDE = 64  # pixels of a thumbnail's longer side


def embed(batch: Activations) -> Array:
    """What neighbours are looked up by, rows of unit length, [n, d] float32: features, or probabilities without."""
    rows = batch.features if batch.features is not None else softmax(batch.logits)
    xp = array_namespace(rows)
    return unit(xp.astype(rows, xp.float32, copy=False))


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


class Thumbnails(Observer):
    """Keeps a uniform sample of the images of a pass, those of smallest random number, as a `Bank`."""

    def __init__(self, most: int, seed: int) -> None:
        self.most, self.side = most, SIDE if most else 0
        self._draw = np.random.default_rng(seed)
        self._kept: list[tuple[float, np.ndarray, np.ndarray, int]] = []

    def see(self, images: Extracted) -> Extracted:
        thumbs = images.thumbs
        if not self.most or not len(thumbs):
            return images
        numbers = self._draw.random(len(thumbs))
        worst = self._kept[-1][0] if len(self._kept) >= self.most else 2.0
        looks = embed(images.activations)
        for i in np.flatnonzero(numbers < worst):
            self._kept.append((float(numbers[i]), squared(thumbs[int(i)]), looks[i], int(images.labels[i])))
        self._kept.sort(key=lambda x: x[0])
        del self._kept[self.most :]
        return images

    def bank(self) -> Bank | None:
        if not self._kept:
            return None
        _, thumbs, looks, labels = zip(*self._kept, strict=True)
        return Bank(np.stack(thumbs), np.stack(looks), np.array(labels, dtype=np.int64))

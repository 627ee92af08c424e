"""Small pictures of known images, kept at fit time to show people what an incoming image looks like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace

from ..arrays import Activations, Array, softmax
from ..detectors.formulas import unit
from ..stats import Reservoir, drawn
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
    """Keeps the images of a pass of smallest number, a uniform sample, as a `Bank`."""

    def __init__(self, most: int, seed: int) -> None:
        self._most, self._seed, self.side = most, seed, SIDE if most else 0
        self.kept: Reservoir | None = None

    def see(self, images: Extracted) -> Extracted:
        if not self._most or not len(images):
            return images
        numbers = drawn(images.activations.keys, self._seed, 2)  # type: ignore[arg-type]
        worst = self.kept.rank[-1] if self.kept is not None and len(self.kept) == self._most else None
        rows = np.arange(len(numbers)) if worst is None else np.flatnonzero(numbers < worst)
        if len(rows):
            thumbs = images.thumbs
            made = {
                "thumb": np.stack([squared(thumbs[int(i)]) for i in rows]),
                "eyes": embed(images.activations)[rows],
                "label": images.labels[rows].astype(np.int64),
            }
            self.merge(Reservoir.of(made, size=self._most, ranks=numbers[rows]))
        return images

    def merge(self, other: Reservoir | None) -> None:
        """Also what another pass kept."""
        self.kept = other if self.kept is None else self.kept if other is None else self.kept.merge(other)

    def bank(self) -> Bank | None:
        if self.kept is None:
            return None
        rows = self.kept.rows
        return Bank(rows["thumb"], rows["eyes"], rows["label"])

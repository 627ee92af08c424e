"""Some of the images that calibrate, kept as pictures, to make changed copies of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..fitting.extraction import Extracted, Observer

MOST = 300  # images
BYTES = 128e6  # that all of them take at most


class Picture(NamedTuple):
    key: int
    x: np.ndarray  # [h, w, k], the classifier's input, or the second network's where that is larger
    label: int


class Sample(Observer):
    """Keeps the images of smallest key, which is a hash of their content: the same ones in any order."""

    def __init__(self, most: int = MOST) -> None:
        self._most, self._kept = most, list[Picture]()

    def see(self, images: Extracted) -> Extracted:
        keys = images.activations.keys
        if keys is None or not len(images) or not self._most:
            return images
        x = images.x
        most = int(min(self._most, max(1, BYTES // x[0].nbytes)))
        last = self._kept[-1].key if len(self._kept) >= most else 1 << 64
        new = [Picture(int(keys[i]), x[i].copy(), int(images.labels[i])) for i in np.flatnonzero(keys < last)]
        there = {picture.key for picture in self._kept}
        self._kept += [picture for picture in {p.key: p for p in new}.values() if picture.key not in there]
        self._kept = sorted(self._kept, key=lambda picture: picture.key)[:most]
        return images

    def __len__(self) -> int:
        return len(self._kept)

    def first(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(x [m, h, w, k], labels [m], -1 where unknown) of up to n images."""
        some = self._kept[:n]
        return np.stack([picture.x for picture in some]), np.array([picture.label for picture in some], dtype=np.int64)

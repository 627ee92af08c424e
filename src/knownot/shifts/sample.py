"""Some of the images that calibrate, kept as pictures, to make changed copies of."""

from __future__ import annotations

import numpy as np

from ..fitting.extraction import Extracted
from ..fitting.sampling import Watcher, numbers_of
from ..stats import Reservoir

MOST = 300  # images
BYTES = 128e6  # that all of them take at most


class Sample(Watcher):
    """Keeps the images of smallest number, which is drawn by their content: the same ones in any order."""

    def __init__(self, most: int = MOST, seed: int = 0) -> None:
        self._most, self._seed = most, seed
        self._kept: Reservoir | None = None

    def see(self, images: Extracted) -> Extracted:
        if not len(images) or not self._most or images.activations.keys is None:
            return images
        x = images.x
        most = int(min(self._most, max(1, BYTES // x[0].nbytes)))
        ranks = numbers_of(images.activations.keys, self._seed)
        rows = {"x": x, "label": images.labels.astype(np.int64)}
        some = Reservoir.of(rows, size=most, ranks=ranks)
        self._kept = some if self._kept is None else self._kept.merge(some)
        return images

    def below(self, end: np.uint64) -> None:
        self._kept = None if self._kept is None else self._kept.below(end)

    def __len__(self) -> int:
        return 0 if self._kept is None else len(self._kept)

    def first(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(x [m, h, w, k], the classifier's input, or the second network's where that is larger; labels [m], -1 where
        unknown) of up to n images."""
        assert self._kept is not None
        return self._kept.rows["x"][:n], self._kept.rows["label"][:n]

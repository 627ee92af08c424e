"""Some of the images that calibrate, kept as pictures, to make changed copies of."""

from __future__ import annotations

import numpy as np

from ..fitting.extraction import Extracted
from ..fitting.sampling import Watcher, numbers_of
from ..stats import Reservoir

MOST = 300  # images
COPIES = 4  # of an image, on average, up to which a part keeps all that it has to
BYTES = 128e6  # that all of them take at most


class Sample(Watcher):
    """Keeps the images of smallest number, which is drawn by their content: the same ones in any order."""

    def __init__(self, most: int = MOST, seed: int = 0) -> None:
        self._most, self._seed = most, seed

    def see(self, images: Extracted) -> Extracted:
        if not len(images) or not self._most or images.activations.keys is None:
            return images
        x = images.x
        most = int(min(self._most, max(1, BYTES // x[0].nbytes)))
        ranks = numbers_of(images.activations.keys, self._seed)
        rows = {"x": x, "label": images.labels.astype(np.int64)}
        self.merge(Reservoir.of(rows, size=most, ranks=ranks))
        return images

    def merge(self, kept: Reservoir | None) -> None:
        self.kept = kept if self.kept is None else self.kept if kept is None else self.kept.merge(kept)

    def below(self, end: np.uint64) -> None:
        self.kept = None if self.kept is None else self.kept.below(end)

    def shared(self, count: int | None) -> None:
        """Forget what no sample of all `count` images will have: what is kept of a part is what travels. None: unknown,
        so that each part keeps as many as all together."""
        if count is not None and COPIES * self._most < count:
            self.below(np.uint64(COPIES * self._most / count * 2.0**64))

    def __len__(self) -> int:
        return 0 if self.kept is None else len(self.kept)

    def first(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(x [m, h, w, k], the classifier's input, or the second network's where that is larger; labels [m], -1 where
        unknown) of up to n images."""
        assert self.kept is not None
        return self.kept.rows["x"][:n], self.kept.rows["label"][:n]

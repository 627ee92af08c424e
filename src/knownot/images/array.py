"""Images in one array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..arrays import InputSpec
from ..errors import ImagesError
from .axes import check_one_meaning
from .base import Images
from .batching import Entries, Entry, choice
from .image_arrays import as_numpy, checked, is_array, size_in, to_nhwc, to_rgb
from .labels import Names, names_of, resolve

PROOFS = 32  # images compared before the walk
BLOCK = 256  # images whose layout and alpha are dealt with at a time


class ArrayImages(Entries):
    """An array of images; ids are "#<index>"."""

    def __init__(self, x: np.ndarray, labels: np.ndarray | None, names: Names, index: np.ndarray) -> None:
        self._x, self._labels, self.class_names, self._index = x, labels, names, index
        self._ready = checked(x)
        self.labelled = labels is not None

    @property
    def count(self) -> int:
        return len(self._index)

    @property
    def size(self) -> tuple[int, int] | None:
        return size_in(self._x, self._ready)

    @property
    def ready(self) -> bool:
        return self._ready

    def places(self) -> Iterator[str]:
        at = self._x.__array_interface__
        step, kind = self._x.strides[0], f"{self._x.shape[1:]} {self._x.dtype}"
        return (f"memory {at['data'][0] + int(i) * step} {kind}" for i in self._index)

    def equals(self, other: Images) -> bool:
        if not isinstance(other, ArrayImages) or len(self._index) != len(other._index):
            return False
        if self._x.shape[1:] != other._x.shape[1:] or self._x.dtype != other._x.dtype:
            return False
        rows = choice(len(self._index), PROOFS, 0)
        return all(np.array_equal(self._x[self._index[i]], other._x[other._index[i]]) for i in rows)

    def entries(self, start: int, spec: InputSpec | None) -> Iterator[Entry]:
        for at in range(start, len(self._index), BLOCK):
            index = self._index[at : at + BLOCK]
            given = self._x[index[0] : index[-1] + 1] if (np.diff(index) == 1).all() else self._x[index]
            block = to_nhwc(given, spec) if self._ready else to_rgb(given)
            for i, image in zip(index.tolist(), block, strict=True):
                yield Entry(f"#{i}", -1 if self._labels is None else int(self._labels[i]), image)

    def only(self, rows: np.ndarray) -> ArrayImages:
        return ArrayImages(self._x, self._labels, self.class_names, self._index[rows])

    def shuffled(self, seed: int = 0) -> ArrayImages:
        index = np.random.default_rng([seed, 6]).permutation(self._index)
        made = ArrayImages(self._x, self._labels, self.class_names, index)
        made.mixed = True
        return made

    def sample(self, n: int, seed: int = 0) -> ArrayImages:
        return self.only(choice(len(self._index), n, seed))


def opened(source: Any, labels: Any, class_names: Sequence[str] | None) -> ArrayImages | None:
    """Reads arrays and (images, labels) pairs of arrays; None for anything else."""
    if isinstance(source, tuple) and len(source) == 2 and _many(source[0]) and not _many(source[1]):
        source, own = source
        labels = own if labels is None else labels
    if not is_array(source) or type(source).__name__ in ("Series", "DataFrame", "Index"):
        return None
    x = as_numpy(source)
    if x.dtype.kind in "USO":
        return None
    checked(x)
    check_one_meaning(x, labels)
    if len(x) == 0:
        raise ImagesError(f"An array of shape {x.shape} holds no images.")
    numbers, names = resolve(labels, len(x), names_of(class_names))
    return ArrayImages(x, numbers, names, np.arange(len(x)))


def _many(thing: Any) -> bool:
    return is_array(thing) and len(thing.shape) >= 3

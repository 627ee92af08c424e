"""Images to train on: known ones in memory, and outliers, made or given, all as functions of seed, epoch and place.

Nothing here has a state that goes on: what a step trains on follows from its number, so that an interrupted training
can go on anywhere.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np

from ...arrays import Activations, InputSpec, Preprocess
from ...errors import ImagesError, OptionError
from ...fitting.extraction import batch_size, forward
from ...fitting.labels import in_order
from ...images import Images, open_images
from ...images.preprocess import apply
from ...models import Model
from ...outliers import kinds_named, make
from ...progress import bar

IN_MEMORY = 1 << 29  # bytes of images; more go to a temporary file
FEATURES = 4096  # rows at once, where features stand for images


@dataclass(frozen=True)
class Pool:
    """Images at the classifier's size. x: uint8 RGB [n, h, w, 3], or float32 [n, h, w, k], the classifier's own input.

    labels [n] are outputs of the classifier, -1 for none. way: how uint8 becomes the input, None for float32.
    """

    x: np.ndarray
    labels: np.ndarray
    way: Preprocess | None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def at_once(self) -> int:
        """Images that are looked at together."""
        return batch_size(*self.x.shape[1:3]) if self.x.ndim == 4 else FEATURES

    def take(self, rows: np.ndarray) -> Pool:
        """Some of the images; what is in a file stays in a file."""
        if not isinstance(self.x, np.memmap):
            return Pool(self.x[rows], self.labels[rows], self.way)
        store = _Store()
        for i in range(0, len(rows), self.at_once):
            store.add(self.x[rows[i : i + self.at_once]])
        return Pool(store.joined(), self.labels[rows], self.way)

    def inputs(self, x: np.ndarray) -> np.ndarray:
        """The classifier's input, float32 NHWC, of images [m, h, w, ·] in the form of `self.x`."""
        if self.way is None:
            return np.asarray(x, np.float32)
        plain = replace(self.way, height=None, width=None)  # they have the size already
        return np.stack([apply(image, plain) for image in x])

    def activations(
        self, opened: Model, rows: np.ndarray | None = None, size: int | None = None
    ) -> Iterator[Activations]:
        """What the classifier computes of these images, or of some rows, in batches of `size`."""
        size = size or self.at_once
        rows = np.arange(len(self)) if rows is None else rows
        return forward(opened, (self.inputs(self.x[rows[i : i + size]]) for i in range(0, len(rows), size)))


def read(
    images: Images,
    way: Preprocess | None,
    *,
    spec: InputSpec,
    order: np.ndarray | None = None,
    classes: int | None = None,
    what: str = "read",
    progress: bool = False,
) -> tuple[Pool, list[tuple[str, str]]]:
    """(all images that can be read, (id, reason) of the others). way: None for arrays that are the classifier's input.

    Raises ImagesError when there is none, or when they come in another form than `way` says.
    """
    if images.ready != (way is None):
        forms = ("raw", "float arrays (the classifier's own input)")
        raise ImagesError(
            f"The known images are {forms[way is None]} and these {forms[images.ready]}: give all in one form."
        )
    height, width = (way or spec).height or spec.height, (way or spec).width or spec.width
    raw = None if way is None else replace(way, channels="rgb", scale=1.0, mean=(0.0,), std=(1.0,))
    store = _Store()
    labels: list[np.ndarray] = []
    unreadable: list[tuple[str, str]] = []
    with bar(what, images.count, progress) as advance:
        for batch in images.batches(batch_size(height, width), raw, spec=spec if raw is None else None):
            unreadable += [(i, e) for i, e in zip(batch.ids, batch.errors, strict=True) if e is not None]
            if len(batch.x):
                store.add(batch.x if raw is None else batch.x.astype(np.uint8))
                own = batch.labels[batch.rows]
                labels.append(np.full(len(own), -1) if classes is None else in_order(own, order, classes))
            advance(len(batch))
    if not labels:
        reasons = "; ".join(f"{i}: {e}" for i, e in unreadable[:3])
        raise ImagesError(f"None of the images to {what} could be used{': ' + reasons if reasons else ''}.")
    return Pool(store.joined(), np.concatenate(labels), way), unreadable


class _Store:
    """Batches of images as one array: in memory, or from IN_MEMORY bytes on in a temporary file that goes with it."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._bytes, self._rows = 0, 0
        self._file: IO[bytes] | None = None

    def add(self, batch: np.ndarray) -> None:
        self._parts.append(np.ascontiguousarray(batch))
        self._bytes, self._rows = self._bytes + batch.nbytes, self._rows + len(batch)
        if self._bytes > IN_MEMORY:
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the array)
            for part in self._parts:
                self._file.write(part.data)
            self._kind = self._parts[-1]
            self._parts = []

    def joined(self) -> np.ndarray:
        if self._file is None:
            return np.concatenate(self._parts)
        for part in self._parts:
            self._file.write(part.data)
        self._file.flush()
        kind = self._kind
        with self._file as file:  # the mapping keeps what it needs of it
            return np.memmap(file, dtype=kind.dtype, mode="r", shape=(self._rows, *kind.shape[1:]))


class Outliers(ABC):
    """Images of no class, as many as are asked for, in the form of the known ones."""

    words: str  # what they are
    count: int | None = None  # how many there are; None where they do not end

    @abstractmethod
    def draw(self, n: int, seed: int, epoch: int, start: int) -> np.ndarray:
        """n images [n, h, w, ·]: the start-th and further ones of an epoch. The same for the same arguments."""


class Made(Outliers):
    """Made of the known images they are to differ from (see `knownot.outliers`): new ones in each epoch."""

    def __init__(self, kinds: Sequence[str], known: Pool) -> None:
        if known.way is None:
            raise OptionError(
                "The known images are float arrays, the classifier's own input; outliers are made from raw ones. Give "
                "uint8 images, or outliers of your own as float arrays."
            )
        self.kinds, self._known = tuple(kinds), known
        self.words = f"made ({', '.join(self.kinds)})"

    def draw(self, n: int, seed: int, epoch: int, start: int) -> np.ndarray:
        rng = np.random.default_rng([seed, epoch, start, 11])
        rows = np.sort(rng.choice(len(self._known), min(len(self._known), max(4 * n, 64)), replace=False))
        like, labels = self._known.x[rows], self._known.labels[rows]
        counts = rng.multinomial(n, np.full(len(self.kinds), 1 / len(self.kinds)))
        parts = [
            make(kind, int(m), like=like, labels=labels, seed=int(rng.integers(2**31)))
            for kind, m in zip(self.kinds, counts, strict=True)
            if m
        ]
        return np.concatenate([like[:0], *parts])


class Drawn(Outliers):
    """Given images, each once before any comes again."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.words = f"{len(pool):,} given images"
        self.count = len(pool)

    def draw(self, n: int, seed: int, epoch: int, start: int) -> np.ndarray:
        m = len(self.pool)
        rounds = range(start // m, (start + n - 1) // m + 1) if n else range(0)
        rows = [np.random.default_rng([seed, epoch, r, 12]).permutation(m) for r in rounds]
        flat = np.concatenate([np.empty(0, np.int64), *rows])
        return self.pool.x[flat[start % m : start % m + n]]


class Several(Outliers):
    """Equal shares of several."""

    def __init__(self, parts: Sequence[Outliers]) -> None:
        self.parts = tuple(parts)
        self.words = " and ".join(part.words for part in parts)

    def draw(self, n: int, seed: int, epoch: int, start: int) -> np.ndarray:
        p = len(self.parts)
        ends = [[(at * (i + 1)) // p - (at * i) // p for i in range(p)] for at in (start, start + n)]
        drawn = [part.draw(b - a, seed, epoch, a) for part, a, b in zip(self.parts, *ends, strict=True)]
        return np.concatenate(drawn)[:n]


def outliers_of(source: Any, known: Pool, *, spec: InputSpec, progress: bool = False) -> Outliers:
    """source: "made:KINDS" (see `outliers.kinds_named`), anything that `open_images` reads, or a list with any "made:…"
    in it.

    Raises OptionError for unknown kinds, ImagesError when images cannot be read or come in another form than `known`.
    """
    if isinstance(source, Outliers):
        return source
    if isinstance(source, str) and source.startswith("made:"):
        return Made(kinds_named(source.removeprefix("made:"), proper=True), known)
    if isinstance(source, list | tuple) and any(isinstance(s, str) and s.startswith("made:") for s in source):
        return Several([outliers_of(s, known, spec=spec, progress=progress) for s in source])
    way = known.way
    if way is not None:
        way = replace(way, height=known.x.shape[1], width=known.x.shape[2])
    pool, _ = read(open_images(source), way, spec=spec, what="outliers", progress=progress)
    if pool.x.shape[1:] != known.x.shape[1:]:
        raise ImagesError(f"The outliers have shape {pool.x.shape[1:]}, the known images {known.x.shape[1:]}.")
    return Drawn(pool)

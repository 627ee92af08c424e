"""From entries (an id, a label, something to decode) to batches: the one way that all sources share."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np

from ..arrays import InputSpec, Preprocess
from ..errors import ImagesError, OptionError
from .base import Batch, Images
from .decode import Unreadable, decode, on, open_pil, shallow, size_of
from .file_types import unread
from .prefetch import WORKERS, in_order
from .preprocess import apply, thumbnail
from .remote import is_url, read_url

T = TypeVar("T")
AS_IT_IS = Preprocess()


@dataclass(frozen=True)
class Entry:
    """One image of a source, not yet read.

    image: a path, a file's bytes, a Pillow image, uint8 [h, w, 3] (raw) or float [h, w, k] (ready).
    """

    id: str
    label: int
    image: Any
    error: str | None = None  # known before reading


@dataclass(frozen=True)
class Row:
    """One image, read."""

    id: str
    label: int
    x: np.ndarray | None  # [h, w, k] float32
    error: str | None = None
    thumb: np.ndarray | None = None
    also: np.ndarray | None = None  # [h, w, k] float32, preprocessed in another way


class Entries(Images):
    """A source that can list its images without reading them."""

    @abstractmethod
    def entries(self, start: int, spec: InputSpec | None) -> Iterator[Entry]:
        """The images from number `start` on, in order. spec: tells the layout of ready arrays."""

    def batches(
        self,
        size: int,
        preprocess: Preprocess | None,
        *,
        spec: InputSpec | None = None,
        start: int = 0,
        thumbs: int = 0,
        also: Preprocess | None = None,
        ahead: bool = True,
    ) -> Iterator[Batch]:
        if size < 1 or start < 0 or thumbs < 0:
            raise OptionError(f"size={size}, start={start}, thumbs={thumbs}: expected size >= 1 and the others >= 0.")
        way = preprocess or AS_IT_IS
        work = partial(_prepared, preprocess=way, thumbs=thumbs, also=also)
        return _batches(self.entries(start, spec), size, way, work, thumbs, ahead)

    def _each(self, i: int, of: int) -> Images:
        return Each(self, i, of)


class Selection(Entries):
    """Some images of another source, of which all else holds too."""

    def __init__(self, source: Entries) -> None:
        self._source = source
        self.class_names, self.names_are_hints = source.class_names, source.names_are_hints
        self.labelled, self.once, self.skipped = source.labelled, source.once, source.skipped
        self.notes, self.label_notes, self.order_notes = source.notes, source.label_notes, source.order_notes

    @property
    def size(self) -> tuple[int, int] | None:
        return self._source.size

    @property
    def ready(self) -> bool:
        return self._source.ready


class Each(Selection):
    """Each `of`-th image of a source, from number i on."""

    def __init__(self, source: Entries, i: int, of: int) -> None:
        super().__init__(source)
        self._i, self._of = i, of

    @property
    def count(self) -> int | None:
        n = self._source.count
        return None if n is None else len(range(self._i, n, self._of))

    def entries(self, start: int, spec: InputSpec | None) -> Iterator[Entry]:
        return islice(self._source.entries(0, spec), self._i + start * self._of, None, self._of)

    def sample(self, n: int, seed: int = 0) -> Images:
        return self._source.sample(n, seed)


def _batches(
    entries: Iterator[Entry],
    size: int,
    preprocess: Preprocess,
    work: Callable[[list[Entry]], list[Row]],
    thumbs: int,
    ahead: bool,
) -> Iterator[Batch]:
    share = max(1, min(32, size // WORKERS))  # images per task: few enough to spread, enough to be worth a task
    shape = None
    parted = chunks(entries, share)
    with closing(in_order(work, parted, ahead=-(-2 * size // share)) if ahead else (work(c) for c in parted)) as parts:
        for rows in chunks(chain.from_iterable(parts), size):
            shape = _one_shape(rows, shape if size > 1 else None, preprocess)  # one by one, each may have its own
            yield _batch(rows, shape, thumbs)


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` consecutive items, the last one shorter."""
    walk = iter(items)
    while chunk := list(islice(walk, size)):
        yield chunk


def _prepared(entries: list[Entry], preprocess: Preprocess, thumbs: int, also: Preprocess | None) -> list[Row]:
    return [prepare(entry, preprocess, thumbs, also) for entry in entries]


def prepare(entry: Entry, preprocess: Preprocess, thumbs: int, also: Preprocess | None = None) -> Row:
    """Read and preprocess one image; if it cannot be read, the reason."""
    try:
        if entry.error:
            raise Unreadable(entry.error)
        image = pixels(entry.image, preprocess)
        x = apply(image, preprocess) if image.dtype == np.uint8 else _ready(image)
        thumb = thumbnail(image if image.dtype == np.uint8 else x, thumbs) if thumbs else None
        other = None
        if also is not None and image.dtype == np.uint8:
            same = also.decoding == preprocess.decoding
            other = apply(image if same else pixels(entry.image, also), also)
        return Row(id=entry.id, label=entry.label, x=x, error=None, thumb=thumb, also=other)
    except Unreadable as e:
        return Row(entry.id, entry.label, None, str(e))


def pixels(image: Any, way: Preprocess | None = None) -> np.ndarray:
    """What an entry holds, as an array, read as `way` says. Raises Unreadable."""
    way = way or AS_IT_IS
    if isinstance(image, np.ndarray):
        image = shallow(image, way.depth) if image.dtype == np.uint16 else image
        raw = image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] == 4
        return on(image, way.background) if raw else image
    if isinstance(image, str | os.PathLike | bytes):
        if isinstance(image, str | os.PathLike) and (why := unread(image)):
            raise Unreadable(why)
        if is_url(image):
            try:
                image = read_url(str(image))
            except FileNotFoundError:
                raise Unreadable("no such file") from None
        return decode(image, way=way)
    return open_pil(image, way)


def _ready(image: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes an infinity, caught here
        x = np.array(image, dtype=np.float32, order="C")
    if not np.isfinite(x).all():
        raise Unreadable("not finite: the array has NaN or infinity")
    return x


def _one_shape(rows: list[Row], shape: tuple[int, ...] | None, preprocess: Preprocess) -> tuple[int, ...] | None:
    """The shape that all images of a walk in batches have, None before the first. Raises ImagesError."""
    for row in rows:
        if row.x is None:
            continue
        if shape is not None and row.x.shape != shape:
            raise ImagesError(
                f"Images of differing sizes cannot share a batch: {row.id!r} is {row.x.shape}, those before it {shape} "
                "(height, width, channels). Give a size: preprocess=Preprocess(height=..., width=...), or images that "
                "have the same."
            )
        shape = row.x.shape
    return shape


def _batch(rows: list[Row], shape: tuple[int, ...] | None, thumbs: int) -> Batch:
    read = [(i, row.x) for i, row in enumerate(rows) if row.x is not None]
    x = np.stack([x for _, x in read]) if read else np.zeros((0, *(shape or (0, 0, 0))), dtype=np.float32)
    others = [row.also for row in rows if row.also is not None]
    return Batch(
        ids=[row.id for row in rows],
        x=x,
        rows=np.array([i for i, _ in read], dtype=np.int64),
        labels=np.array([row.label for row in rows], dtype=np.int64),
        errors=[row.error for row in rows],
        thumbs=[row.thumb for row in rows if row.thumb is not None] if thumbs else None,
        also=np.stack(others) if others else None,
    )


def common_size(images: Iterable[Any]) -> tuple[int, int] | None:
    """(height, width) of the first up to 32 readable of these paths, bytes or arrays, None unless they agree."""
    sizes: set[tuple[int, int]] = set()
    for image in islice(images, 32):
        try:
            if isinstance(image, str | os.PathLike | bytes):
                sizes.add(size_of(image))
            else:
                h, w = pixels(image).shape[:2]
                sizes.add((h, w))
        except Unreadable:
            continue
        if len(sizes) > 1:
            return None
    return sizes.pop() if sizes else None


def choice(count: int, n: int, seed: int) -> np.ndarray:  # [min(n, count)] int64, ascending
    """A random choice of images, the same for the same seed."""
    if n >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, size=n, replace=False))

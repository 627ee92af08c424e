"""Images from anything that can be iterated: DataLoaders, tf.data, data sets, generators, lists of batches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from ..arrays import InputSpec
from ..errors import ImagesError, InputError, LabelsError
from .axes import Axes
from .base import Images
from .batching import Entries, Entry, common_size
from .image_arrays import as_numpy, checked, is_array, size_in, to_nhwc, to_rgb
from .labels import Names, match_labels, names_of, renumbered, resolve, to_integers
from .order import order_notes, shuffles

END = object()
IMAGE_KEYS = ("image", "images", "pixel_values", "img", "x", "input", "inputs", "input_1")
LABEL_KEYS = ("label", "labels", "target", "targets", "y", "fine_label", "class")


@dataclass(frozen=True)
class Part:
    """What an iterable gave at once: some images and their labels, if any."""

    images: np.ndarray | list[Any]  # an array [n, ...], or files, bytes or Pillow images
    labels: Any  # [n] int64 or names, None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def ready(self) -> bool:
        return isinstance(self.images, np.ndarray) and self.images.dtype.kind == "f"

    def take(self, n: int) -> Part:
        return Part(self.images[:n], None if self.labels is None else self.labels[:n])


class StreamImages(Entries):
    """An iterable of batches (or of single images). Ids are "#<index>", or the path for files.

    It is walked in the thread that reads, ahead by about two batches; decoding and preprocessing run in others.
    What was looked at before the walk is kept and given again, so that an iterator loses nothing.
    """

    def __init__(
        self, source: Any, labels: np.ndarray | None, names: Names, count: int | None, own: Names = None
    ) -> None:
        """own: names of the source's own numbers, where those are not numbers of `names`."""
        self._renumber = None if own is None or names is None else renumbered(own, names)
        self.names_are_hints = labels is None and names is not None and names == own_names(source)
        self._source, self._labels, self.class_names, self._count = source, labels, names, count
        self.once = hasattr(source, "__next__") and not _by_index(source)
        self.notes = self.order_notes = order_notes(source)
        self._walked = False
        self._axes = Axes(_is_batched(source))
        self._kept: list[Part] = []  # the first parts of an iterator; of others, the first part only
        self._peek(1)
        if not self._kept:
            raise ImagesError(f"The {type(source).__name__} gave no images.")
        self._ready = self._kept[0].ready
        self.labelled = labels is not None or self._kept[0].labels is not None

    @property
    def count(self) -> int | None:
        return self._count

    @property
    def size(self) -> tuple[int, int] | None:
        first = self._kept[0].images
        return size_in(first, self._ready) if isinstance(first, np.ndarray) else common_size(first)

    @property
    def ready(self) -> bool:
        return self._ready

    def equals(self, other: Images) -> bool:
        if not isinstance(other, StreamImages):
            return False
        mine, theirs = self._source, other._source
        if mine is theirs:
            return True
        whole = _whole_set(mine)
        return whole is not None and whole is _whole_set(theirs)

    def sample(self, n: int, seed: int = 0) -> StreamImages:
        parts = self._peek(n) if self.once else self._parts()
        taken, missing = [], n
        for part in parts:
            taken.append(part.take(missing))
            missing -= len(taken[-1])
            if missing <= 0:
                break
        total = n - max(missing, 0)
        labels = None if self._labels is None else self._labels[:total]
        some = StreamImages(taken, labels, self.class_names, total)
        some._renumber, some.names_are_hints = self._renumber, self.names_are_hints
        return some

    def entries(self, start: int, spec: InputSpec | None) -> Iterator[Entry]:
        if self.once and self._walked:
            raise ImagesError(
                f"This {type(self._source).__name__} can be walked only once, and it has been. Give a list, a "
                "DataLoader or another iterable that starts anew."
            )
        self._walked = True
        return self._entries(start, spec)

    def _entries(self, start: int, spec: InputSpec | None) -> Iterator[Entry]:
        at = 0
        for part in self._parts():
            if part.ready != self._ready:
                raise ImagesError("Raw images (uint8, files) and ready ones (float arrays) come mixed; give one kind.")
            if at + len(part) > start:
                yield from self._entries_of(part, at, max(start - at, 0), spec)
            at += len(part)
        if self._labels is not None and at != len(self._labels):
            raise LabelsError(f"There are {len(self._labels)} labels for {at} images; one each is needed.")

    def _entries_of(self, part: Part, at: int, skip: int, spec: InputSpec | None) -> Iterator[Entry]:
        labels = self._numbers(part, at)
        images: Any = part.images
        if isinstance(images, np.ndarray):
            images = to_nhwc(images, spec) if self._ready else to_rgb(images)
        for i in range(skip, len(part)):
            named = isinstance(images[i], str | os.PathLike)
            yield Entry(os.fspath(images[i]) if named else f"#{at + i}", int(labels[i]), images[i])

    def _numbers(self, part: Part, at: int) -> np.ndarray:  # [n] int64
        if self._labels is not None:
            labels = self._labels[at : at + len(part)]
            if len(labels) < len(part):
                raise LabelsError(f"There are {len(self._labels)} labels, but more images; one each is needed.")
            return labels
        if part.labels is None:
            return np.full(len(part), -1)
        if self.class_names is None and len(part.labels) and isinstance(part.labels[0], str):
            raise LabelsError("The labels are names: give class_names=[...] in the classifier's order, to number them.")
        labels, _ = to_integers(part.labels, self.class_names if self._renumber is None else None)
        if self._renumber is not None and not _named(part.labels):
            labels = np.where(labels < 0, -1, self._renumber[np.minimum(labels, len(self._renumber) - 1)])
        elif self._renumber is not None:
            labels, _ = to_integers(part.labels, self.class_names)
        if len(labels) != len(part):
            raise LabelsError(f"Batch from image {at} on: {len(labels)} labels for {len(part)} images.")
        return labels

    def _parts(self) -> Iterator[Part]:
        if not self.once:
            return map(self._part_of, enumerate(walk(self._source)))
        return chain(self._kept, map(self._part_of, enumerate(self._source, len(self._kept))))

    def _part_of(self, numbered: tuple[int, Any]) -> Part:
        return part_of(numbered, self._axes)

    def _peek(self, n: int) -> list[Part]:
        """The parts that hold the first n images; of an iterator they are kept."""
        if self._walked and self.once:
            raise ImagesError("A sample can be taken of an iterator only before it is walked.")
        have = sum(map(len, self._kept))
        iterator = self._source if self.once else walk(self._source)
        while have < n and (item := next(iterator, END)) is not END:
            self._kept.append(self._part_of((len(self._kept), item)))
            have += len(self._kept[-1])
        return self._kept


def opened(source: Any, labels: Any, class_names: Sequence[str] | None) -> StreamImages | None:
    """Reads any iterable, or anything with a length and items; None for anything else."""
    if isinstance(source, str | bytes | os.PathLike | Mapping):
        return None
    if not (isinstance(source, Iterable) or _by_index(source)):
        return None
    if hasattr(source, "cardinality") and int(source.cardinality()) == -1:  # tf.data
        raise ImagesError("This tf.data.Dataset repeats for ever. Leave out .repeat(), or limit it with .take(n).")
    count = _count(source)
    if labels is not None and shuffles(source):
        raise LabelsError(
            f"labels= were given beside a {type(source).__name__} that shuffles: they are in the order of the data, "
            "its images in another one at each walk. Give one that does not shuffle, or let it give (image, label) "
            "pairs."
        )
    wanted = names_of(class_names)
    numbers, names = resolve(labels, count, wanted)
    own = own_names(source) if labels is None else None
    if own is not None and wanted is not None and None in match_labels(own, wanted):
        own = None  # other words; its numbers are taken to be those of class_names
    if own is not None and wanted is None:
        return StreamImages(source, None, own, count)
    return StreamImages(source=source, labels=numbers, names=names, count=count, own=own)


def _named(labels: Any) -> bool:
    return any(isinstance(x, str) for x in np.asarray(labels, dtype=object).reshape(-1)[:1])


def own_names(source: Any) -> Names:
    """What a data set object calls its labels: `features["label"].names` (Hugging Face), `classes` (torchvision, also
    inside a DataLoader or a Subset), `class_names` (Keras); None where it says nothing."""
    for _ in range(3):
        features = getattr(source, "features", None)
        if isinstance(features, Mapping):
            found = next((features[key] for key in LABEL_KEYS if key in features), None)
            names = getattr(found, "names", None)
        else:
            names = getattr(source, "classes", None) or getattr(source, "class_names", None)
        if isinstance(names, list | tuple) and len(names) > 1 and all(isinstance(n, str) for n in names):
            return tuple(names) if len(set(names)) == len(names) else None
        source = getattr(source, "dataset", None)
        if source is None:
            return None
    return None


def walk(source: Any) -> Iterator[Any]:
    """A fresh iterator."""
    return (source[i] for i in range(len(source))) if _by_index(source) else iter(source)


def _by_index(source: Any) -> bool:
    """Whether to walk by items: data sets that have only these, and those of Keras whose iterators never end."""
    indexed = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    return indexed and (hasattr(source, "__next__") or not hasattr(source, "__iter__"))


def part_of(numbered: tuple[int, Any], axes: Axes) -> Part:
    """One item of an iterable, as images and labels. Arrays are copied: some iterables fill the same one again.

    axes: of the items before, and of this one from now on.

    Raises ImagesError saying which item, what it is, and what was expected.
    """
    number, item = numbered
    if isinstance(item, Part):
        return item
    try:
        images, labels = _split(item)
        return _part(images, labels, axes)
    except InputError as e:
        raise type(e)(f"Batch {number} of the iterable: {e}") from e


def _split(item: Any) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        image = next((key for key in IMAGE_KEYS if key in item), None)
        label = next((key for key in LABEL_KEYS if key in item), None)
        if image is None:
            raise ImagesError(
                f"a dict with the keys {sorted(map(str, item))}; expected 'image' or 'pixel_values' (and 'label')."
            )
        return item[image], None if label is None else item[label]
    if isinstance(item, tuple | list):
        if not 1 <= len(item) <= 3:
            raise ImagesError(f"a {type(item).__name__} of {len(item)}; expected images, or (images, labels).")
        labels: Any = item[1] if len(item) > 1 else None
        if is_array(labels) and len(labels.shape) > 2:
            raise ImagesError(f"(images, labels) with labels of shape {tuple(labels.shape)}; expected [n] or [n, c].")
        return item[0], labels
    return item, None


def _part(images: Any, labels: Any, axes: Axes) -> Part:
    if isinstance(images, str | os.PathLike | bytes) or (hasattr(images, "convert") and hasattr(images, "getexif")):
        return Part([images], _single(labels))
    if isinstance(images, list | tuple) and images and not is_array(images[0]):
        return Part(list(images), labels)
    if isinstance(images, list | tuple):
        images = np.stack([as_numpy(x) for x in images])
    x = np.array(as_numpy(images))
    if axes.one_image(x, labels):
        x, labels = x[None], _single(labels)
    checked(x)
    return Part(x, labels if labels is None or isinstance(labels, list) else as_numpy(labels).copy())


def _single(label: Any) -> Any:
    if label is None or isinstance(label, str):
        return None if label is None else [label]
    x = as_numpy(label)
    return x.reshape(1) if x.size == 1 else x[None]


def _count(source: Any) -> int | None:
    """How many images, for a torch DataLoader (read off its attributes) or a sized data set of single images."""
    if hasattr(source, "batch_size") and hasattr(source, "drop_last") and hasattr(source, "sampler"):
        try:
            n, size = len(source.sampler), source.batch_size
        except TypeError:
            return None
        return None if size is None else n // size * size if source.drop_last else n
    if isinstance(source, list) and source and all(isinstance(x, Part) for x in source):
        return sum(map(len, source))
    return None


def _whole_set(source: Any) -> Any:
    """The data set that a torch DataLoader walks over from end to end, in whatever order; None for others."""
    whole = type(getattr(source, "sampler", None)).__name__ in ("SequentialSampler", "RandomSampler")
    return getattr(source, "dataset", None) if whole else None


def _is_batched(source: Any) -> bool:
    """Whether it says that it gives batches, as a torch DataLoader does."""
    return isinstance(getattr(source, "batch_size", None), int)

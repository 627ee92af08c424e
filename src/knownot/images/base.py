"""What every source of images gives: batches, in order, one row per image, readable or not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..arrays import InputSpec, Preprocess
from ..errors import ImagesError, OptionError


@dataclass(frozen=True)
class Batch:
    """Some consecutive images of a source. n rows, m of them readable."""

    ids: list[str]  # [n], path or "#<index>"
    x: np.ndarray  # [m, h, w, k] float32: the classifier's input, NHWC always; m may be 0
    rows: np.ndarray  # [m] int64: which of the n rows the images in `x` are
    labels: np.ndarray  # [n] int64, -1 where there is none
    errors: list[str | None]  # [n], why an image could not be read
    thumbs: list[np.ndarray] | None = None  # [m] uint8 [<=side, <=side, 3], when asked for
    also: np.ndarray | None = None  # [m, h, w, k] float32: the same images preprocessed in another way, when asked for

    def __len__(self) -> int:
        return len(self.ids)


class Images(ABC):
    """A source of images, opened. Walking it again gives the same images, unless `once`.

    class_names: of the integer labels, when the source knows them (sub-folders, parquet metadata).
    names_are_hints: they are a data set object's own, whose numbers count where the names fit no classifier's.
    labelled: whether it has labels.
    once: an iterator that can be walked only once.
    skipped: files passed over because they are clearly no images (folders).
    notes: what was found at opening that its user may not expect, one sentence each, for people; `label_notes`: the
        same about labels, for whoever reads them; `order_notes`: those about order and completeness.
    """

    order_notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    names_are_hints: bool = False
    labelled: bool = False
    once: bool = False
    skipped: int = 0
    notes: tuple[str, ...] = ()
    label_notes: tuple[str, ...] = ()

    @property
    @abstractmethod
    def count(self) -> int | None:
        """How many images, None where only walking would tell."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int] | None:
        """(height, width) when all images have the same, else None.

        Certain for arrays. For files, parquet and iterables it is a hint: that of the first images (up to 32), if
        they agree.
        """

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether these are float arrays, taken as the classifier's own input: preprocessing does not apply."""

    def places(self) -> Iterator[str]:
        """Where its images are, one word each, the same for the same image of another source; of those that have a
        place (files, arrays in memory)."""
        return iter(())

    def stamps(self) -> Iterator[bytes] | None:
        """A stamp of 16 bytes for each image, in order, that is the same for the same image in the same place and
        state (of its file: size and times) only; whoever keeps results by it never mixes those of two images. None
        where the source cannot tell."""
        return None

    def only(self, rows: np.ndarray) -> Images | None:
        """The images of these numbers [m], ascending, as a source of its own; None where it cannot be indexed."""
        return None

    def part(self, i: int, of: int) -> Images:
        """Part i, from 0, of `of` parts that have each image once; its ids are those of the whole.

        Consecutive images where the source can be indexed; otherwise each `of`-th, which reads (without decoding) those
        between. A part may be empty. Raises OptionError for a part that there is not, ImagesError for a source whose
        images cannot be listed.
        """
        if not 0 <= i < of:
            raise OptionError(f"part {i} of {of}: expected one from 0 to {of - 1}.")
        if of == 1:
            return self
        if self.count is not None:
            some = self.only(np.arange(self.count * i // of, self.count * (i + 1) // of))
            if some is not None:
                return some
        return self._each(i, of)

    def _each(self, i: int, of: int) -> Images:
        raise ImagesError(f"This source ({type(self).__name__}) cannot be divided into parts.")

    def equals(self, other: Images) -> bool:
        """Whether it is seen at once, without decoding, that `other` holds the same images: the same object, files or
        arrays of the same content. False where only a walk would tell."""
        return self is other

    @abstractmethod
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
        """Batches of `size` images in the order of the source.

        Reading and preprocessing run ahead in threads, about two batches; closing the iterator stops them. ahead:
        False for a source that is alive: no image is asked for before the batch before it was given, and no thread
        starts.
        preprocess: None for raw images takes pixels as they are, 0 to 255. start: skip so many images first, without
        decoding them. thumbs: the longer side of thumbnails to make, 0 for none. spec: checks ready arrays
        against the classifier's input. also: another preprocessing of raw images, for a second network. An image that
        cannot be read is a row with its reason, as is a ready array with a NaN or an infinity.

        Raises ImagesError when images of differing sizes would have to share a batch (one by one they may differ), or
        when a source that can be walked once is walked again; InputError when ready arrays do not fit `spec`.
        """

    mixed = False  # whether its images come in an order drawn by chance, so that the first ones are like the others

    def shuffled(self, seed: int = 0) -> Images:
        """The same images in an order drawn by chance, where the source can be indexed; itself otherwise."""
        return self

    @abstractmethod
    def sample(self, n: int, seed: int = 0) -> Images:
        """Up to n images of this source that can be walked many times: a random choice where the source can be
        indexed, its first ones otherwise (kept, and given again when the source itself is walked)."""

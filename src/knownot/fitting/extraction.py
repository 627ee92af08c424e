"""One pass over images: what the networks compute of them, for the statistics, and for whoever else wants to see it.

The only loop over batches of a model outside training. Who needs more of a pass adds an `Observer`, not a loop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ..arrays import Activations, Preprocess
from ..errors import ImagesError
from ..images import Batch, Images
from ..images.prefetch import overlap_work
from ..models import Model
from ..progress import bar
from .auxiliary import Auxiliary
from .labels import Confusion, in_order, judge
from .trial import Trial

R = TypeVar("R")


VALUES = 8e6  # of the input, of one forward pass: what a network holds meanwhile is some ten times as much
BACK = 4  # there and back: what the layers put out is kept


def batch_size_for(
    model: Model, preprocess: Preprocess | None, second: Auxiliary | None = None, *, back: bool = False
) -> int:
    """Images per forward pass (see `batch_size`); for the network that takes more. back: and back, for gradients."""
    if second is not None:
        return min(batch_size_for(model, preprocess), batch_size_for(second.model, second.preprocess))
    height = (preprocess.height if preprocess else None) or model.input.height
    width = (preprocess.width if preprocess else None) or model.input.width
    return batch_size(height, width, back=back)


def batch_size(height: int | None, width: int | None, *, back: bool = False) -> int:
    """Images of this size at once: about eight million input values, between 8 and 256; back: a quarter, from 2 on."""
    values = VALUES / BACK if back else VALUES
    most = values / ((height or 224) * (width or 224) * 3)
    return int(np.clip(2 ** np.floor(np.log2(most)), 2 if back else 8, 256))


def keys_of(x: np.ndarray) -> np.ndarray:
    """A hash of each image of `x` [n, h, w, k], [n] uint64."""
    x = np.ascontiguousarray(x)
    digests = b"".join(hashlib.blake2b(image.data, digest_size=8).digest() for image in x)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


Computed = tuple[Activations, np.ndarray, list[str | None]]


def run_batch(model: Model, batch: Batch, second: Auxiliary | None = None) -> Computed:
    """(activations of the fine images, which rows of `batch.x` they are, errors [n]). One forward pass through
    the classifier, and one through the second network if there is one.

    An image for which either computes NaN or infinity gets an error; all of them: ActivationsError.
    """
    return submit(model, batch, second)()


def submit(model: Model, batch: Batch, second: Auxiliary | None = None) -> Callable[[], Computed]:
    """The same in two steps: the networks are asked now, the rest is done when the result is called, in any thread."""
    if not len(batch.x):
        return lambda: (
            Activations(np.empty((0, model.capabilities.classes), np.float32)), np.empty(0, np.int64),
            list(batch.errors),
        )  # fmt: skip
    seen = model.submit(model.input.to_layout(batch.x))
    other = None if second is None else second.shown(batch)
    return lambda: _fine(batch, seen(), other)


def _fine(batch: Batch, activations: Activations, other: Mapping[str, np.ndarray] | None) -> Computed:
    errors = list(batch.errors)
    own = fine = activations.finite()
    if other is not None:
        activations = replace(activations, second=other)
        fine = activations.finite()
    if fine.all():
        return activations, np.arange(len(fine)), errors
    if not fine.any() and len(fine) > 1:
        activations.check([batch.ids[i] for i in batch.rows])
    for i in np.flatnonzero(~fine):
        who = "second network" if own[i] else "classifier"
        errors[batch.rows[i]] = f"the {who} computes NaN or infinity for this image"
    return activations.take(fine), np.flatnonzero(fine), errors


@dataclass(frozen=True)
class Extracted:
    """The images of a batch that both networks could compute: m of its n rows."""

    batch: Batch
    fine: np.ndarray  # [m] which rows of `batch.x` they are
    activations: Activations  # [m]
    labels: np.ndarray  # [m] outputs of the classifier, -1 where unknown
    start: int = 0  # the number of the batch's first image in its source
    larger_second: bool = False  # whether the second network sees more pixels

    def __len__(self) -> int:
        return len(self.fine)

    def take(self, rows: np.ndarray) -> Extracted:
        return replace(self, fine=self.fine[rows], activations=self.activations.take(rows), labels=self.labels[rows])

    @property
    def rows(self) -> np.ndarray:
        """[m] which of the n images of the batch they are."""
        return self.batch.rows[self.fine]

    @property
    def numbers(self) -> np.ndarray:
        """[m] their places in the source."""
        return self.start + self.rows

    @property
    def ids(self) -> list[str]:
        return [self.batch.ids[int(i)] for i in self.rows]

    @property
    def x(self) -> np.ndarray:
        """[m, h, w, k] the classifier's input, or the second network's where that is larger."""
        also = self.batch.also
        return (also if self.larger_second and also is not None else self.batch.x)[self.fine]

    @property
    def thumbs(self) -> list[np.ndarray]:
        """[m], or none where no observer asked for them."""
        return [self.batch.thumbs[int(i)] for i in self.fine] if self.batch.thumbs else []


class Observer:
    """Sees every batch of a pass, one after the other, in another thread than the networks'."""

    side = 0  # of the thumbnails that it wants, 0 for none

    def see(self, images: Extracted) -> Extracted:
        """What goes on to the next observer, and to the statistics."""
        return images

    def released(self, last: bool) -> list[tuple[Activations, np.ndarray]]:
        """(activations, labels) that it held back and that go on to the statistics now. last: no image follows."""
        return []


def extract(
    model: Model,
    batches: Iterable[Batch],
    second: Auxiliary | None,
    work: Callable[[Batch, Computed], R],
    ahead: bool = True,
) -> Iterator[R]:
    """work(batch, what was computed of it) of each batch; `ahead`: in another thread while the networks are asked."""
    asked = ((batch, submit(model, batch, second)) for batch in batches)
    return overlap_work(lambda item: work(item[0], item[1]()), asked, ahead)


def forward(model: Model, inputs: Iterable[np.ndarray]) -> Iterator[Activations]:
    """Of images in memory that are the classifier's input already, batch by batch: [n, h, w, k] -> activations."""
    return (model.forward(model.input.to_layout(x)) for x in inputs)


class Extractor:
    """A pass over images: their activations and labels, and what is noted of every pass.

    allow_low_accuracy: whether a classifier that is wrong on its own classes may pass.
    confusion: of all labelled images; unreadable: (id, reason); images: how many were given on.
    """

    def __init__(
        self,
        model: Model,
        way: Preprocess | None,
        size: int,
        second: Auxiliary | None = None,
        progress: bool = False,
    ) -> None:
        self.model, self.way, self.size, self.second, self.progress = model, way, size, second, progress
        self.allow_low_accuracy = False
        self.confusion = Confusion(model.capabilities.classes)
        self.unreadable: list[tuple[str, str]] = []
        self.more_unreadable = 0  # that are not listed
        self.images = 0

    def run(
        self,
        images: Images,
        what: str,
        observers: Sequence[Observer] = (),
        *,
        order: np.ndarray | None = None,
        names: Sequence[str] | None = None,
        labelled: bool = True,
        contents: Observer | None = None,
        last: bool = True,
    ) -> Iterator[tuple[Activations, np.ndarray]]:
        """(activations, labels) of the images that the observers let pass, batch by batch.

        order: which output each label is. names: of the outputs, for an early LabelsError where labels and outputs do
        not belong together; without them nobody is told. contents: sees all images before any is counted, and may leave
        out those that it has met. last: False where another part of the images follows.
        """
        way = self._checked(images)
        seen = used = 0

        def released(last: bool) -> list[tuple[Activations, np.ndarray]]:
            free = [rows for observer in observers for rows in observer.released(last)]
            self.images += sum(len(labels) for _, labels in free)
            return free

        def noted(batch: Batch, found: Computed) -> tuple[int, list[tuple[Activations, np.ndarray]]]:
            nonlocal seen, used
            activations, fine, errors = found
            self.unreadable += [(i, e) for i, e in zip(batch.ids, errors, strict=True) if e is not None]
            here = Extracted(
                batch=batch,
                fine=fine,
                activations=activations,
                labels=np.empty(0, np.int64),
                start=seen,
                larger_second=self.second_is_larger,
            )
            seen += len(batch)
            if len(fine):
                used += len(fine)
                here = self._labelled(here, order, names, labelled, contents)
                for observer in observers:
                    here = observer.see(here)
                self.images += len(here)
            own = [(here.activations, here.labels)] if len(here) else []
            return len(batch), own + released(False)

        with bar(what, images.count, self.progress) as advance:
            also = self.second.preprocess if self.second and way is not None else None
            side = max((observer.side for observer in observers), default=0)
            batches = images.batches(self.size, way, spec=self.model.input, thumbs=side, also=also)
            for count, given in extract(self.model, batches, self.second, noted):
                yield from given
                advance(count)
        if not used and last:
            reasons = "; ".join(f"{i}: {e}" for i, e in self.unreadable[:3])
            raise ImagesError(f"None of the {seen} images ({what}) could be used{': ' + reasons if reasons else ''}.")
        if last:
            yield from released(True)

    def _checked(self, images: Images) -> Preprocess | None:
        """How they are preprocessed. Raises ImagesError for another form than that of the known images."""
        if self.way is not None and images.ready:
            raise ImagesError(
                "The known images are raw and the calibration images float arrays (the classifier's own input): give "
                "both in the same form."
            )
        if self.way is None and not images.ready:
            raise ImagesError(
                "The known images are float arrays and the calibration images raw: give both in one form."
            )
        return self.way

    def _labelled(
        self,
        here: Extracted,
        order: np.ndarray | None,
        names: Sequence[str] | None,
        labelled: bool,
        contents: Observer | None,
    ) -> Extracted:
        classes = self.model.capabilities.classes
        own = here.batch.labels[here.rows]
        labels = in_order(own, order, classes) if labelled else np.full(len(own), -1)
        activations = replace(here.activations, keys=keys_of(here.batch.x[here.fine]))
        here = replace(here, activations=activations, labels=labels)
        here = here if contents is None else contents.see(here)
        self.confusion.add(here.labels, np.argmax(here.activations.logits, axis=1))
        early = 1000 <= self.confusion.images < 1000 + self.size and self.confusion.seen >= classes / 2
        if early and names is not None:
            self.judge(names, ())  # do not fit an hour on labels that do not match
        return here

    @property
    def second_is_larger(self) -> bool:
        """Whether the second network sees more pixels, so that images are remade from what it was given."""
        other = None if self.second is None else self.second.preprocess
        return other is not None and self.way is not None and _pixels(other) > _pixels(self.way)

    def judge(self, names: Sequence[str], trials: Sequence[Trial]) -> None:
        judge(self.confusion, names, trials, allow_low_accuracy=self.allow_low_accuracy)


def _pixels(way: Preprocess) -> int:
    return (way.height or 0) * (way.width or 0)

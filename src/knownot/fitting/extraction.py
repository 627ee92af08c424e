"""One pass over labelled known images: activations for the statistics, and all that is noted on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..arrays import Activations, Preprocess
from ..calibration import images_needed_sentence
from ..errors import CalibrationError, ImagesError
from ..images import Batch, Images
from ..images.prefetch import overlapped
from ..models import Model
from ..progress import bar
from .auxiliary import Auxiliary
from .preprocessing import Confusion, Trial, in_order, judge
from .thumbnails import SIDE, Bank, eyes, squared

HELD_OUT_SHARE, HELD_OUT_MOST = 0.2, 5_000


def batch_size_for(model: Model, preprocess: Preprocess | None, second: Auxiliary | None = None) -> int:
    """Images per forward pass: about eight million input values, between 8 and 256; for the network that takes more."""
    if second is not None:
        return min(batch_size_for(model, preprocess), batch_size_for(second.model, second.preprocess))
    height = (preprocess.height if preprocess else None) or model.input.height or 224
    width = (preprocess.width if preprocess else None) or model.input.width or 224
    return int(np.clip(2 ** int(np.log2(8e6 / (height * width * 3))), 8, 256))


def keys_of(x: np.ndarray) -> np.ndarray:
    """A hash of each image of `x` [n, h, w, k], [n] uint64."""
    x = np.ascontiguousarray(x)
    digests = b"".join(hashlib.blake2b(image.data, digest_size=8).digest() for image in x)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


Computed = tuple[Activations, np.ndarray, list[str | None]]


def computed(model: Model, batch: Batch, second: Auxiliary | None = None) -> Computed:
    """(activations of the fine images, which rows of `batch.x` they are, errors [n]). One forward pass through
    the classifier, and one through the second network if there is one.

    An image for which either computes NaN or infinity gets an error; all of them: ActivationsError.
    """
    return begun(model, batch, second)()


def begun(model: Model, batch: Batch, second: Auxiliary | None = None) -> Callable[[], Computed]:
    """The same in two steps: the networks are asked now, the rest is done when the result is called, in any thread."""
    if not len(batch.x):
        return lambda: (
            Activations(np.empty((0, model.offers.classes), np.float32)), np.empty(0, np.int64), list(batch.errors)
        )  # fmt: skip
    seen = model.begun(model.input.to_layout(batch.x))
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


class Extractor:
    """One pass over labelled images: activations and labels, with what is noted on the way."""

    def __init__(
        self,
        model: Model,
        way: Preprocess | None,
        size: int,
        thumbnails: int,
        seed: int,
        progress: bool,
        second: Auxiliary | None = None,
        *,
        allow_low_accuracy: bool = False,
    ) -> None:
        self.second, self.allow_low_accuracy = second, allow_low_accuracy
        self.model, self.way, self.size, self.thumbnails, self.progress = model, way, size, thumbnails, progress
        self.confusion = Confusion(model.offers.classes)
        self.unreadable: list[tuple[str, str]] = []
        self.images = 0
        self._draw = np.random.default_rng(seed)
        self._bank: list[tuple[float, np.ndarray, np.ndarray, int]] = []

    def over(
        self,
        images: Images,
        what: str,
        order: np.ndarray | None,
        names: Sequence[str],
        hold: HoldOut | None,
        *,
        labelled: bool = True,
        watch: Subsample | None = None,
    ) -> Iterator[tuple[Activations, np.ndarray]]:
        """watch: sees the held-out images, or all of them when none are held out."""
        way = None if images.ready else self.way
        if self.way is not None and images.ready:
            raise ImagesError(
                "The known images are raw and the calibration images float arrays (the classifier's own input): give "
                "both in the same form."
            )
        if self.way is None and not images.ready:
            raise ImagesError(
                "The known images are float arrays and the calibration images raw: give both in one form."
            )
        classes = self.model.offers.classes
        side = SIDE if self.thumbnails else 0
        seen = 0

        def noted(item: tuple[Batch, Callable[[], Computed]]) -> tuple[int, Activations, np.ndarray]:
            """In another thread than the network's, one batch after the other."""
            nonlocal seen
            batch, (activations, fine, errors) = item[0], item[1]()
            self.unreadable += [(i, e) for i, e in zip(batch.ids, errors, strict=True) if e is not None]
            labels = np.empty(0, np.int64)
            if len(fine):
                activations = replace(activations, keys=keys_of(batch.x[fine]))
                own = batch.labels[batch.rows[fine]]
                labels = in_order(own, order, classes) if labelled else np.full(len(own), -1)
                self.confusion.add(labels, np.argmax(activations.logits, axis=1))
                if 1000 <= self.confusion.images < 1000 + self.size and self.confusion.seen >= classes / 2:
                    self.judge(names, ())  # early: do not fit an hour on labels that do not match
                if hold is not None:
                    stay = hold.keep(activations, labels, seen + batch.rows[fine])
                    if watch is not None:
                        out = np.setdiff1d(np.arange(len(fine)), stay)
                        watch.add(activations.take(out), labels[out], self._pictures(batch)[fine[out]], hold.latest)
                    thumbs = [batch.thumbs[int(i)] for i in fine[stay]] if batch.thumbs else []
                    activations, labels = activations.take(stay), labels[stay]
                else:
                    thumbs = [batch.thumbs[int(i)] for i in fine] if batch.thumbs else []
                    if watch is not None:
                        watch.add(activations, labels, self._pictures(batch)[fine])
                self._show(thumbs, activations, labels)
                self.images += len(labels)
            seen += len(batch)
            return len(batch), activations, labels

        with bar(what, images.count, self.progress) as advance:
            also = self.second.preprocess if self.second and way is not None else None
            batches = images.batches(self.size, way, spec=self.model.input, thumbs=side, also=also)
            asked = ((batch, begun(self.model, batch, self.second)) for batch in batches)
            for count, activations, labels in overlapped(noted, asked):
                if len(labels):
                    yield activations, labels
                advance(count)
        if not self.images and not (hold and hold.kept):
            reasons = "; ".join(f"{i}: {e}" for i, e in self.unreadable[:3])
            raise ImagesError(f"None of the {seen} images could be used{': ' + reasons if reasons else ''}.")

    @property
    def second_is_larger(self) -> bool:
        """Whether the second network sees more pixels, so that images are remade from what it was given."""
        other = None if self.second is None else self.second.preprocess
        return other is not None and self.way is not None and _pixels(other) > _pixels(self.way)

    def _pictures(self, batch: Batch) -> np.ndarray:
        return batch.also if self.second_is_larger and batch.also is not None else batch.x

    def judge(self, names: Sequence[str], trials: Sequence[Trial]) -> None:
        judge(self.confusion, names, trials, allow_low_accuracy=self.allow_low_accuracy)

    def rights(self, hold: HoldOut) -> tuple[float, int]:
        return hold.accuracy()

    def _show(self, thumbs: Sequence[np.ndarray], activations: Activations, labels: np.ndarray) -> None:
        """Keep a uniform sample: the images of smallest random number."""
        if not self.thumbnails or not len(thumbs):
            return
        numbers = self._draw.random(len(thumbs))
        worst = self._bank[-1][0] if len(self._bank) >= self.thumbnails else 2.0
        looks = eyes(activations)
        for i in np.flatnonzero(numbers < worst):
            self._bank.append((float(numbers[i]), squared(thumbs[int(i)]), looks[i], int(labels[i])))
        self._bank.sort(key=lambda x: x[0])
        del self._bank[self.thumbnails :]

    def bank(self) -> Bank | None:
        if not self._bank:
            return None
        _, thumbs, looks, labels = zip(*self._bank, strict=True)
        return Bank(np.stack(thumbs), np.stack(looks), np.array(labels, dtype=np.int64))


def _pixels(way: Preprocess) -> int:
    return (way.height or 0) * (way.width or 0)


class Subsample:
    """A random choice of the images of a walk, those of smallest random number: some are kept as the classifier's input
    `x` (or the second network's, where that is larger), more as activations. `numbers` [n] are those of all images, in
    the order of the walk.
    """

    def __init__(self, pictures: int, rows: int, seed: int) -> None:
        self._most_pictures, self._most_rows = pictures, rows
        self._rng = np.random.default_rng([seed, 3])
        self._numbers: list[np.ndarray] = []
        self._rows: list[tuple[Activations, np.ndarray, np.ndarray]] = []
        self._pictures: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(
        self, activations: Activations, labels: np.ndarray, x: np.ndarray, numbers: np.ndarray | None = None
    ) -> None:
        numbers = self._rng.random(len(labels)) if numbers is None else numbers
        self._numbers.append(numbers)
        if len(labels):
            self._pictures = [self._trimmed([*self._pictures, (x, labels, numbers)], self._most_pictures)]
            self._rows.append((activations, labels, numbers))
            if sum(len(r[1]) for r in self._rows) > 2 * self._most_rows:
                self._rows = [self._first(self._most_rows)]

    @property
    def numbers(self) -> np.ndarray:
        return np.concatenate(self._numbers) if self._numbers else np.empty(0)

    def rows(self, n: int) -> tuple[Activations, np.ndarray]:
        """(activations, labels) of the first n, n at most what was asked for."""
        activations, labels, _ = self._first(n)
        return activations, labels

    def pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """(x, labels) of the first ones; x as the walk gave it, [m, h, w, k]."""
        x, labels, _ = self._pictures[0]
        return x, labels

    def _first(self, n: int) -> tuple[Activations, np.ndarray, np.ndarray]:
        activations = Activations.concat([r[0] for r in self._rows])
        labels, numbers = (np.concatenate([r[i] for r in self._rows]) for i in (1, 2))
        keep = np.argsort(numbers, kind="stable")[:n]
        return activations.take(keep), labels[keep], numbers[keep]

    @staticmethod
    def _trimmed(parts: list[tuple[np.ndarray, ...]], n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x, labels, numbers = (np.concatenate([p[i] for p in parts]) for i in range(3))
        keep = np.argsort(numbers, kind="stable")[:n]
        return x[keep], labels[keep], numbers[keep]


class HoldOut:
    """Keeps a random fifth of the known images (at most 5,000) out of the statistics, for calibration."""

    def __init__(self, count: int | None, needed: int, seed: int, alpha: float, delta: float, guarantee: str) -> None:
        self._rng = np.random.default_rng([seed, 1])
        self._chosen: np.ndarray | None = None
        self.latest = np.empty(0)  # random numbers of the images held out of the last batch
        self.kept: list[tuple[Activations, np.ndarray, np.ndarray]] = []  # activations, labels, random numbers
        if count is not None:
            want = max(min(int(HELD_OUT_SHARE * count), HELD_OUT_MOST), needed)
            if want > count // 2:
                raise CalibrationError(
                    f"{count} known images are too few to hold some out for calibration: {needed} are needed, and at "
                    f"most half are taken. {images_needed_sentence(alpha, delta, guarantee)} Give more images, "
                    "calibration= images, guarantee='marginal' or a larger alpha."
                )
            self._chosen = np.zeros(count, dtype=bool)
            self._chosen[self._rng.permutation(count)[:want]] = True

    def keep(self, activations: Activations, labels: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Take the held-out ones; the rows that stay, [m] indices."""
        numbers = self._rng.random(len(index))
        out = self._chosen[index] if self._chosen is not None else numbers < HELD_OUT_SHARE
        self.latest = numbers[out]
        if out.any():
            self.kept.append((activations.take(out), labels[out], numbers[out]))
            if self._chosen is None and sum(len(k[1]) for k in self.kept) > 2 * HELD_OUT_MOST:
                self._trim()
        return np.flatnonzero(~out)

    def activations(self) -> Activations:
        self._trim()
        return self.kept[0][0]

    @property
    def numbers(self) -> np.ndarray:
        """The random numbers of `activations`, in their order."""
        self._trim()
        return self.kept[0][2]

    def accuracy(self) -> tuple[float, int]:
        self._trim()
        activations, labels, _ = self.kept[0]
        has = labels >= 0
        right = np.argmax(activations.logits, axis=1)[has] == labels[has]
        return (float(right.mean()) if len(right) else 0.0), len(right)

    def _trim(self) -> None:
        activations = Activations.concat([k[0] for k in self.kept])
        labels, numbers = (np.concatenate([k[i] for k in self.kept]) for i in (1, 2))
        most = HELD_OUT_MOST if self._chosen is None else len(labels)
        keep = np.sort(np.argsort(numbers, kind="stable")[:most])
        self.kept = [(activations.take(keep), labels[keep], numbers[keep])]

"""Choices of the images of a pass that look random and are decided by their content and the seed alone: those held out
for calibration, and a sample that is kept. Neither the order of the images nor their division changes any."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..arrays import Activations
from ..errors import CalibrationError
from ..stats import Reservoir, drawn
from .extraction import Extracted, Observer
from .options import CalibrationOptions

HELD_OUT_SHARE, HELD_OUT_MOST = 0.2, 5_000
END = 2**64 - 1
SLACK = 6  # standard deviations of how many images have numbers below a limit


def numbers_of(keys: Any, seed: int) -> np.ndarray:
    """The numbers [n] uint64 by which images with these keys are held out, rank and calibrate, the smallest first."""
    return drawn(keys, seed, 1)


class Watcher(Observer):
    """Keeps some of the images that are held out, which are known at the end only. kept: of them, None before any."""

    kept: Any = None

    def merge(self, kept: Any) -> None:
        """Also what another pass kept."""

    def below(self, end: np.uint64) -> None:
        """Forget those of larger numbers."""


class Subsample(Watcher):
    """The images of a pass of smallest number: some are kept as the classifier's input `x` (or the second network's,
    where that is larger), more as activations."""

    def __init__(self, pictures: int, rows: int, seed: int) -> None:
        self._most, self._seed = (pictures, rows), seed  # kept: a reservoir of each

    def see(self, images: Extracted) -> Extracted:
        self.add(images.activations, images.labels, images.x)
        return images

    def add(self, activations: Activations, labels: np.ndarray, x: np.ndarray) -> None:
        if len(labels):
            ranks = numbers_of(activations.keys, self._seed)
            labels = labels.astype(np.int64)
            pictures = Reservoir.of({"x": x, "label": labels}, size=self._most[0], ranks=ranks)
            rows = {**activations.named(), "label": labels, "key": np.asarray(activations.keys)}
            self.merge((pictures, Reservoir.of(rows, size=self._most[1], ranks=ranks)))

    def merge(self, kept: tuple[Reservoir, Reservoir] | None) -> None:
        if self.kept is None or kept is None:
            self.kept = self.kept or kept
        else:
            self.kept = self.kept[0].merge(kept[0]), self.kept[1].merge(kept[1])

    def below(self, end: np.uint64) -> None:
        if self.kept is not None:
            self.kept = self.kept[0].below(end), self.kept[1].below(end)

    def rows(self, n: int) -> tuple[Activations, np.ndarray]:
        """(activations, labels) of the first n, n at most what was asked for."""
        assert self.kept is not None
        rows = {path: x[:n] for path, x in self.kept[1].rows.items()}
        labels, keys = rows.pop("label"), rows.pop("key")
        return replace(Activations.of(rows), keys=keys), labels

    def pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """(x, labels) of the first ones; x as the pass gave it, [m, h, w, k]."""
        assert self.kept is not None
        rows = self.kept[0].rows
        return rows["x"], rows["label"]


class HoldOut(Observer):
    """Keeps a fifth of the known images (at most 5,000) out of the statistics, for calibration: those whose numbers are
    the smallest.

    Which they are is known at the end only, so images that may be among them are held back, and go on to the
    statistics when smaller numbers have come. Copies of an image go where it goes; it is held out once.

    count: of the known images, None where that is not known; needed: held out at least. watch: sees those held out.
    """

    def __init__(
        self, count: int | None, needed: int, options: CalibrationOptions, watch: Subsample | None = None
    ) -> None:
        self.watch, self.needed, self._options = watch, needed, options
        self.also: Watcher | None = None  # sees those held out, too
        self.images = 0
        self.copies = 0  # of images that are held out, which calibrate nothing
        self.end = END  # images of larger numbers go on at once
        self.rows: list[tuple[Activations, np.ndarray, np.ndarray, np.ndarray]] = []  # …, labels, numbers, how often
        self._free: list[tuple[Activations, np.ndarray]] = []
        if count is not None:
            want = self._wanted(count)
            if want > count // 2:
                raise CalibrationError(
                    f"{count} known images are too few to hold some out for calibration: {needed} are needed, and at "
                    f"most half are taken. {options.sentence} Give more images, "
                    "calibration= images, guarantee='marginal' or a larger alpha."
                )
            share = (want + SLACK * np.sqrt(want) + 10) / count
            self.end = int(share * 2.0**64) if share < 1 else END

    def _wanted(self, count: int) -> int:
        return max(min(int(HELD_OUT_SHARE * count), HELD_OUT_MOST), self.needed)

    def see(self, images: Extracted) -> Extracted:
        """The images that go on at once."""
        out = self.split(images.activations, images.labels)
        for watcher in self._watchers():
            watcher.see(images.take(np.flatnonzero(out)))
        return images.take(np.flatnonzero(~out))

    def _watchers(self) -> list[Watcher]:
        return [one for one in (self.watch, self.also) if one is not None]

    def split(self, activations: Activations, labels: np.ndarray) -> np.ndarray:
        """Hold back those that may be held out; which they are, [n] bool."""
        numbers = numbers_of(activations.keys, self._options.seed)
        out = numbers < np.uint64(self.end)
        self.images += len(out)
        if out.any():
            self.rows.append((activations.take(out), labels[out], numbers[out], np.ones(int(out.sum()), np.int64)))
            most = max(HELD_OUT_MOST, self.needed)
            if sum(len(row[1]) for row in self.rows) > 2 * most:
                self._trim(most)
        return out

    def released(self, last: bool) -> list[tuple[Activations, np.ndarray]]:
        if last and self.rows:
            self._trim(max(HELD_OUT_MOST, self.needed))
            _, _, numbers, times = self.rows[0]
            different = self.images
            if (times > 1).any():  # about: as many as below the limit are there everywhere
                different = int(len(np.unique(numbers)) * 2.0**64 / (float(self.end) + 1))
            self._trim(min(self._wanted(self.images), different // 2))
            _, _, numbers, times = self.rows[0]
            self.copies = int(times.sum()) - len(np.unique(numbers))
            for watcher in self._watchers():
                watcher.below(numbers[-1] if len(numbers) else np.uint64(0))
        free, self._free = self._free, []
        return free

    def _trim(self, most: int) -> None:
        """Put together what is held back, and let go of those beyond the `most` smallest numbers."""
        activations = Activations.concat([row[0] for row in self.rows])
        labels, numbers, times = (np.concatenate([row[i] for row in self.rows]) for i in (1, 2, 3))
        order = np.lexsort((labels, numbers))
        first = np.ones(len(order), dtype=bool)  # of copies under the same label
        first[1:] = (np.diff(numbers[order]) > 0) | (np.diff(labels[order]) != 0)
        times = np.add.reduceat(times[order], np.flatnonzero(first))
        order = order[first]
        different = np.unique(numbers)
        if len(different) > most:
            self.end = int(different[most])
        stay = numbers[order] < np.uint64(self.end)
        if not stay.all():
            again = np.repeat(order[~stay], times[~stay])
            self._free.append((activations.take(again), labels[again]))
        kept = order[stay]
        self.rows = [(activations.take(kept), labels[kept], numbers[kept], times[stay])]

    def _held(self) -> tuple[Activations, np.ndarray]:
        """(activations, labels) of the images held out, each once; of one with several labels the smallest."""
        activations, labels, numbers, _ = self.rows[0]
        _, first = np.unique(numbers, return_index=True)
        return activations.take(first), labels[first]

    def activations(self) -> Activations:
        return self._held()[0]

    def accuracy(self) -> tuple[float, int]:
        activations, labels = self._held()
        has = labels >= 0
        right = np.argmax(activations.logits, axis=1)[has] == labels[has]
        return (float(right.mean()) if len(right) else 0.0), len(right)

    def merge(self, other: HoldOut) -> None:
        """Also what another part of the known images holds back."""
        self.images, self.rows = self.images + other.images, [*self.rows, *other.rows]
        self.end = min(self.end, other.end)
        if self.rows:
            self._trim(max(HELD_OUT_MOST, self.needed))

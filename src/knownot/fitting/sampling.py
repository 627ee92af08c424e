"""Random choices of the images of a pass: those held out for calibration, and a sample that is kept."""

from __future__ import annotations

import numpy as np

from ..arrays import Activations
from ..errors import CalibrationError
from .content import MOST
from .extraction import Extracted, Observer
from .options import CalibrationOptions

HELD_OUT_SHARE, HELD_OUT_MOST = 0.2, 5_000


class Subsample(Observer):
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

    def see(self, images: Extracted) -> Extracted:
        self.add(images.activations, images.labels, images.x)
        return images

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


class HoldOut(Observer):
    """Keeps a random fifth of the known images (at most 5,000) out of the statistics, for calibration.

    count: of the known images, None where that is not known; needed: held out at least. watch: sees those held out.
    """

    def __init__(
        self, count: int | None, needed: int, options: CalibrationOptions, watch: Subsample | None = None
    ) -> None:
        self.watch = watch
        self.also: Observer | None = None  # sees those held out, too
        self._rng = np.random.default_rng([options.seed, 1])
        self._chosen: np.ndarray | None = None
        self._sides: dict[int, bool] = {}  # of images by their keys: held out?
        self.moved = 0  # images that were to be held out and are copies of others
        self.latest = np.empty(0)  # random numbers of the images held out of the last batch
        self.kept: list[tuple[Activations, np.ndarray, np.ndarray]] = []  # activations, labels, random numbers
        if count is not None:
            want = max(min(int(HELD_OUT_SHARE * count), HELD_OUT_MOST), needed)
            if want > count // 2:
                raise CalibrationError(
                    f"{count} known images are too few to hold some out for calibration: {needed} are needed, and at "
                    f"most half are taken. {options.sentence} Give more images, "
                    "calibration= images, guarantee='marginal' or a larger alpha."
                )
            self._chosen = np.zeros(count, dtype=bool)
            self._chosen[self._rng.permutation(count)[:want]] = True

    def see(self, images: Extracted) -> Extracted:
        """The images that stay."""
        stay, held = self.split(images.activations, images.labels, images.numbers)
        if self.watch is not None:
            out = images.take(held)
            self.watch.add(out.activations, out.labels, out.x, self.latest)
        if self.also is not None:
            self.also.see(images.take(held))
        return images.take(stay)

    def split(self, activations: Activations, labels: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take the held-out ones; (the rows that stay, [m] indices, the rows held out).

        Copies of an image go where its first one went: one that stays has none held out, and one held out is held out
        once, its copies left aside.
        """
        numbers = self._rng.random(len(index))
        out = self._chosen[index].copy() if self._chosen is not None else numbers < HELD_OUT_SHARE
        aside = self._copies(activations.keys, out) if activations.keys is not None else np.zeros(len(out), dtype=bool)
        self.latest = numbers[out]
        if out.any():
            self.kept.append((activations.take(out), labels[out], numbers[out]))
            if self._chosen is None and sum(len(k[1]) for k in self.kept) > 2 * HELD_OUT_MOST:
                self._trim()
        return np.flatnonzero(~out & ~aside), np.flatnonzero(out)

    def _copies(self, keys: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Correct `out` [n] for images that were there before; those that are neither held out nor stay, [n] bool."""
        aside = np.zeros(len(out), dtype=bool)
        for i, key in enumerate(map(int, keys)):
            side = self._sides.get(key)
            if side is None:
                if len(self._sides) < MOST:
                    self._sides[key] = bool(out[i])
                continue
            self.moved += bool(out[i])
            out[i], aside[i] = False, side
        return aside

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

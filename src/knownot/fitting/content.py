"""Which images a walk has met, told by what is in them: their names, places and formats do not count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .extraction import Extracted, Observer

MOST = 1 << 18  # keys kept; beyond, those of smallest key, so that two sets are compared on the same part of all images
LOOKS = 8_192  # images whose look is kept
SIDE = 8  # a look is the means of SIDE x SIDE blocks, per channel
# Two images look the same when their blocks differ by so little of the picture's own contrast. Of 300 photographs, JPEG
# copies of quality 75 and resized ones differ by 0.045 at most, the nearest two different ones by 0.27.
CLOSE = 0.06


class Contents(Observer):
    """The images of one walk. Memory is bounded: about 25 MB, whatever the number of images.

    Two images are the same when the classifier is given the same numbers for both (`keys`). `images`: all that were
    asked for. once: leave out an image that was there before, so that each counts once.
    """

    def __init__(self, most: int = MOST, once: bool = False) -> None:
        self._most, self._once = most, once
        self.times: dict[int, int] = {}  # how often each key below `end` was there
        self.end = 1 << 64
        self._looks: dict[int, np.ndarray] = {}  # [SIDE * SIDE * k] by key
        self.images = 0

    def see(self, images: Extracted) -> Extracted:
        keys = images.activations.keys
        assert keys is not None  # for the type checker: an extractor sets them
        new = self.add(keys, images.batch.x[images.fine])
        return images.take(np.flatnonzero(new)) if self._once else images

    @property
    def repeats(self) -> int:
        """How many of the images were there before; about, beyond as many images as keys are kept."""
        return (sum(self.times.values()) - len(self.times)) * ((1 << 64) // self.end)

    def has(self, keys: np.ndarray) -> np.ndarray:
        """Which of these images were met, [n] bool; one whose key is beyond those kept counts as not met."""
        return np.fromiter((int(key) in self.times for key in keys), dtype=bool, count=len(keys))

    def add(self, keys: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Take note of images `x` [n, h, w, k] with these keys; which of them were not there before, [n] bool."""
        new = np.ones(len(keys), dtype=bool)
        smallest = sorted(self._looks)[LOOKS - 1] if len(self._looks) >= LOOKS else None
        for i, key in enumerate(map(int, keys)):
            new[i] = key not in self.times
            if key >= self.end:
                continue
            self.times[key] = self.times.get(key, 0) + 1
            if new[i] and (smallest is None or key < smallest):
                self._looks[key] = look_of(x[i])
        self.images += len(keys)
        self._trim()
        return new

    def _trim(self) -> None:
        if len(self._looks) > 2 * LOOKS:
            self._looks = {key: self._looks[key] for key in sorted(self._looks)[:LOOKS]}
        while len(self.times) > self._most:
            self.end //= 2
            self.times = {key: n for key, n in self.times.items() if key < self.end}

    def looks(self, n: int, apart: Contents | None = None) -> np.ndarray:
        """[m, SIDE * SIDE * k] of the images of smallest key, m up to n, without those that `apart` has too."""
        keys = sorted(self._looks if apart is None else self._looks.keys() - apart.times.keys())
        kept = [self._looks[key] for key in keys[:n]]
        return np.stack(kept) if kept else np.empty((0, 0), np.float32)

    def merge(self, other: Contents) -> None:
        """Also what another walk met."""
        self.end, self.images = min(self.end, other.end), self.images + other.images
        for key, n in other.times.items():
            self.times[key] = self.times.get(key, 0) + n
        self.times = {key: n for key, n in self.times.items() if key < self.end}
        self._looks |= other._looks
        self._trim()

    def state(self) -> dict[str, Any]:
        """As arrays and numbers, for a folder."""
        looks = sorted(self._looks)[:LOOKS]
        return {
            "keys": np.array(sorted(self.times), np.uint64),
            "times": np.array([self.times[key] for key in sorted(self.times)], np.int64),
            "end": self.end,
            "images": self.images,
            "look_keys": np.array(looks, np.uint64),
            "looks": np.stack([self._looks[key] for key in looks]) if looks else np.empty((0, 0), np.float32),
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Contents:
        """The inverse."""
        made = cls()
        made.times = dict(zip(state["keys"].tolist(), state["times"].tolist(), strict=True))
        made.end, made.images = int(state["end"]), int(state["images"])
        made._looks = dict(zip(state["look_keys"].tolist(), state["looks"], strict=True))
        return made


def look_of(x: np.ndarray) -> np.ndarray:
    """Block means of an image [h, w, k], its mean taken off and its contrast made one, [SIDE * SIDE * k] float32."""
    h, w, _ = x.shape
    rows, columns = (np.arange(SIDE) * size // SIDE for size in (h, w))
    if h < SIDE or w < SIDE:
        blocks = x.reshape(-1).astype(np.float64)
    else:
        sums = np.add.reduceat(np.add.reduceat(x, rows, axis=0, dtype=np.float64), columns, axis=1)
        area = np.diff([*rows, h])[:, None] * np.diff([*columns, w])[None]
        blocks = (sums / area[..., None]).reshape(-1)
    blocks = blocks - blocks.mean()
    return np.asarray(blocks / (np.sqrt((blocks**2).mean()) or 1.0), dtype=np.float32)


def lookalikes(held: Contents, known: Contents) -> tuple[int, int]:
    """(how many of the calibration images look like one of the known ones, of how many compared): re-encoded or resized
    copies, whose numbers differ a little. Looks are compared on samples.

    Where known images look like each other as often (frames of one film, parts on one belt), this says nothing: (0, n).
    """
    mine, others = held.looks(1024, known), known.looks(LOOKS)
    if not len(mine) or not len(others) or mine.shape[1] != others.shape[1]:
        return 0, len(mine)
    near = int((_nearest(mine, others) < CLOSE).sum())
    among = _nearest(others[:1024], others, own=True)
    usual = float((among < CLOSE).mean())
    return (near if near >= 3 and near / len(mine) > 4 * usual + 0.01 else 0), len(mine)


def _nearest(a: np.ndarray, b: np.ndarray, own: bool = False) -> np.ndarray:
    """Root mean square difference of each of `a` [n, d] to the nearest of `b` [m, d], [n]. own: a begin b."""
    square = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * (a @ b.T)
    if own:
        square[np.arange(len(a)), np.arange(len(a))] = np.inf
    least = square.min(axis=1) if square.shape[1] else np.full(len(a), np.inf)
    return np.asarray(np.sqrt(np.maximum(least, 0) / a.shape[1]))

"""Which images a walk has met, told by what is in them: their names, places and formats do not count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .extraction import Extracted, Observer

MOST = 1 << 18  # keys kept; beyond, those of smallest key, so that two sets are compared on the same part of all images
LOOKS = 8_192  # images whose look is kept
FLAT = 1e-4  # of the largest value: a picture of less contrast has no look
SIDE = 8  # a look is the means of SIDE x SIDE blocks of its light
LIGHT = (0.2, 0.6, 0.2)  # of three channels in either order: about what becomes of colours when they are taken away
# Two images look the same when their blocks differ by so little of the picture's own contrast. Of photographs and
# CIFAR-10 images, nine in ten copies that were encoded again, made smaller or grey differ by less, the nearest two
# different ones by 0.16.
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
        self._looks: dict[int, np.ndarray] = {}  # [SIDE * SIDE] by key
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
            if new[i] and (smallest is None or key < smallest) and (look := look_of(x[i])).any():
                self._looks[key] = look
        self.images += len(keys)
        self._trim()
        return new

    def _trim(self) -> None:
        if len(self._looks) > 2 * LOOKS:
            self._looks = {key: self._looks[key] for key in sorted(self._looks)[:LOOKS]}
        while len(self.times) > self._most:
            self.end //= 2
            self.times = {key: n for key, n in self.times.items() if key < self.end}

    def looked(self, n: int) -> np.ndarray:
        """Keys [m] uint64, in order, of the images whose looks `looks(n)` gives."""
        return np.array(sorted(self._looks)[:n], np.uint64)

    def looks(self, n: int, apart: Contents | None = None) -> np.ndarray:
        """[m, SIDE * SIDE] of the images of smallest key, m up to n, without those that `apart` has too."""
        keys = sorted(self._looks if apart is None else self._looks.keys() - apart.times.keys())
        return np.array([self._looks[key] for key in keys[:n]], np.float32).reshape(-1, SIDE * SIDE)

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
            "looks": self.looks(LOOKS),
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
    """Block means of the light of an image [h, w, k], their mean taken off and their contrast made one,
    [SIDE * SIDE] float32."""
    h, w, k = x.shape
    light = x @ np.asarray(LIGHT, x.dtype) if k == 3 else x.mean(axis=-1)
    rows, columns = (np.arange(SIDE) * size // SIDE if size >= SIDE else None for size in (h, w))
    if rows is None or columns is None:
        return np.zeros(SIDE * SIDE, np.float32)
    sums = np.add.reduceat(np.add.reduceat(light, rows, axis=0, dtype=np.float64), columns, axis=1)
    blocks = (sums / (np.diff([*rows, h])[:, None] * np.diff([*columns, w])[None])).reshape(-1)
    blocks = blocks - blocks.mean()
    size = np.sqrt((blocks**2).mean())
    return np.asarray(blocks / (size if size > FLAT * (np.abs(light).max() or 1.0) else np.inf), dtype=np.float32)


def lookalikes(held: Contents, known: Contents) -> tuple[int, int]:
    """(how many of the calibration images look like one of the known ones, of how many compared): encoded again,
    resized, made grey or mirrored, so that their numbers differ a little. Looks are compared on samples.

    Where known images look like each other as often (frames of one film, parts on one belt), this says nothing: (0, n).
    """
    mine, others = held.looks(1024, known), known.looks(LOOKS)
    near, usual = _near(mine, others), _near(others[:1024], others, np.equal)
    return (int(near.sum()) if _striking(near, usual) else 0), len(mine)


def twins(held: Contents, known: Contents) -> np.ndarray:
    """Keys [m] uint64 of the calibration images that look like one of smaller key, and so are no different ones; among
    some thousand of them.

    None where known images look like each other as often.
    """
    mine = held.looks(LOOKS)
    near, usual = (_near(x, x, np.less_equal) for x in (mine, known.looks(len(mine))))
    return held.looked(LOOKS)[near & _striking(near, usual)]


def _striking(near: np.ndarray, usual: np.ndarray) -> bool:
    """Whether more of these images look like others than known images do anyway."""
    share = usual.mean() if len(usual) else 0.0
    return bool(near.sum() >= 3 and near.mean() > 4 * share + 0.01)


def _near(a: np.ndarray, b: np.ndarray, skipped: np.ufunc | None = None) -> np.ndarray:
    """Which of the looks `a` [n, d] have a close one in `b` [m, d], as it is or mirrored, [n] bool.

    skipped: of the numbers in `a` and in `b`, which pairs are left out.
    """
    mirrored = a.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(a.shape)
    return np.asarray(np.minimum(_nearest(a, b, skipped), _nearest(mirrored, b, skipped)) < CLOSE)


def _nearest(a: np.ndarray, b: np.ndarray, skipped: np.ufunc | None = None) -> np.ndarray:
    """Root mean square difference of each of `a` [n, d] to the nearest of `b` [m, d], [n]."""
    least = np.full(len(a), np.inf)
    for start in range(0, len(a) if len(b) else 0, 1024):
        some = a[start : start + 1024]
        square = (some**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * (some @ b.T)
        if skipped is not None:
            square[skipped(np.arange(start, start + len(some))[:, None], np.arange(len(b))[None])] = np.inf
        least[start : start + 1024] = square.min(axis=1)
    return np.sqrt(np.maximum(least, 0) / max(1, a.shape[1]))

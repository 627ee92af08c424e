"""The one door to made images: checks what is given, and chooses which known images become which."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ImagesError, LabelsError, OptionError, unknown_name
from .noise import Rng
from .table import OUTLIERS


def make(
    kind: str, n: int, *, like: Any = None, labels: Any = None, size: int | tuple[int, int] | None = None, seed: int = 0
) -> np.ndarray:
    """n made images, uint8 [n, h, w, 3]; the same ones for the same arguments.

    kind: a name of `OUTLIERS`. like: known images, uint8 [m, h, w, 3], for the kinds that are made from them (each
        used once before any is used again), and for the size of the others; labels: their classes [m], so that mixtures
        are of two classes. size: (height, width), or one number, where there is no `like`.

    Raises OptionError for an unknown kind or a size that is missing or senseless, ImagesError for other arrays than
    uint8 [m, h, w, 3], LabelsError when the labels are not one whole number per image.
    """
    if kind not in OUTLIERS:
        raise unknown_name("kind of outlier", kind, OUTLIERS)
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0:
        raise OptionError(f"n={n!r}: expected how many images to make, a whole number of at least 0.")
    images = None if like is None else _images(like)
    entry = OUTLIERS[kind]
    rng = np.random.default_rng([seed, *kind.encode()])  # so that kinds do not share their random numbers
    if not entry.altered:
        return entry.function(int(n), *size_of(size, images), rng)
    if images is None:
        raise OptionError(f"{kind!r} is made from known images: give like=, uint8 [m, h, w, 3].")
    if size is not None and size_of(size, None) != images.shape[1:3]:
        raise OptionError(f"size={size!r}: {kind!r} has the size of the known images, {images.shape[1:3]}.")
    rows = _rows(len(images), int(n), rng)
    return entry.function(images[rows], images[_partners(rows, len(images), _labels(labels, len(images)), rng)], rng)


def _images(like: Any) -> np.ndarray:
    images = np.asarray(like)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise ImagesError(
            f"like= is an array of {images.dtype} and shape {images.shape}; expected images, uint8 [m, h, w, 3], at "
            "least one."
        )
    return images


def size_of(size: Any, images: np.ndarray | None) -> tuple[int, int]:
    """(height, width), of `size`, or of the images where it is None. Raises OptionError."""
    if size is None:
        if images is None:
            raise OptionError("Neither size= nor like= was given: how large are the images to be?")
        return int(images.shape[1]), int(images.shape[2])
    pair = size if isinstance(size, tuple | list) else (size, size)
    if len(pair) != 2 or any(isinstance(s, bool) or not isinstance(s, int | np.integer) or s < 1 for s in pair):
        raise OptionError(f"size={size!r}: expected (height, width) or one number, in pixels, at least 1.")
    return int(pair[0]), int(pair[1])


def _labels(labels: Any, m: int) -> np.ndarray | None:
    if labels is None:
        return None
    numbers = np.asarray(labels)
    if numbers.shape != (m,) or numbers.dtype.kind not in "iu":
        raise LabelsError(
            f"labels= is of shape {numbers.shape} and {numbers.dtype}; expected a whole number for each of {m} images."
        )
    return numbers


def _rows(m: int, n: int, rng: Rng) -> np.ndarray:
    """Which known image each made one is made from, [n]."""
    rounds = [rng.permutation(m) for _ in range(-(-n // m))]
    return np.concatenate(rounds)[:n] if rounds else np.empty(0, np.int64)


def _partners(rows: np.ndarray, m: int, labels: np.ndarray | None, rng: Rng) -> np.ndarray:
    """Another known image for each, [n]: of another class if there is one, else another image if there is one.

    Images of unknown class (-1) count as of another class than all.
    """
    kinds = np.arange(m) if labels is None else np.where(labels < 0, -1 - np.arange(m), labels)
    chosen = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        other = np.flatnonzero(kinds != kinds[row])
        if not len(other):
            other = np.setdiff1d(np.arange(m), [row]) if m > 1 else np.array([row])
        chosen[i] = other[rng.integers(len(other))]
    return chosen

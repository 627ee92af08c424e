"""Known images made into none: each function: (images [n, h, w, 3], others [n, h, w, 3], rng) -> uint8 [n, h, w, 3].

others: a second known image for each, of another class where classes are known.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .noise import Rng, pixels

Alter = Callable[[np.ndarray, np.ndarray, Rng], np.ndarray]


def patch_shuffle(grid: int) -> Alter:
    """Cut into grid × grid patches of equal size that change places; pixels left over at the edges stay."""

    def shuffled(images: np.ndarray, others: np.ndarray, rng: Rng) -> np.ndarray:
        n, h, w, k = images.shape
        rows, columns = min(grid, h), min(grid, w)
        a, b = h // rows, w // columns
        inner = images[:, : a * rows, : b * columns].reshape(n, rows, a, columns, b, k)
        patches = inner.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows * columns, a, b, k)
        order = rng.permuted(np.tile(np.arange(rows * columns), (n, 1)), axis=1)
        patches = np.take_along_axis(patches, order[:, :, None, None, None], axis=1)
        made = images.copy()
        inner = patches.reshape(n, rows, columns, a, b, k).transpose(0, 1, 3, 2, 4, 5)
        made[:, : a * rows, : b * columns] = inner.reshape(n, a * rows, b * columns, k)
        return made

    return shuffled


def pixel_shuffle(images: np.ndarray, others: np.ndarray, rng: Rng) -> np.ndarray:
    """All pixels change places; colours stay together."""
    n, h, w, k = images.shape
    order = rng.permuted(np.tile(np.arange(h * w), (n, 1)), axis=1)
    return np.take_along_axis(images.reshape(n, h * w, k), order[..., None], axis=1).reshape(images.shape)


def cutmix(images: np.ndarray, others: np.ndarray, rng: Rng) -> np.ndarray:
    """One half, cut upright or level, from another image (of another class): half of each, so it is neither."""
    n, h, w, _ = images.shape
    first = np.zeros((n, h, w, 1), dtype=bool)
    upright = rng.random(n) < 0.5
    first[upright, :, : w // 2] = True
    first[~upright, : h // 2] = True
    return np.where(first, images, others)


def mixup(images: np.ndarray, others: np.ndarray, rng: Rng) -> np.ndarray:
    """The mean of two images (of two classes), half of each."""
    return pixels((images.astype(np.float32) + others) / 2)


def collage(images: np.ndarray, others: np.ndarray, rng: Rng) -> np.ndarray:
    """Four quarters, each from the same quarter of a random image, two of them at least of `others`."""
    n, h, w, _ = images.shape
    made = images.copy()
    for top, left, source in ((0, 0, others), (0, 1, images), (1, 0, images), (1, 1, others)):
        rows, columns = slice(top * (h // 2), None if top else h // 2), slice(left * (w // 2), None if left else w // 2)
        made[:, rows, columns] = source[rng.permutation(n)][:, rows, columns]
    return made


def inversion(images: np.ndarray, others: np.ndarray, rng: Rng) -> np.ndarray:
    """255 minus each pixel."""
    return 255 - images


def blur(images: np.ndarray, others: np.ndarray, rng: Rng) -> np.ndarray:
    """Gaussian, standard deviation an eighth of the shorter side; weights sum to one at the edges too."""
    _, h, w, _ = images.shape
    sigma = min(h, w) / 8

    def weights(side: int) -> np.ndarray:
        at = np.arange(side, dtype=np.float32)
        g = np.exp(-((at[:, None] - at) ** 2) / (2 * sigma**2))
        return g / g.sum(axis=1, keepdims=True)

    down = np.tensordot(weights(h), images.astype(np.float32), axes=(1, 1))  # [h, n, w, 3]
    return pixels(np.tensordot(weights(w), down, axes=(1, 2)).transpose(2, 1, 0, 3))


def crop(images: np.ndarray, others: np.ndarray, rng: Rng) -> np.ndarray:
    """A random sixth of each side, enlarged to the whole (bilinear): a thing's surface, no thing."""
    n, h, w, _ = images.shape
    a, b = max(h // 6, 1), max(w // 6, 1)
    made = np.empty_like(images)
    top, left = rng.integers(0, h - a + 1, n), rng.integers(0, w - b + 1, n)
    for i in range(n):
        piece = images[i, top[i] : top[i] + a, left[i] : left[i] + b].astype(np.float32)
        made[i] = pixels(_enlarge(_enlarge(piece, h).transpose(1, 0, 2), w).transpose(1, 0, 2))
    return made


def _enlarge(x: np.ndarray, side: int) -> np.ndarray:
    """The first axis to `side`, linear between the centres of its pixels."""
    at = np.clip((np.arange(side) + 0.5) * len(x) / side - 0.5, 0, len(x) - 1)
    low = at.astype(int)
    share = (at - low)[:, None, None].astype(np.float32)
    return x[low] * (1 - share) + x[np.minimum(low + 1, len(x) - 1)] * share


def phase(images: np.ndarray, others: np.ndarray, rng: Rng) -> np.ndarray:
    """The spectrum's amplitudes stay, its phases are those of noise: the texture without its content.

    The same phases are added to all channels, so colours keep their relation. Rounding and clipping change amplitudes
    a little.
    """
    n, h, w, _ = images.shape
    noise = np.fft.fft2(rng.standard_normal((n, h, w, 1)), axes=(1, 2))
    noise[:, 0, 0] = 1  # the mean stays
    turn = noise / np.abs(noise)
    return pixels(np.fft.ifft2(np.fft.fft2(images.astype(np.float64), axes=(1, 2)) * turn, axes=(1, 2)).real)


def noisy(images: np.ndarray, others: np.ndarray, rng: Rng) -> np.ndarray:
    """With Gaussian noise of standard deviation 80."""
    return pixels(images + 80 * rng.standard_normal(images.shape, dtype=np.float32))

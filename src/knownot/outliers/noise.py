"""Images of nothing: noise, plain patterns and textures. Each function: (n, h, w, rng) -> uint8 [n, h, w, 3]."""

from __future__ import annotations

import numpy as np

Rng = np.random.Generator


def pixels(x: np.ndarray) -> np.ndarray:
    """Any numbers as uint8, rounded and clipped to 0–255."""
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def uniform(n: int, h: int, w: int, rng: Rng) -> np.ndarray:
    return rng.integers(0, 256, (n, h, w, 3), dtype=np.uint8)


def gaussian(n: int, h: int, w: int, rng: Rng) -> np.ndarray:
    """Mean 128, standard deviation 64 before clipping."""
    return pixels(128 + 64 * rng.standard_normal((n, h, w, 3), dtype=np.float32))


def salt_and_pepper(n: int, h: int, w: int, rng: Rng) -> np.ndarray:
    """Pixels black or white, the share of white drawn per image from 0.1 to 0.9."""
    share = rng.uniform(0.1, 0.9, (n, 1, 1, 1))
    return np.repeat((rng.random((n, h, w, 1)) < share).astype(np.uint8) * np.uint8(255), 3, axis=-1)


def solid(n: int, h: int, w: int, rng: Rng) -> np.ndarray:
    return np.broadcast_to(rng.integers(0, 256, (n, 1, 1, 3), dtype=np.uint8), (n, h, w, 3)).copy()


def _two_colours(n: int, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """[n, 1, 1, 3] each, float32; at least 64 apart in every channel, so that the pattern is seen."""
    one = rng.uniform(0, 256, (n, 1, 1, 3))
    return one.astype(np.float32), np.mod(one + rng.uniform(64, 192, (n, 1, 1, 3)), 256).astype(np.float32)


def _along(n: int, h: int, w: int, rng: Rng) -> np.ndarray:
    """Position along a random direction, [n, h, w], in units of the longer side."""
    angle = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    y, x = np.mgrid[:h, :w] / max(h, w)
    return np.cos(angle) * x + np.sin(angle) * y


def gradient(n: int, h: int, w: int, rng: Rng) -> np.ndarray:
    """From one colour to another along a random direction."""
    t = _along(n, h, w, rng)
    low, span = t.min(axis=(1, 2), keepdims=True), np.ptp(t, axis=(1, 2), keepdims=True)
    t = ((t - low) / np.where(span > 0, span, 1))[..., None]
    one, other = _two_colours(n, rng)
    return pixels(one + (other - one) * t)


def checkerboard(n: int, h: int, w: int, rng: Rng) -> np.ndarray:
    """Squares of two colours, 2 to 16 along the longer side, at a random offset."""
    side = np.maximum(1, max(h, w) // rng.integers(2, 17, (n, 1, 1)))
    offset = rng.integers(0, max(h, w), (2, n, 1, 1))
    y, x = np.mgrid[:h, :w]
    odd = (((y + offset[0]) // side + (x + offset[1]) // side) % 2)[..., None]
    one, other = _two_colours(n, rng)
    return pixels(np.where(odd, one, other))


def stripes(n: int, h: int, w: int, rng: Rng) -> np.ndarray:
    """Two colours in stripes of a random direction, 2 to 12 periods along the longer side."""
    periods = rng.uniform(2, 12, (n, 1, 1))
    phase = rng.random((n, 1, 1))
    odd = (np.floor(2 * (periods * _along(n, h, w, rng) + phase)) % 2)[..., None]
    one, other = _two_colours(n, rng)
    return pixels(np.where(odd, one, other))


def frequency(h: int, w: int) -> np.ndarray:
    """[h, w] radial frequency of `numpy.fft.fft2`, cycles per pixel."""
    return np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None, :])


def fractal(n: int, h: int, w: int, rng: Rng) -> np.ndarray:
    """Gaussian noise with the spectrum of natural images: amplitude 1/f. Mean 128, standard deviation 50 per channel.

    Channels share a part of their noise, so that there are colours but no rainbows.
    """
    f = frequency(h, w)
    f[0, 0] = np.inf  # no constant part: the mean is set below
    noise = rng.standard_normal((n, 1, h, w), dtype=np.float32) + rng.standard_normal((n, 3, h, w), dtype=np.float32)
    x = np.fft.ifft2(np.fft.fft2(noise) / f).real
    std = x.std(axis=(2, 3), keepdims=True)
    return pixels(128 + 50 * (x / np.where(std > 0, std, 1)).transpose(0, 2, 3, 1))


def dead_leaves(n: int, h: int, w: int, rng: Rng) -> np.ndarray:
    """Discs of random colours one over the other, radii r with density r^-3 (Lee, Mumford & Huang 2001)."""
    longer, leaves = max(h, w), 160
    least, most = max(longer / 24, 1.0), max(longer / 2, 1.5)
    # The inverse of the distribution function of r^-3 between `least` and `most`.
    radius = (least**-2 - rng.random((leaves, n, 1, 1)) * (least**-2 - most**-2)) ** -0.5
    top, left = (rng.uniform(-most / 2, s + most / 2, (leaves, n, 1, 1)).astype(np.float32) for s in (h, w))
    colour = rng.integers(0, 256, (leaves, n, 1, 3), dtype=np.uint8)
    image = solid(n, h, w, rng)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    for i in range(leaves):
        inside = (y - top[i]) ** 2 + (x - left[i]) ** 2 < radius[i].astype(np.float32) ** 2
        image = np.where(inside[..., None], colour[i][:, :, None, :], image)
    return image

"""Images to be changed: unbounded numbers that a fixed, smooth map turns into pixels, and gradients back through it.

Olah, Mordvintsev & Schubert, Feature Visualization, Distill 2017: a step in the Fourier basis, where each frequency
is weighted by 1 / frequency as in photographs, and in decorrelated colours, gives shapes rather than pixel noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Columns: brightness, then two colour contrasts, with their usual strengths in photographs.
COLOURS = np.array([[0.27, 0.10, 0.03], [0.27, 0.0, -0.06], [0.27, -0.10, 0.03]]) / 0.27


def squash(x: np.ndarray) -> np.ndarray:
    """255 sigmoid(x); never an overflow."""
    return 127.5 * (1 + np.tanh(x / 2))


@dataclass(frozen=True)
class Prior:
    """pixels(z) = 255 sigmoid(filter(z) colours), z [n, h, w, 3].

    The filter multiplies each spatial frequency f (in cycles per image) by 1 / max(f, 1)^smoothness and keeps the mean
    square; as a real, even filter it is its own adjoint.
    """

    height: int
    width: int
    smoothness: float = 1.0

    @cached_property
    def _weights(self) -> np.ndarray:  # [h, w // 2 + 1, 1]
        fy = np.fft.fftfreq(self.height)[:, None] * self.height
        fx = np.fft.rfftfreq(self.width)[None, :] * self.width
        weights = 1 / np.maximum(np.hypot(fy, fx), 1.0) ** self.smoothness
        both = np.where((fx == 0) | ((self.width % 2 == 0) & (fx == self.width // 2)), 1, 2)  # rfft keeps one half
        power = np.sum(both * weights**2) / (self.height * self.width)
        return (weights / np.sqrt(power))[..., None]

    def _filtered(self, z: np.ndarray) -> np.ndarray:
        spectrum = np.fft.rfft2(z, axes=(1, 2)) * self._weights
        return np.fft.irfft2(spectrum, s=(self.height, self.width), axes=(1, 2))

    def noise(self, rng: np.random.Generator, strength: float = 0.1) -> np.ndarray:
        """z [h, w, 3] to start from: an image near grey."""
        return strength * rng.standard_normal((self.height, self.width, 3))

    def pixels(self, z: np.ndarray) -> np.ndarray:
        """[n, h, w, 3] float64 in 0..255, not rounded."""
        return squash(self._filtered(z) @ COLOURS.T)

    def back(self, pixels: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """d/dz of what has this gradient with respect to `pixels`, [n, h, w, 3] each."""
        inner = gradient * pixels * (1 - pixels / 255)
        return self._filtered(inner @ COLOURS)

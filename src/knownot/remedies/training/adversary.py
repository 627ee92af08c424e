"""What the joint training of `joint.Joint` is in every framework: sizes of the adversaries, and what comes back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from .data import Pool
from .loop import Arrays, Tuner
from .mlp import Layers

NOISE, CHANNELS, SLOPE = 64, 64, 0.2
RATE, BETAS = 2e-4, (0.5, 0.999)
FIRST, GROUPS, NORM_EPSILON = 4, 8, 1e-5  # side of the generator's first maps; of its group normalisation


class Against(Tuner):
    """The user's classifier in training (`inner`, a copy), and its two adversaries. `weights` are the classifier's."""

    inner: Any

    def losses(self, batches: Sequence[Arrays]) -> list[float]:
        return list(self.inner.losses(batches))

    def weights(self) -> list[np.ndarray]:
        return list(self.inner.weights())

    def assign(self, weights: Sequence[np.ndarray]) -> None:
        self.inner.assign(weights)

    def finished(self) -> Any:
        return self.inner.finished()

    @abstractmethod
    def discriminator_layers(self) -> Layers:
        """The discriminator, in NumPy."""


def doublings(height: int, width: int) -> int:
    """How often the generator's first maps are doubled until they are as large as the images, or larger."""
    count = 0
    while FIRST << count < max(height, width):
        count += 1
    return count


def pixel_range(pool: Pool, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """(the input that a black pixel is, what white is more) [k] each."""
    if pool.way is None:
        axes = (0, 1, 2)
        some = pool.x[:1024]
        return some.min(axis=axes), some.max(axis=axes) - some.min(axis=axes)
    mean, std = (np.broadcast_to(np.asarray(v, np.float64), channels) for v in (pool.way.mean, pool.way.std))
    return -mean / std, 255 * pool.way.scale / std

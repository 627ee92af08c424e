"""What the joint training of `joint.Joint` is in every framework: sizes of the adversaries, and what comes back."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from .data import Pool
from .loop import Tuner
from .mlp import Layers

NOISE, CHANNELS, SLOPE = 64, 64, 0.2
RATE, BETAS = 2e-4, (0.5, 0.999)
FIRST, GROUPS, NORM_EPSILON = 4, 8, 1e-5  # side of the generator's first maps; of its group normalisation


class Against(Tuner):
    """A copy of the user's classifier in training, and its two adversaries. `weights` are the classifier's."""

    @abstractmethod
    def judge(self) -> Layers:
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

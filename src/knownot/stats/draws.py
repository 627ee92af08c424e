"""Random numbers that belong to an image: neither order nor division of the images changes them."""

from __future__ import annotations

import numpy as np

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = 0x9E3779B97F4A7C15


def drawn(keys: np.ndarray, seed: int, use: int = 0) -> np.ndarray:
    """A random number for each image, [n] uint64, of its key [n] uint64 (a hash of its content) and the seed.

    use: what for; the numbers of two uses have nothing to do with each other. The keys are hashes already, so mixing
    them again (SplitMix64's finaliser, Steele, Lea & Flood 2014) is enough.
    """
    start = ((2 * (int(seed) % 2**32) + 1) * _STEP + use * 0xD1342543DE82EF95) % 2**64
    x = np.asarray(keys, dtype=np.uint64) ^ np.uint64(start)
    for _ in range(2):
        x = (x ^ (x >> np.uint64(30))) * _MIX[0]
        x = (x ^ (x >> np.uint64(27))) * _MIX[1]
        x = (x ^ (x >> np.uint64(31))) + np.uint64(_STEP)
    return x

"""What a reference is given: plain float64 arrays of known images and of images to score, and the network itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Sight:
    """Letters: m known images, n to score, c classes, d features.

    detector: the fitted one, for what it has drawn or fitted itself where the reference is of its score alone.
    network: the same network in torch and float64, inputs -> (features, logits). inputs: "train" and "queries".
    """

    weight: Array  # [c, d]
    bias: Array  # [c]
    x: Array  # [m, d]
    z: Array  # [m, c]
    y: Array  # [m]
    stages: Mapping[str, Array]  # [m, 2k]
    maps: Mapping[str, Array]  # [m, k, h, w]
    f: Array  # [n, d]
    l: Array  # [n, c]  # noqa: E741
    f_stages: Mapping[str, Array]
    f_maps: Mapping[str, Array]
    detector: Any = None
    member: Callable[[str], tuple[Array, Array]] | None = None  # name -> scores of (new, queries), by its reference
    network: Any = None
    inputs: Mapping[str, Array] | None = None
    none: Array | None = None  # [n, j] logits of none-classes

    @property
    def classes(self) -> int:
        return len(self.bias)

    def head(self, f: Array) -> Array:
        return f @ self.weight.T + self.bias


def unit(x: Array) -> Array:
    return x / np.sqrt((x * x).sum(axis=1))[:, None]

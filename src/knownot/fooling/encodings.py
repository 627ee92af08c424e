"""Genomes of images for evolution: a vector of numbers, standard normal at first, to a smooth image.

Nguyen, Yosinski & Clune 2015 evolve networks that paint (CPPN, Stanley 2007): the indirect encoding, from which regular
patterns come. The direct one sets the low spatial frequencies of an image, each by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .prior import COLOURS, squashed


class Encoding(ABC):
    """Of images [h, w, 3]. length: numbers in a genome."""

    length: int

    @abstractmethod
    def images(self, genomes: np.ndarray) -> np.ndarray:
        """[n, length] -> uint8 [n, h, w, 3]."""


def _rounded(x: np.ndarray) -> np.ndarray:
    """Unbounded colour coordinates [n, h, w, 3] as pixels."""
    return np.rint(squashed(x @ COLOURS.T.astype(x.dtype))).astype(np.uint8)


@dataclass(frozen=True)
class Waves(Encoding):
    """Direct: the lowest order x order cosines of each colour coordinate, weighted by 1 / (1 + frequency)."""

    height: int
    width: int
    order: int = 8
    strength: float = 1.5

    @property
    def length(self) -> int:  # type: ignore[override]
        return 3 * self.order**2

    @cached_property
    def _basis(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        k = np.arange(self.order)

        def cosines(n: int) -> np.ndarray:  # [order, n]
            return np.cos(np.pi * k[:, None] * (np.arange(n) + 0.5) / n).astype(np.float32)

        weight = (self.strength / (1 + np.hypot(k[:, None], k))).astype(np.float32)
        return cosines(self.height), cosines(self.width), weight

    def images(self, genomes: np.ndarray) -> np.ndarray:
        down, across, weight = self._basis
        g = genomes.astype(np.float32).reshape(-1, 3, self.order, self.order) * weight
        return _rounded(np.einsum("nkab,ah,bw->nhwk", g, down, across, optimize=True))


@dataclass(frozen=True)
class Cppn(Encoding):
    """Indirect: a small network from a pixel's place (x, y, distance to the centre) to its colour.

    Two hidden layers of `hidden` neurons, a quarter each of sine, Gaussian, tanh and absolute value.
    """

    height: int
    width: int
    hidden: int = 12
    spread: float = 1.5

    @property
    def length(self) -> int:  # type: ignore[override]
        h = self.hidden
        return 4 * h + (h + 1) * h + (h + 1) * 3

    @cached_property
    def _places(self) -> np.ndarray:  # [h w, 4]
        y, x = np.meshgrid(np.linspace(-1, 1, self.height), np.linspace(-1, 1, self.width), indexing="ij")
        places = np.stack([x, y, np.hypot(x, y), np.ones_like(x)], axis=-1)
        return places.reshape(-1, 4).astype(np.float32)

    def images(self, genomes: np.ndarray) -> np.ndarray:
        g, h = genomes.astype(np.float32), self.hidden
        first, second, third = np.split(g, [4 * h, 4 * h + (h + 1) * h], axis=1)
        a = self._activated(self._places @ (2 * self.spread * first.reshape(-1, 4, h)))
        a = self._activated(self._affine(a, second, h))
        return _rounded(self._affine(a, third, 3).reshape(-1, self.height, self.width, 3))

    def _affine(self, a: np.ndarray, weights: np.ndarray, width: int) -> np.ndarray:
        w = weights.reshape(len(weights), self.hidden + 1, width)
        return self.spread * (a @ w[:, :-1] / np.float32(np.sqrt(self.hidden)) + w[:, -1:])

    @staticmethod
    def _activated(x: np.ndarray) -> np.ndarray:
        one, two, three, four = np.split(x, 4, axis=-1)
        return np.concatenate([np.sin(2 * one), np.exp(-two * two), np.tanh(three), np.abs(four) - 1], axis=-1)

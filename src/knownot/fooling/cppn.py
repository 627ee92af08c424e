"""Genomes of images for evolution: the indirect encoding, from which regular patterns come.

Nguyen, Yosinski & Clune 2015 evolve networks that paint an image (CPPN: Stanley, Genetic Programming and Evolvable
Machines 2007). Here the network's shape is fixed, and its weights are the genome.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .prior import COLOURS, squash


@dataclass(frozen=True)
class Cppn:
    """A small network from a pixel's place (x, y, distance to the centre) to its colour.

    Two hidden layers of `hidden` neurons, a quarter each of sine, Gaussian, tanh and absolute value.
    """

    height: int
    width: int
    hidden: int = 12
    spread: float = 1.5

    @property
    def length(self) -> int:
        """Numbers in a genome; they are standard normal at first."""
        h = self.hidden
        return 4 * h + (h + 1) * h + (h + 1) * 3

    @cached_property
    def _places(self) -> np.ndarray:  # [h w, 4]
        y, x = np.meshgrid(np.linspace(-1, 1, self.height), np.linspace(-1, 1, self.width), indexing="ij")
        places = np.stack([x, y, np.hypot(x, y), np.ones_like(x)], axis=-1)
        return places.reshape(-1, 4).astype(np.float32)

    def images(self, genomes: np.ndarray) -> np.ndarray:
        """[n, length] -> uint8 [n, h, w, 3]."""
        g, h = genomes.astype(np.float32), self.hidden
        first, second, third = np.split(g, [4 * h, 4 * h + (h + 1) * h], axis=1)
        a = self._activate(self._places @ (2 * self.spread * first.reshape(-1, 4, h)))
        a = self._activate(self._affine(a, second, h))
        colours = self._affine(a, third, 3) @ COLOURS.T.astype(np.float32)
        return np.rint(squash(colours)).astype(np.uint8).reshape(-1, self.height, self.width, 3)

    def _affine(self, a: np.ndarray, weights: np.ndarray, width: int) -> np.ndarray:
        w = weights.reshape(len(weights), self.hidden + 1, width)
        return self.spread * (a @ w[:, :-1] / np.float32(np.sqrt(self.hidden)) + w[:, -1:])

    @staticmethod
    def _activate(x: np.ndarray) -> np.ndarray:
        one, two, three, four = np.split(x, 4, axis=-1)
        return np.concatenate([np.sin(2 * one), np.exp(-two * two), np.tanh(three), np.abs(four) - 1], axis=-1)

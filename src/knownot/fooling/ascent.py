"""Gradient ascent from noise: many images at once, each on its own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..progress import Advance
from .objective import AttackObjective
from .prior import Prior

RATE, MOMENTUM = 0.1, 0.9
EVEN = 20  # steps after which the rate begins to fall
STEP = 3  # queries at most: a look, and a slope of the classifier and of the detector
QUERIES = 600


@dataclass
class Climb:
    """One image on its way. best: the uint8 image of the best merit so far; steps: taken."""

    index: int
    z: np.ndarray
    speed: np.ndarray
    steps: int = 0
    queries: int = 0
    best: Any = None
    merit: float = -np.inf


def ascend(
    objective: AttackObjective,
    prior: Prior,
    wanted: np.ndarray,
    *,
    queries: int,
    seed: int,
    batch: int,
    advance: Advance,
) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 [n, h, w, 3], queries of each [n]). Each stops when it is done, or has used up its queries.

    The slope is taken at the rounded image and applied to the unrounded one, so what is measured on the way is what the
    image file gives. Steps have a length of their own, with momentum, and become shorter in time.
    """
    waiting = [_start(prior, seed, i) for i in range(len(wanted))][::-1]
    under_way: list[Climb] = []
    finished: list[Climb] = []
    while waiting or under_way:
        while waiting and len(under_way) < batch:
            under_way.append(waiting.pop())
        rows = np.arange(_padded(len(under_way))) % len(under_way)  # few sizes, so that few are compiled
        climbs = [under_way[i] for i in rows]
        classes = wanted[[c.index for c in climbs]]
        pixels = prior.pixels(np.stack([c.z for c in climbs]))
        images = np.rint(pixels).astype(np.uint8)
        seen = objective.look(images, classes)
        over = np.zeros(len(under_way), bool)
        for i, climb in enumerate(under_way):
            climb.queries += 1
            if climb.best is None or seen.done[i] or seen.merit[i] > climb.merit:
                climb.best, climb.merit = images[i], float(seen.merit[i])
            over[i] = seen.done[i] or climb.queries + STEP > queries
        if not over.all():
            slopes, cost = objective.slopes(seen, classes)
            slopes = prior.back(pixels, slopes)
            for i, climb in enumerate(under_way):
                if not over[i]:
                    climb.queries += int(cost[i])
                    _step(climb, slopes[i])
        finished += [c for c, stop in zip(under_way, over, strict=True) if stop]
        under_way = [c for c, stop in zip(under_way, over, strict=True) if not stop]
        advance(int(over.sum()))
    finished.sort(key=lambda c: c.index)
    return np.stack([c.best for c in finished]), np.array([c.queries for c in finished])


def _start(prior: Prior, seed: int, index: int) -> Climb:
    z = prior.noise(np.random.default_rng([seed, 11, index]))
    return Climb(index, z, np.zeros_like(z))


def _step(climb: Climb, slope: np.ndarray) -> None:
    climb.steps += 1
    size = float(np.sqrt(np.mean(slope**2)))
    slope = slope / size if size > 0 else slope
    climb.speed = MOMENTUM * climb.speed + (1 - MOMENTUM) * slope
    rate = RATE / np.sqrt(1 + climb.steps / EVEN)
    climb.z = climb.z + rate * climb.speed / (1 - MOMENTUM**climb.steps)


def _padded(n: int) -> int:
    return 1 << (n - 1).bit_length()

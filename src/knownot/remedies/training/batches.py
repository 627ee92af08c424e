"""What each step trains on: rows of known images, outliers, and how they are changed, as functions of its number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import OptionError
from ..base import Settings
from .data import Outliers, Pool

AUGMENTS = ("none", "flip", "shift", "flip+shift")
SHIFT = 8  # images are moved by up to an eighth of their side


@dataclass(frozen=True)
class Plan:
    """Batches of one size: `batch` known images and `others` outliers each; what is left over of an epoch is left out
    (other images in each epoch)."""

    known: Pool
    outliers: Outliers | None
    settings: Settings

    @property
    def batch(self) -> int:
        return min(self.settings.batch_size, len(self.known))

    @property
    def others(self) -> int:
        return 0 if self.outliers is None else max(1, round(self.settings.ratio * self.batch))

    @property
    def steps(self) -> int:
        """In an epoch."""
        return len(self.known) // self.batch

    def rng(self, step: int, what: int) -> np.random.Generator:
        """Random numbers of a step; `what` tells uses apart."""
        return np.random.default_rng([self.settings.seed, step, what])

    def rows(self, step: int) -> np.ndarray:
        """Which known images."""
        epoch, at = divmod(step, self.steps)
        rng = np.random.default_rng([self.settings.seed, epoch, 1])
        order = _draw_balanced(self.known.labels, rng) if self.settings.balanced else rng.permutation(len(self.known))
        return order[at * self.batch : (at + 1) * self.batch]

    def images(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(known images, outliers, both augmented and in the form of the pool; labels of the known ones)."""
        rows = self.rows(step)
        known = self.known.x[rows]
        drawn = known[:0]
        if self.outliers is not None:
            epoch, at = divmod(step, self.steps)
            drawn = self.outliers.draw(self.others, self.settings.seed, epoch, at * self.others)
        if known.ndim == 4:
            known, drawn = (
                augment_batch(x, self.settings.augment, self.rng(step, 2 + i)) for i, x in enumerate((known, drawn))
            )
        return known, drawn, self.known.labels[rows]


def _draw_balanced(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many rows as there are, each class as often as any other: its images in turn, again and again."""
    classes = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    each = -(-len(labels) // len(classes))
    rounds = [np.concatenate([rng.permutation(own) for _ in range(-(-each // len(own)))])[:each] for own in classes]
    return rng.permutation(np.concatenate(rounds))[: len(labels)]


def augment_batch(x: np.ndarray, how: str, rng: np.random.Generator) -> np.ndarray:
    """Images [n, h, w, k], each mirrored with probability 1/2 ("flip") and moved, mirrored at the edges ("shift")."""
    n, h, w, _ = x.shape
    if not n:
        return x
    if "flip" in how:
        mirrored = np.asarray(rng.random(n) < 0.5)
        x = np.where(mirrored[:, None, None, None], x[:, :, ::-1], x)
    if "shift" in how:
        a, b = h // SHIFT, w // SHIFT
        padded = np.pad(x, ((0, 0), (a, a), (b, b), (0, 0)), mode="reflect" if min(a, b) else "edge")
        top, left = rng.integers(0, 2 * a + 1, n), rng.integers(0, 2 * b + 1, n)
        x = np.stack([image[t : t + h, s : s + w] for image, t, s in zip(padded, top, left, strict=True)])
    return np.ascontiguousarray(x)


def check_augment(how: str) -> None:
    if how not in AUGMENTS:
        raise OptionError(f"augment={how!r}: expected one of {', '.join(map(repr, AUGMENTS))}.")

"""What is said of a batch that looks changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..calibration import Calibration, percent
from .base import Kind, Shifts


@dataclass(frozen=True)
class Shift:
    """The kind of change that a batch of images looks like.

    kind, words: "blur-0.8", "blurred". share: of the batch, that looks like it. unknown: the share that is called
    unknown; expected: what that share would be among known images changed so. adapts: whether the classifier still
    works on them well enough to adapt. adapted: the share that is called unknown where verdicts were adapted, those of
    `adapted_images` to a change; None where it was not asked for.
    """

    kind: str
    words: str
    share: float
    images: int
    unknown: float
    expected: float
    alpha: float
    accuracy: float | None = None
    adapts: bool = True
    adapted: float | None = None
    adapted_images: int = 0

    @property
    def matters(self) -> bool:
        """Whether more known images changed so are called unknown than was accepted."""
        return self.expected > self.alpha

    @property
    def sentence(self) -> str:
        """For people."""
        text = (
            f"these images look {self.words} ({_whole(self.share)} of them); {_whole(self.unknown)} are called "
            f"unknown; of known images changed so it would be {_whole(self.expected)}"
        )
        if not self.adapts and self.accuracy is not None:
            text += f", and the classifier is right on only {_whole(self.accuracy)} of those"
        if self.adapted_images:
            text += f"; adapted to it, {_whole(self.adapted or 0)} are called unknown"
        elif self.adapted is not None:
            text += "; verdicts were not adapted: "
            text += "too few look known even so" if self.adapts else "the classifier is not good enough there"
        return text


@dataclass(frozen=True)
class Telling:
    """Kinds of change, and how many known images of each a rule calls unknown."""

    shifts: Shifts
    expected: tuple[float, ...]  # of each kind
    alpha: float

    @classmethod
    def of(cls, shifts: Shifts, rule: Calibration) -> Telling:
        return cls(shifts, tuple(kind.rejected(rule) for kind in shifts.kinds), rule.alpha)

    def shift(self, counts: np.ndarray, unknown: int, images: int) -> Shift | None:
        """What a batch looks like, of whose readable images so many were told as each kind [k + 1] and called unknown;
        None for one that looks as the calibration images did, or of too few images."""
        kind, share = self.shifts.kind(counts)
        if not kind:
            return None
        found: Kind = self.shifts.kinds[kind - 1]
        return Shift(
            kind=found.name,
            words=found.words,
            share=share,
            images=images,
            unknown=unknown / images,
            expected=self.expected[kind - 1],
            alpha=self.alpha,
            accuracy=found.accuracy,
            adapts=found.adapts,
        )


def _whole(share: float) -> str:
    return percent(round(share, 2))

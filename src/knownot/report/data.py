"""What a report shows, as plain things: whoever has verdicts fills this in, and the report computes nothing.

Letters in shapes: n images, h w pixels; m is the number of calibration images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..plots import Thumb


@dataclass(frozen=True)
class Neighbour:
    """A known image that is near to another one."""

    class_name: str
    thumb: Thumb | None = None


@dataclass(frozen=True)
class Card:
    """One image of a gallery.

    closed_class, confidence: the classifier's own answer and its softmax probability.
    member_p_values: of each detector that takes part, by its name; small means unknown.
    neighbours: the nearest known images, the nearest first; three are shown.
    at: its place on the map of unknown images, 0 to 1 across and down; None: it is not on it.
    """

    id: str
    unknown: bool
    closed_class: str
    confidence: float
    p_value: float
    thumb: Thumb | None = None
    member_p_values: Mapping[str, float] = field(default_factory=dict)
    neighbours: tuple[Neighbour, ...] = ()
    at: tuple[float, float] | None = None

    @property
    def verdict(self) -> str:
        """ "unknown" or the class. (A class may itself be named "unknown": ask `unknown`, not this.)"""
        return "unknown" if self.unknown else self.closed_class


@dataclass(frozen=True)
class Group:
    """Unknown images that look alike, or that the classifier takes for the same class."""

    name: str
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class ClassCount:
    """How many images the classifier put into one class, and how many of them turned out to be unknown."""

    name: str
    known: int
    unknown: int

    @property
    def total(self) -> int:
        return self.known + self.unknown


@dataclass(frozen=True)
class Counts:
    known: int
    unknown: int
    unreadable: int

    @property
    def total(self) -> int:
        return self.known + self.unknown + self.unreadable


@dataclass(frozen=True)
class ModelDescription:
    """The open-set classifier in words. accuracy: on the calibration images, None where they have no labels."""

    name: str
    classes: int
    detector: str
    preprocessing: str
    accuracy: float | None = None


@dataclass(frozen=True)
class ReportData:
    """Everything that stands in a report.

    guarantee: the promise in one sentence. alpha: the false-alarm rate it speaks of.
    threshold: images with a larger score are unknown; None where each class has its own.
    incoming_scores: NaN for unreadable images, which are left out of the histogram.
    p_threshold: images with a p-value up to it are unknown. groups: unknown images, all of which are shown.
    steps: (a p-value, how many images have one up to it, how many of those may be known), ascending, for the slider.
    strangest: (k, of the k strangest images at most so many are known), with 95 % confidence for all k at once.
    most_unknown (where there are no groups), borderline: the first 24 of each are shown, in the order given.
    unreadable: (file, reason); the first 200 are shown, and `counts.unreadable` tells how many there are.
    notes: what the reader should be warned of.
    changed: for each usual change of known images (how they look then, the classifier's accuracy, the share that would
    be called unknown).
    images_per_second: None where it was not measured.
    """

    title: str
    when: str
    model: ModelDescription
    guarantee: str
    alpha: float
    counts: Counts
    calibration_scores: np.ndarray  # [m]
    incoming_scores: np.ndarray  # [n]
    threshold: float | None
    p_threshold: float | None = None
    groups: tuple[Group, ...] = ()
    steps: tuple[tuple[float, int, int], ...] = ()
    strangest: tuple[tuple[int, int], ...] = ()
    most_unknown: tuple[Card, ...] = ()
    borderline: tuple[Card, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    class_counts: tuple[ClassCount, ...] = ()
    notes: tuple[str, ...] = ()
    changed: tuple[tuple[str, float | None, float], ...] = ()
    seconds: float = 0.0
    images_per_second: float | None = None
    version: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        counts = self.counts
        if min(counts.known, counts.unknown, counts.unreadable) < 0:
            raise InputError(f"A report's counts cannot be negative; given: {counts}.")
        if self.class_counts:
            known, unknown = (sum(getattr(c, what) for c in self.class_counts) for what in ("known", "unknown"))
            if (known, unknown) != (counts.known, counts.unknown):
                raise InputError(
                    f"The counts per class add up to {known} known and {unknown} unknown images, but the report counts "
                    f"{counts.known} and {counts.unknown}. Give every class, or none."
                )
        if len(self.unreadable) > counts.unreadable:
            raise InputError(f"{len(self.unreadable)} unreadable files are listed, but {counts.unreadable} counted.")
        scores = np.asarray(self.incoming_scores)
        if scores.ndim != 1 or np.count_nonzero(~np.isnan(scores)) != counts.known + counts.unknown:
            raise InputError(
                f"A report on {counts.known + counts.unknown} readable images needs as many incoming scores (NaN for "
                f"unreadable ones); given: shape {scores.shape} with {np.count_nonzero(~np.isnan(scores))} numbers."
            )

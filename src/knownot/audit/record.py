"""What an audit says, as plain data: the JSON file is this record, and the page is made from the JSON alone.

The schema is written down in docs/audit.md. Whoever adds a field leaves SCHEMA as it is; whoever takes one away, or
changes what one means, counts it up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from ..measure import mean_interval, wilson

SCHEMA = 1
SEVERITIES = ("problem", "warning", "note", "ok", "open")  # open: could not be measured, and why
SECTIONS = ("inputs", "probabilities", "classes", "unknown", "help", "map")
DIGITS = 6  # of every number in the file


@dataclass(frozen=True)
class Share:
    """`count` of `images`, with its Wilson interval of 95 %; of no images there is no share."""

    count: int
    images: int
    share: float | None
    low: float
    high: float

    @classmethod
    def of(cls, yes: np.ndarray | int, images: int | None = None) -> Share:
        """Of a mask [n], or of a count in so many images."""
        if images is None:
            mask = np.asarray(yes)
            yes, images = int(np.count_nonzero(mask)), len(mask)
        low, high = wilson(int(yes), images)
        return cls(int(yes), images, int(yes) / images if images else None, low, high)


@dataclass(frozen=True)
class Number:
    """A number with its confidence interval of 95 %; None where it is not known."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def mean(cls, x: np.ndarray) -> Number:
        """Of numbers [n], by the normal law."""
        return cls(*mean_interval(x)) if len(x) else cls(None)


@dataclass(frozen=True)
class Finding:
    """One sentence of verdict. title: the finding; text: what it rests on; action: what to do, "" for nothing."""

    severity: str
    section: str
    title: str
    text: str = ""
    action: str = ""


@dataclass(frozen=True)
class Trial:
    """One way of preprocessing, tried on the same labelled known images. used: it is the one that is audited."""

    name: str
    used: bool
    accuracy: Share
    confidence: Number  # mean largest softmax probability
    sure: Share  # of at least 0.99
    fields: Mapping[str, Any]  # of `Preprocess`


@dataclass(frozen=True)
class Channel:
    """Values of the classifier's own input, of one channel."""

    low: float
    high: float
    mean: float
    std: float


@dataclass(frozen=True)
class Inputs:
    """Which preprocessing the classifier wants against what it is fed.

    best, gain: the most accurate of the trials, and how much better it is than what is fed (on the same images).
    """

    findings: tuple[Finding, ...]
    used: str
    found: str  # how that was found: given, said by the model, by accuracy, none
    fields: Mapping[str, Any] | None  # of `Preprocess`; None for arrays that are the classifier's own input
    image_size: tuple[int, int] | None  # of the known images, where all have the same; height, width
    input_size: tuple[int | None, int | None]
    channels: int | None
    layout: str
    range: tuple[Channel, ...]
    trials: tuple[Trial, ...]
    best: str | None
    gain: Number | None


@dataclass(frozen=True)
class Bin:
    """Images of a span of confidence."""

    low: float
    high: float
    images: int
    confidence: float
    right: Share


@dataclass(frozen=True)
class Probabilities:
    """Whether its outputs are probabilities, of known images."""

    findings: tuple[Finding, ...]
    outputs: str  # "logits" or "probabilities": what could be read of the classifier
    images: int
    confidence: Number
    accuracy: Share | None
    gap: Number | None  # mean confidence minus accuracy
    sure: Share  # softmax of at least 0.99
    one: Share  # of exactly 1.0 in float32
    ece: float | None
    ece_by_chance: tuple[float, float] | None  # mean and 95 % quantile of a perfectly calibrated classifier
    adaptive_ece: float | None
    adaptive_ece_by_chance: tuple[float, float] | None
    log_loss: float | None
    temperature: float | None
    log_loss_at_temperature: float | None
    ece_at_temperature: float | None
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class ClassLine:
    """One class. recall: of its images, how many were recognised; precision: of those called so, how many were."""

    name: str
    images: int
    recall: Share
    precision: Share
    confidence: Number  # of its images
    gap: Number  # mean confidence minus recall
    ece: float | None
    adaptive_ece: float | None


@dataclass(frozen=True)
class Confused:
    """Images of one class that were taken for another."""

    true: str
    said: str
    share: Share


@dataclass(frozen=True)
class Mistake:
    """A known image that the classifier is wrong about. picture: its key among the pictures."""

    id: str
    true: str
    said: str
    confidence: float
    picture: str


@dataclass(frozen=True)
class Classes:
    """Per class, on labelled known images. counts [c, c]: rows are true classes; None for more than 50 classes."""

    findings: tuple[Finding, ...]
    images: int
    accuracy: Share | None
    lines: tuple[ClassLine, ...]
    confused: tuple[Confused, ...]  # the most frequent first
    counts: tuple[tuple[int, ...], ...] | None
    names: tuple[str, ...]
    mistakes: tuple[Mistake, ...]  # the most confident first


@dataclass(frozen=True)
class UnknownKind:
    """One kind of images of no class. caught: {detector: share called unknown, at alpha}.

    origin: "made" (from `knownot.outliers`), "fooling" or "yours".
    """

    kind: str
    origin: str
    family: str
    summary: str
    proper: bool  # surely of no class; what may still be recognised does not count
    images: int
    confidence: Number
    half: Share  # softmax of at least 0.5
    ninety: Share
    sure: Share  # of at least 0.99
    one: Share  # of exactly 1.0 in float32
    accepted: Share | None  # by a threshold on softmax that loses alpha of the known images
    caught: Mapping[str, Share]
    auroc: Mapping[str, Number]
    said: str  # the class most often given
    picture: str  # of the image it is most sure of
    picture_class: str
    picture_confidence: float


@dataclass(frozen=True)
class Unknown:
    """Confidence on things of no class."""

    findings: tuple[Finding, ...]
    threshold: float | None  # softmax below it is unknown
    lines: tuple[UnknownKind, ...]


@dataclass(frozen=True)
class DetectorLine:
    """One detector at the same false-alarm rate. Means are over families of made images, so that none outvotes others.
    calibration: known images that decide its threshold.
    """

    detector: str
    calibration: int
    caught: float | None  # mean over families of the share called unknown
    worst: str
    worst_caught: float | None
    auroc: float | None
    caught_yours: Share | None
    caught_fooling: Share | None


@dataclass(frozen=True)
class Command:
    what: str
    command: str


@dataclass(frozen=True)
class Help:
    """What would help: detectors side by side."""

    findings: tuple[Finding, ...]
    alpha: float
    guarantee: str
    new: bool  # whether the images that decide thresholds are new to the classifier
    lines: tuple[DetectorLine, ...]
    left_out: Mapping[str, str]
    commands: tuple[Command, ...]


@dataclass(frozen=True)
class Map:
    """Features on a plane. groups: {what: points [n, 2]}; roles: {what: how it is drawn}."""

    findings: tuple[Finding, ...]
    of: str
    explained: tuple[float, float] | None  # share of the variance of known images on the two axes of the PCA
    pca: Mapping[str, tuple[tuple[float, float], ...]]
    tsne: Mapping[str, tuple[tuple[float, float], ...]] | None
    roles: Mapping[str, str]


@dataclass(frozen=True)
class Subject:
    """What was audited."""

    model: str
    framework: str
    classes: int
    features: int | None
    stages: tuple[str, ...]
    known: str
    images: int
    labelled: bool
    calibration: str
    calibration_images: int
    measured_on: str  # which images the sections on known images speak of
    unknown: tuple[str, ...]
    alpha: float
    seed: int
    unreadable: int
    first_unreadable: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """Everything, in the order of the page. when, seconds: the only fields that differ from run to run."""

    schema: int
    knownot: str
    when: str
    seconds: Mapping[str, float]
    subject: Subject
    findings: tuple[Finding, ...]  # of all sections, the gravest first
    inputs: Inputs
    probabilities: Probabilities
    classes: Classes
    unknown: Unknown
    help: Help
    map: Map
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)  # uint8 [h, w, 3]; not in the JSON


def ordered(findings: list[Finding]) -> tuple[Finding, ...]:
    """The gravest first, those of one severity in the order of the sections."""
    return tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), SECTIONS.index(f.section))))


def plain(thing: Any) -> Any:
    """As JSON has it: what is not a number is null, numbers have six significant digits, pictures are left out."""
    if is_dataclass(thing) and not isinstance(thing, type):
        return {f.name: plain(getattr(thing, f.name)) for f in fields(thing) if f.name != "pictures"}
    if isinstance(thing, Mapping):
        return {str(key): plain(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple | np.ndarray):
        return [plain(x) for x in thing]
    if isinstance(thing, bool | np.bool_):
        return bool(thing)
    if isinstance(thing, int | np.integer):
        return int(thing)
    if isinstance(thing, float | np.floating):
        return float(f"{thing:.{DIGITS}g}") if math.isfinite(thing) else None
    return thing

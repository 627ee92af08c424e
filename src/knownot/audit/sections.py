"""The sections of an audit, as the JSON has them; docs/how-to/audit.md explains every field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .record import Finding, Number, Share


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
class RandomInput:
    """Numbers from 0 to 1 as the input, in plain words. zero, unit: which pixel values, of 0 to 255, an input of 0 and
    one of 1 are, None where the input is given as it is; black_class, black_confidence: what a black image is called;
    nearest: the class of the known image that it is most like, and likeness, their cosine."""

    text: str
    zero: float | None = None
    unit: float | None = None
    black_class: str | None = None
    black_confidence: float | None = None
    nearest: str | None = None
    likeness: float | None = None


@dataclass(frozen=True)
class ChangeLine:
    """One usual change of known images. accuracy: of the classifier on them; without labels, the share that it calls as
    before; rejected: called unknown."""

    kind: str
    words: str
    accuracy: Share
    rejected: Share


@dataclass(frozen=True)
class Changed:
    """Known images that have changed. command: what helps."""

    text: str = ""
    detector: str = ""
    alpha: float | None = None
    lines: tuple[ChangeLine, ...] = ()
    command: str = ""


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
    random_input: RandomInput = RandomInput("")
    changed: Changed = Changed()
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)  # uint8 [h, w, 3]; not in the JSON

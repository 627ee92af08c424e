"""Every detector on the same images: one pass to fit them all, one over each set to score them all."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import public
from ..arrays import Activations, Capabilities, Preprocess
from ..detectors import DETECTORS, Recipe, resolve
from ..detectors.base import to_namespace
from ..errors import KnownotError, OptionError
from ..fitting.labels import class_order
from ..fitting.many import CalibratedDetector, PassResults, fit_known, score_calibration
from ..fitting.options import CalibrationOptions
from ..fitting.setup import PassOptions, open_sources, set_up
from ..images import Images, open_images
from ..measure import aupr_unknown, auroc, fpr_at_95_known_recall, fpr_at_95_unknown_recall
from ..models import open_model
from ..plots.writing import put
from ..selection.choice import watch
from ..selection.decision import decide
from ..selection.diagnostics import Check, answers, auroc_of, flags
from .page import page
from .scoring import rejected, score_set

EACH, KNOWN = 24, 1_000  # made outliers of each kind, and known images, that detectors are checked on


@dataclass(frozen=True)
class Line:
    """One detector on one set of unknown images (shares, 0 to 1)."""

    detector: str
    unknown: str
    auroc: float
    aupr: float
    fpr_at_95_unknown_recall: float
    fpr_at_95_known_recall: float
    caught: float  # share of the unknown images called unknown by the calibrated rule


@dataclass(frozen=True)
class Comparison:
    """lines: detector × unknown set. false_alarms: {detector: {known set: share called unknown}}.

    accuracy: {known set: accuracy, NaN without labels}. left_out: {detector: why it cannot be used on this classifier}.
    checks: what known images and made outliers say of each detector, flags first (`diagnostics.table` prints it).
    choices: {detector that chose: what of each candidate}.
    scores: {set: {detector: scores [n]}}, of known and unknown sets, for whoever wants to look further.
    """

    lines: tuple[Line, ...]
    false_alarms: Mapping[str, Mapping[str, float]]
    accuracy: Mapping[str, float]
    left_out: Mapping[str, str]
    notes: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    choices: Mapping[str, tuple[Check, ...]] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        """The best detectors by mean AUROC."""
        names = sorted(dict.fromkeys(line.detector for line in self.lines), key=lambda name: -self.mean(name))
        sets = len(dict.fromkeys(line.unknown for line in self.lines))
        best = [
            f"{name}: AUROC {self.mean(name):.1%} on average, {self.worst(name):.1%} at worst" for name in names[:5]
        ]
        more = [f"… and {len(names) - 5} more"] if len(names) > 5 else []
        left = [f"left out: {', '.join(self.left_out)}"] if self.left_out else []
        head = f"Comparison: {len(names)} detectors on {sets} set{'s' * (sets != 1)} of unknown images"
        return "\n  ".join([head, *best, *more, *left])

    def mean(self, detector: str, what: str = "auroc") -> float:
        """Over the unknown sets."""
        return float(np.mean([getattr(line, what) for line in self.lines if line.detector == detector]))

    def worst(self, detector: str) -> float:
        """The lowest AUROC over the unknown sets."""
        return min(line.auroc for line in self.lines if line.detector == detector)

    def write(self, path: str | Path, *, title: str = "Detectors compared") -> Path:
        """One self-contained HTML page: AUROC of each detector on each unknown set with intervals, plot and table.

        Raises MissingExtraError without the extra `[audit]` (matplotlib).
        """
        path = Path(path)
        put(path, page(self, title).encode("utf-8", "backslashreplace"))
        return path


@public
def compare(
    model: Any,
    known: Any,
    labels: Any = None,
    *,
    calibration: tuple[Any, Any],
    test: Mapping[str, tuple[Any, Any]],
    unknown: Mapping[str, Any],
    detectors: Sequence[Any] | Mapping[str, Any] | None = None,
    alpha: float = 0.05,
    guarantee: str = "pac",
    delta: float = 0.01,
    preprocess: Preprocess | None = None,
    features: Any = None,
    features_preprocess: Preprocess | None = None,
    class_names: Sequence[str] | None = None,
    batch_size: int | None = None,
    check: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> Comparison:
    """Fit, calibrate and measure many detectors on one classifier; each image is seen once.

    Parameters
    ----------
    model, alpha, guarantee, delta, preprocess, features, features_preprocess, class_names, batch_size, seed, progress
        As of `knownot.fit`.
    known, labels
        What the detectors are fitted on.
    calibration : (ImagesLike, LabelsLike)
        Known images that are new to the classifier.
    test : mapping of str to (ImagesLike, LabelsLike)
        Known images, new again. The first set is what unknown images are compared with; the others (the same images
        compressed, blurred, …) show how the rate of false alarms holds under a shift.
    unknown : mapping of str to ImagesLike
        {name: images}.
    detectors : sequence or mapping, optional
        Names or recipes, all of the table by default; one that this classifier does not allow is left out with its
        reason.
    check : bool, default True
        Whether to show every detector some 460 made outliers as well, made of calibration images, and to flag those
        that fail on them.

    Returns
    -------
    Comparison
    """
    options = CalibrationOptions(alpha, guarantee, delta, seed)
    options.check()
    known_sets, unknown_sets = _sets(test, unknown)
    opened = open_model(model)
    sources = open_sources(opened, (known, labels), calibration, (features, features_preprocess))
    if sources.again:
        text = f"{sources.again} What is measured on them looks better than it is."
        warnings.warn(text, UserWarning, stacklevel=3)
    asked = detectors if isinstance(detectors, Mapping) else {str(d): d for d in detectors or DETECTORS}
    recipes, left_out, notes = resolve_detectors(asked, sources.capabilities)
    if not recipes:
        raise OptionError(f"None of the detectors can be used here: {'; '.join(left_out.values())}")
    job = set_up(sources, recipes, options, preprocess, class_names, PassOptions(batch_size, progress))
    for source in known_sets.values():
        class_order(source, opened, job.names)  # what cannot be is told before anything is fitted
    found = score_calibration(fit_known(job, strict=False), (watch(seed),))
    decided = {name: decide(found, name) for name in found.fitted}
    rules = {name: rule for name, (rule, _) in decided.items()}
    choices = {name: choice.checks for name, (_, choice) in decided.items() if choice is not None}
    notes += [f"{name}: {choice.note}" for name, (_, choice) in decided.items() if choice is not None]
    checks = _checked(rules, found) if check else ()
    sets = {name: _measured(rules, found, name, source, True) for name, source in known_sets.items()}
    sets |= {name: _measured(rules, found, name, source, False) for name, source in unknown_sets.items()}
    base = sets[next(iter(test))].scores
    lines = tuple(_line(d, name, base[d], sets[name]) for d in rules for name in unknown)
    return Comparison(
        lines=lines,
        false_alarms={d: {name: sets[name].rejected[d] for name in test} for d in rules},
        accuracy={name: sets[name].accuracy for name in test},
        left_out={**left_out, **found.refused},
        notes=(*job.notes, *notes),
        checks=checks,
        choices=choices,
        scores={name: one.scores for name, one in sets.items()},
    )


def _sets(
    test: Mapping[str, tuple[Any, Any]], unknown: Mapping[str, Any]
) -> tuple[dict[str, Images], dict[str, Images]]:
    """Both opened, before anything is fitted."""
    for name, given in (("test", test), ("unknown", unknown)):
        if not given:
            raise OptionError(f"{name}={{}}: expected at least one set of images, by its name.")
    if twice := [name for name in unknown if name in test]:
        raise OptionError(f"test= and unknown= both have a set {twice[0]!r}: give each a name of its own.")
    opened = {name: open_images(*given) for name, given in test.items()}
    return opened, {name: open_images(given) for name, given in unknown.items()}


def resolve_detectors(
    asked: Mapping[str, Any], capabilities: Capabilities
) -> tuple[dict[str, Recipe], dict[str, str], list[str]]:
    """({name: recipe}, {name: why it cannot be used here}, notes)."""
    recipes: dict[str, Recipe] = {}
    left_out: dict[str, str] = {}
    notes: list[str] = []
    for name, one in asked.items():
        try:
            recipes[name], said = resolve(one, capabilities)
            notes += [f"{name}: {sentence}" for sentence in said]
        except KnownotError as error:
            left_out[name] = str(error)
    return recipes, left_out, notes


def _checked(rules: Mapping[str, CalibratedDetector], found: PassResults) -> tuple[Check, ...]:
    """Of each detector, as it is used, against made outliers; the known images are some that ranked or calibrated."""
    in_float32 = [to_namespace(rule.detector, np, np.float32) for rule in rules.values()]
    seen, looking = found.watch, found.calibration
    assert seen is not None
    assert looking is not None

    def scored(batch: Activations) -> list[np.ndarray]:
        return [np.asarray(detector.score(batch)) for detector in in_float32]

    known = scored(seen.rows(KNOWN)[0])
    outliers = answers(looking, *seen.pictures(), each=EACH, seed=found.job.options.seed)
    made = {kind: scored(batch) for kind, batch in outliers.items()}
    checks = []
    for i, name in enumerate(rules):
        aurocs = {kind: auroc_of(known[i], scores[i]) for kind, scores in made.items()}
        checks.append(Check(name, flags(known[i], aurocs), aurocs))
    return tuple(checks)


@dataclass(frozen=True)
class _Measured:
    """Of one set of images: scores [n] and the share called unknown, by detector; the accuracy, NaN without labels."""

    scores: Mapping[str, np.ndarray]
    rejected: Mapping[str, float]
    accuracy: float


def _measured(
    rules: Mapping[str, CalibratedDetector], found: PassResults, name: str, source: Images, known: bool
) -> _Measured:
    """One pass over a set. known: whether its labels are the classifier's."""
    one = score_set({d: rule.detector for d, rule in rules.items()}, found.job, name, source, known=known)
    return _Measured(one.scores, {d: rejected(rule, one, d) for d, rule in rules.items()}, one.accuracy)


def _line(detector: str, name: str, known: np.ndarray, one: _Measured) -> Line:
    """known: the detector's scores [n] of the first known set."""
    unknown = one.scores[detector]
    return Line(
        detector=detector,
        unknown=name,
        auroc=auroc(known, unknown),
        aupr=aupr_unknown(known, unknown),
        fpr_at_95_unknown_recall=fpr_at_95_unknown_recall(known, unknown),
        fpr_at_95_known_recall=fpr_at_95_known_recall(known, unknown),
        caught=one.rejected[detector],
    )

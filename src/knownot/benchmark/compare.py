"""Every detector on the same images: one pass to fit them all, one over each set to score them all."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import public
from ..arrays import Activations, Preprocess
from ..calibration import PER_CLASS, check_options, images_needed
from ..detectors import DETECTORS, Detector, Recipe, resolve
from ..detectors.base import moved
from ..detectors.passes import Pass, each_once, passing
from ..detectors.reducing import reducing
from ..errors import KnownotError, OptionError
from ..fitting.auxiliary import Auxiliary, open_auxiliary
from ..fitting.extraction import Extractor, Subsample, batch_size_for
from ..fitting.many import CalibratedDetector, decide, fitted_on, measured_on
from ..fitting.preprocessing import choose, class_order
from ..images import check_disjoint, open_images
from ..measure import aupr_unknown, auroc, fpr_at_95_known_recall, fpr_at_95_unknown_recall
from ..models import open_model
from ..selection.choice import choose as choose_detectors
from ..selection.choice import watch
from ..selection.diagnostics import Check, answers, auroc_of, flags
from .page import page

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
        path.write_text(page(self, title), encoding="utf-8")
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

    known, labels: what the detectors are fitted on. calibration: (images, labels) new to the classifier.
    test: {name: (images, labels)} of known images, new again; the first is what unknown images are compared with,
    the others (the same images compressed, blurred, …) show how the false-alarm rate holds under a shift.
    unknown: {name: images}. detectors: names or recipes, all of the table by default; one that this classifier does
    not allow is left out with its reason. features, features_preprocess: a second network whose features detectors may
    look at, as of `knownot.fit`. check: also show every detector some 460 made outliers, made of calibration
    images, and flag those that fail on them.
    """
    check_options(alpha, delta, guarantee)
    opened = open_model(model)
    if features is None and features_preprocess is not None:
        raise OptionError("features_preprocess= was given without features=, the second network that it is for.")
    other = None if features is None else Auxiliary(open_auxiliary(features), None)
    images, held = open_images(known, labels), open_images(*calibration)
    if again := check_disjoint(images, held):
        warnings.warn(f"{again} What is measured on them looks better than it is.", UserWarning, stacklevel=3)
    offers = opened.offers if other is None else other.beside(opened.offers)
    offers = replace(offers, labels=images.labelled)
    recipes: dict[str, Recipe] = {}
    left_out: dict[str, str] = {}
    notes: list[str] = []
    wanted = detectors if isinstance(detectors, Mapping) else {str(d): d for d in detectors or DETECTORS}
    for name, asked in wanted.items():
        try:
            recipes[name], said = resolve(asked, offers)
            notes += [f"{name}: {sentence}" for sentence in said]
        except KnownotError as error:
            left_out[name] = str(error)
    names, order = class_order(images, opened, class_names)
    size = batch_size or batch_size_for(opened, preprocess)
    way, _, found = choose(opened, images, preprocess, order, batch_size=size, seed=seed, progress=progress)
    if other is not None:
        other, said = other.prepared(images, features_preprocess, opened, order, batch_size=size, seed=seed)
        notes = [*said, *notes]
    size = batch_size or batch_size_for(opened, way, other)

    reductions = [one for recipe in recipes.values() for one in recipe.reductions(offers)]
    shown = reducing(opened, reductions)  # no map outlives its batch

    def walk(passes: Iterable[Pass]) -> Extractor:
        return Extractor(passing(shown, each_once(passes), way), way, size, 0, seed, progress, other)

    learning = walk(one for recipe in recipes.values() for one in recipe.passes(held_out=False))
    refused: dict[int, str] = {}
    batches = learning.over(images, "fit", order, names, None)
    fitted = fitted_on(list(recipes.values()), batches, opened, offers, refused=refused)
    for name, why in [(list(recipes)[i], why) for i, why in refused.items()]:
        del recipes[name]
        left_out[name] = why
    seen = watch(seed)
    looking = walk(one for detector in fitted for one in detector.passes)
    batches = looking.over(held, "calibrate", class_order(held, opened, names)[1], names, None, watch=seen)
    parts, predicted = measured_on(fitted, (a for a, _ in batches))
    rules: dict[str, CalibratedDetector] = {}
    choices: dict[str, tuple[Check, ...]] = {}
    classes_ = opened.offers.classes if guarantee in PER_CLASS else 1
    for name, detector, mine in zip(recipes, fitted, parts, strict=True):
        evidence = 0
        if detector.chooses:
            chosen = choose_detectors(
                detector, recipes[name], mine, seen.numbers, seen, walk=walk(()), offers=offers,
                needed=images_needed(alpha, delta, guarantee) * classes_, seed=seed,
            )  # fmt: skip
            detector, mine, evidence, choices[name] = chosen.detector, chosen.parts, chosen.evidence, chosen.checks
            notes.append(f"{name}: {chosen.note}")
        rules[name] = decide(
            detector, mine, predicted, alpha=alpha, guarantee=guarantee, delta=delta, seed=seed, numbers=seen.numbers,
            evidence=evidence,
        )  # fmt: skip
    checks = _checked(rules, looking, seen, seed) if check else ()
    quick = {name: moved(rule.detector, np, np.float32) for name, rule in rules.items()}
    scores: dict[str, dict[str, np.ndarray]] = {}
    rejected: dict[str, dict[str, float]] = {}
    accuracy: dict[str, float] = {}
    for name, given in {**test, **{name: (x, None) for name, x in unknown.items()}}.items():
        source = open_images(*given)
        pass_ = walk(one for rule in rules.values() for one in rule.detector.passes)
        labels_order = class_order(source, opened, names)[1] if name in test else None
        scores[name], classes = _scored(quick, pass_, source, name, labels_order, names, name in test)
        rejected[name] = {
            d: float(rule.calibration.unknown(rule.calibration.p_value(scores[name][d], classes), classes).mean())
            for d, rule in rules.items()
        }
        if name in test:
            accuracy[name] = pass_.confusion.accuracy if pass_.confusion.images else float("nan")
    base = scores[next(iter(test))]
    lines = tuple(
        Line(
            d,
            name,
            auroc(base[d], scores[name][d]),
            aupr_unknown(base[d], scores[name][d]),
            fpr_at_95_unknown_recall(base[d], scores[name][d]),
            fpr_at_95_known_recall(base[d], scores[name][d]),
            rejected[name][d],
        )
        for d in rules
        for name in unknown
    )
    alarms = {d: {name: rejected[name][d] for name in test} for d in rules}
    remarks = (*opened.notes, *found, *notes)
    return Comparison(lines, alarms, accuracy, left_out, remarks, checks, choices, scores)


def _checked(rules: Mapping[str, CalibratedDetector], walk: Extractor, seen: Subsample, seed: int) -> tuple[Check, ...]:
    """Of each detector, as it is used, against made outliers; the known images are some that ranked or calibrated."""
    detectors = [rule.detector for rule in rules.values()]

    def scored(batch: Activations) -> list[np.ndarray]:
        quick = [moved(detector, np, np.float32) for detector in detectors]
        return [np.asarray(detector.score(batch)) for detector in quick]

    known = scored(seen.rows(KNOWN)[0])
    made = {kind: scored(batch) for kind, batch in answers(walk, *seen.pictures(), each=EACH, seed=seed).items()}
    checks = []
    for i, name in enumerate(rules):
        found = {kind: auroc_of(known[i], scores[i]) for kind, scores in made.items()}
        checks.append(Check(name, flags(known[i], found), found))
    return tuple(checks)


def _scored(
    quick: Mapping[str, Detector],
    walk: Extractor,
    source: Any,
    name: str,
    order: np.ndarray | None,
    names: Sequence[str],
    labelled: bool,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    found: dict[str, list[np.ndarray]] = {d: [] for d in quick}
    classes = []
    for activations, _ in walk.over(source, name, order, names, None, labelled=labelled):
        classes.append(np.argmax(activations.logits, axis=1))
        for d, detector in quick.items():
            found[d].append(np.asarray(detector.score(activations)))
    return {d: np.concatenate(x) for d, x in found.items()}, np.concatenate(classes)

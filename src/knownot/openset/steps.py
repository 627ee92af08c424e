"""The steps of `fit`: agree on everything, look at the known images, choose where that is asked for, decide, record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import saving
from ..arrays import Offers, Preprocess
from ..calibration import PER_CLASS, check_options, images_needed
from ..detectors import Detector, Recipe, beside_default, classes, resolve
from ..detectors.passes import Pass, passing
from ..detectors.reducing import reducing
from ..errors import ModelError, OptionError, SavedError
from ..fitting.auxiliary import Auxiliary, open_auxiliary
from ..fitting.extraction import Extractor, HoldOut, Subsample, batch_size_for
from ..fitting.many import CalibratedDetector, decide, fitted_on, measured_on, random_numbers
from ..fitting.preprocessing import Trial, class_order
from ..fitting.preprocessing import choose as choose_preprocessing
from ..images import Images, check_disjoint, open_images
from ..models import Model, open_model
from ..selection.choice import Chosen, choose, enough, watch
from ..selection.diagnostics import Check, checked
from ..version import __version__


@dataclass(frozen=True)
class Record:
    """What happened at fit time, for people and for the report."""

    known: int = 0  # images that the statistics were gathered from
    held_out: int = 0  # of the known images, kept for calibration
    calibration: int = 0  # images that decide the threshold
    ranking: int = 0  # images that rank the members of a combination
    evidence: int = 0  # images, none that decide, that detectors were chosen by, with `made` outliers made of them
    made: int = 0
    accuracy: float | None = None  # on labelled calibration images (or on the known ones if those have no labels)
    accuracy_images: int = 0
    calibration_is_new: bool = False  # a calibration set was given
    preprocessing: str = ""  # how it was found, in a sentence; also among the notes
    trials: tuple[Trial, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()  # (id, reason), the first thousand
    unreadable_count: int = 0
    notes: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()  # detectors with something wrong; all that were looked at, where they were chosen
    low_accuracy_allowed: bool = False  # whoever fitted it said so
    second: str = ""  # the second network, in words; also among the notes
    seconds: float = 0.0
    version: str = __version__


@dataclass(frozen=True)
class Rule:
    """Of the calibration, and what of a fit is random."""

    alpha: float
    guarantee: str
    delta: float
    seed: int

    @property
    def needed(self) -> int:
        """Calibration images that decide the threshold."""
        return images_needed(self.alpha, self.delta, self.guarantee)

    def hold_out(self, count: int | None, want: int) -> HoldOut:
        return HoldOut(count, want, self.seed, self.alpha, self.delta, self.guarantee)

    def decide(self, found: PassResults, choice: Chosen | None, classes: int) -> CalibratedDetector:
        detector, parts, evidence = (found.detector, found.parts, 0)
        if choice is not None:
            detector, parts, evidence = choice.detector, choice.parts, choice.evidence
        decided = decide(
            detector, parts, found.predicted, alpha=self.alpha, guarantee=self.guarantee, delta=self.delta,
            seed=self.seed, numbers=found.numbers, evidence=evidence,
        )  # fmt: skip
        return replace(decided, calibration=decided.calibration.among(classes))


@dataclass(frozen=True)
class FitJob:
    """All that has to be agreed on before the known images are walked over."""

    model: Model
    offers: Offers  # of classifier and second network together
    recipe: Recipe
    images: Images
    held: Images | None  # calibration images; None: some of the known ones are held out
    second: Auxiliary | None
    way: Preprocess | None
    names: tuple[str, ...]  # of the classifier's outputs
    order: np.ndarray | None  # which output each label of the known images is
    trials: tuple[Trial, ...]
    found: tuple[str, ...]  # how the preprocessing was found
    notes: tuple[str, ...]
    rule: Rule
    size: int  # of a batch
    thumbnails: int
    progress: bool
    allow_low_accuracy: bool
    begin: float = field(default_factory=time.perf_counter)

    def walk(self, passes: tuple[Pass, ...], thumbnails: int = 0) -> Extractor:
        shown = reducing(self.model, self.recipe.reductions(self.offers))  # no map outlives its batch
        looking = passing(shown, passes, self.way)
        return Extractor(
            looking, self.way, self.size, thumbnails, self.rule.seed, self.progress, self.second,
            allow_low_accuracy=self.allow_low_accuracy,
        )  # fmt: skip


def detector_for(model: Any, asked: Any) -> Any:
    """What is asked for; if nothing is, the default, and for a retrained classifier's folder also the scorer in it."""
    if asked is not None:
        return asked
    if not isinstance(model, str | Path) or not Path(model).is_dir():
        return "default"
    things, about, _ = saving.read(Path(model), classes())
    try:
        return beside_default(str(about["remedy"]), things["detector"])
    except KeyError as error:
        raise SavedError(f"{str(model)!r} is no retrained classifier: its manifest says no {error}.") from error


def prepared(
    model: Any,
    known: tuple[Any, Any],
    calibration: tuple[Any, Any],
    rule: Rule,
    *,
    detector: Any,
    unknown: bool,
    preprocess: Preprocess | None,
    features: Any,
    features_preprocess: Preprocess | None,
    class_names: Sequence[str] | None,
    head: str | None,
    stages: Sequence[str] | None,
    batch_size: int | None,
    thumbnails: int,
    progress: bool,
    allow_low_accuracy: bool,
) -> FitJob:
    """Open everything, and say what does not go together. known, calibration: (images, labels)."""
    begin = time.perf_counter()
    check_options(rule.alpha, rule.delta, rule.guarantee)
    opened = open_model(model, head=head, stages=stages)
    if not opened.offers.classes:
        raise ModelError("The classifier was opened with embedding=True: it has no classes. Give it as features=.")
    images = open_images(*known)
    held = open_images(*calibration) if calibration[0] is not None else None
    check_disjoint(images, held)
    if features is None and features_preprocess is not None:
        raise OptionError("features_preprocess= was given without features=, the second network that it is for.")
    other = None if features is None else Auxiliary(open_auxiliary(features), None)
    offers = opened.offers if other is None else other.beside(opened.offers)
    offers = replace(offers, labels=images.labelled)
    recipe, notes = resolve(detector_for(model, detector), offers)
    if unknown and not recipe.kind.chooses:
        raise OptionError(
            "unknown= is evidence for the automatic choice: give detector='auto' as well, or leave it out."
        )
    names, order = class_order(images, opened, class_names)
    size = batch_size or batch_size_for(opened, preprocess)
    way, trials, found = choose_preprocessing(
        opened, images, preprocess, order, batch_size=size, seed=rule.seed, progress=progress
    )
    if other is not None:
        other, said = other.prepared(images, features_preprocess, opened, order, batch_size=size, seed=rule.seed)
        notes = [*said, *notes]
    of_sources = [note for s in (images, held) if s is not None for note in (*s.notes, *s.label_notes)]
    return FitJob(
        opened, offers, recipe, images, held, other, way, tuple(names), order, trials, tuple(found),
        (*opened.notes, *found, *notes, *of_sources), rule, batch_size or batch_size_for(opened, way, other),
        thumbnails, progress, allow_low_accuracy, begin,
    )  # fmt: skip


@dataclass(frozen=True)
class PassResults:
    """What the passes over known and calibration images gave."""

    walk: Extractor  # over the known images
    detector: Detector  # fitted
    parts: np.ndarray  # [n, m] scores of its members, of calibration images
    predicted: np.ndarray  # [n] their classes
    numbers: np.ndarray  # [n] random, theirs
    seen: Subsample | None  # some of them; None unless detectors are to be chosen
    rights: tuple[float, int]  # accuracy, and on how many labelled images
    notes: tuple[str, ...] = ()


def looked(job: FitJob) -> PassResults:
    """One pass over the known images, and one over the calibration images if there are any."""
    seen = watch(job.rule.seed) if job.recipe.kind.chooses else None
    walk = job.walk(job.recipe.passes(held_out=job.held is None), job.thumbnails)
    found = _held_out(job, walk, seen) if job.held is None else _calibrated(job, job.held, walk, seen)
    return found if found.rights[1] else replace(found, rights=(walk.confusion.accuracy, walk.confusion.images))


def _held_out(job: FitJob, walk: Extractor, seen: Subsample | None) -> PassResults:
    want = job.rule.needed * (2 if job.recipe.kind.ranks else 1)
    count = job.images.count
    if job.recipe.kind.chooses and (count is None or enough(job.rule.needed) <= count // 2):
        want = max(want, enough(job.rule.needed))
    hold = job.rule.hold_out(count, want)
    batches = walk.over(job.images, "fit", job.order, job.names, hold, watch=seen)
    (detector,) = fitted_on([job.recipe], batches, job.model, job.offers)
    walk.judge(job.names, job.trials)
    (parts,), predicted = measured_on([detector], [hold.activations()] if hold.kept else [])
    note = (
        f"No calibration images were given: {len(parts):,} of the known images were held out instead. If the "
        "classifier was trained on them, it treats them better than new images and more than the promised share of "
        "new known images will be rejected. Give calibration= images that the classifier has never seen."
    )
    return PassResults(walk, detector, parts, predicted, hold.numbers, seen, walk.rights(hold), (note,))


def _calibrated(job: FitJob, held: Images, walk: Extractor, seen: Subsample | None) -> PassResults:
    batches = walk.over(job.images, "fit", job.order, job.names, None)
    (detector,) = fitted_on([job.recipe], batches, job.model, job.offers)
    walk.judge(job.names, job.trials)
    again = job.walk(detector.passes)
    names, order = class_order(held, job.model, job.names, which="calibration")
    new = again.over(held, "calibrate", order, names, None, watch=seen)
    (parts,), predicted = measured_on([detector], (activations for activations, _ in new))
    again.judge(job.names, job.trials)
    walk.unreadable += again.unreadable
    numbers = random_numbers(len(parts), job.rule.seed) if seen is None else seen.numbers
    rights = (again.confusion.accuracy, again.confusion.images)
    return PassResults(walk, detector, parts, predicted, numbers, seen, rights)


def chosen(job: FitJob, found: PassResults, unknown: Any) -> Chosen | None:
    """What the automatic choice says; None where the detectors were chosen by whoever asked for them."""
    if found.seen is None:
        return None
    theirs = None
    if unknown is not None:
        strange = job.walk(found.detector.passes)
        own = strange.over(open_images(unknown), "unknown", None, job.names, None, labelled=False)
        (theirs,), _ = measured_on([found.detector], (activations for activations, _ in own))
    classes = job.offers.classes if job.rule.guarantee in PER_CLASS else 1
    return choose(
        found.detector, job.recipe, found.parts, found.numbers, found.seen,
        walk=found.walk, offers=job.offers, needed=job.rule.needed * classes, seed=job.rule.seed, unknown=theirs,
    )  # fmt: skip


def make_record(job: FitJob, found: PassResults, choice: Chosen | None, decided: CalibratedDetector) -> Record:
    right, of = found.rights
    notes = [*job.notes, *found.notes, *([] if choice is None else [choice.note])]
    if of >= 20 and right < 0.6:
        notes.append(
            f"The classifier is right on only {right:.1%} of {of:,} labelled known images. If it was better "
            "in training, the images are preprocessed differently here."
        )
    walk = found.walk
    seen = walk.confusion.counts.sum(axis=1)
    if walk.confusion.images and not seen.all():
        absent = [repr(job.names[k]) for k in np.flatnonzero(seen == 0)]
        some = ", ".join(absent[:5]) + ", …" * (len(absent) > 5)
        notes.append(
            f"No known image is of the class{'es' * (len(absent) > 1)} {some}: images of "
            f"{'these classes' if len(absent) > 1 else 'it'} will look unknown."
        )
    if few := decided.calibration.few:
        some = ", ".join(f"{job.names[k]!r} ({n})" for k, n in list(few.items())[:10]) + ", …" * (len(few) > 10)
        notes.append(
            f"Too few calibration images were predicted as {some} for a promise of their own: images of "
            f"{'these classes' if len(few) > 1 else 'this class'} are compared with all calibration images, and any "
            "share of the known ones among them may be rejected."
        )
    return Record(
        known=walk.images,
        held_out=len(found.parts) if job.held is None else 0,
        calibration=len(decided.calibration.scores),
        ranking=len(found.parts) - len(decided.calibration.scores) if decided.detector.ranks else 0,
        evidence=0 if choice is None else choice.evidence,
        made=0 if choice is None else choice.made,
        accuracy=right if of else None,
        accuracy_images=of,
        calibration_is_new=job.held is not None,
        preprocessing=" ".join(job.found),
        trials=job.trials,
        unreadable=tuple(walk.unreadable[:1000]),
        unreadable_count=len(walk.unreadable),
        notes=tuple(notes),
        checks=checked(found.detector.members, found.parts) if choice is None else choice.checks,
        low_accuracy_allowed=job.allow_low_accuracy,
        second="" if job.second is None else job.second.words,
        seconds=time.perf_counter() - job.begin,
    )

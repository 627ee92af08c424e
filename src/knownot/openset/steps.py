"""The steps of `fit`, which is the case of one: agree on everything, walk over the images, choose and calibrate."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import saving
from ..arguments import whole
from ..arrays import Preprocess
from ..calibration import as_share
from ..detectors import Detector, beside_default, classes, resolve
from ..errors import CalibrationError, ModelError, OptionError, SavedError
from ..fitting.content import Contents, lookalikes, twins
from ..fitting.labels import class_order
from ..fitting.many import (
    RANKING,
    CalibratedDetector,
    PassResults,
    check_enough,
    fit_known,
    measured_on,
    score_calibration,
)
from ..fitting.none_classes import NoneShare, apart
from ..fitting.options import CalibrationOptions
from ..fitting.sampling import HoldOut
from ..fitting.setup import FitJob, PassOptions, Sources, open_sources
from ..fitting.setup import set_up as agree
from ..fitting.thumbnails import Thumbnails
from ..fitting.trial import Trial
from ..images import open_images
from ..images.disjoint import CURE, VOID
from ..images.labels import names_of
from ..images.ways import as_preprocess
from ..models import open_model
from ..outliers.changes import Changed
from ..selection.choice import Chosen
from ..selection.decision import hold_out, subsample
from ..selection.diagnostics import Check, checked
from ..shifts.base import Shifts
from ..shifts.kinds import asked_for
from ..shifts.learn import copied, learn
from ..shifts.sample import Sample
from ..version import __version__

NOTHING = {
    "background",
    "none",
    "nothing",
    "other",
    "others",
    "unknown",
    "negative",
    "neither",
    "misc",
    "garbage",
    "empty",
}
SOME = 0.1  # of the calibration images: so many copies of known ones, and nothing is promised
ONE = "detector"  # the name of the only one


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
    void: str = ""  # why nothing can be promised; "" where the promise holds
    none_classes: tuple[str, ...] = ()  # classes of the user's own that mean "nothing": unknown
    none_share: float = 0.0  # of known images, which the classifier takes for one of those: these are rejected too
    seconds: float = 0.0
    version: str = __version__


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


def set_up(
    sources: Sources,
    detector: Any,
    options: CalibrationOptions,
    preprocess: Preprocess | None,
    class_names: Sequence[str] | None,
    passes: PassOptions,
    unknown: bool,
) -> FitJob:
    """Agree on everything before any image is walked over. unknown: whether unknown images were given."""
    recipe, notes = resolve(detector, sources.capabilities)
    if unknown and not recipe.kind.chooses:
        raise OptionError(
            "unknown= is evidence for the automatic choice: give detector='auto' as well, or leave it out."
        )
    _checked_first(sources, recipe.kind.needs_reference, options, class_names)
    job = agree(sources, {ONE: recipe}, options, preprocess, class_names, passes)
    of_sources = [note for s in (job.images, job.held) if s is not None for note in (*s.notes, *s.label_notes)]
    return replace(job, notes=(*job.notes, *notes, *of_sources))


def _checked_first(
    sources: Sources, ranks: bool, options: CalibrationOptions, class_names: Sequence[str] | None
) -> None:
    """Say what can be said of the calibration images before the known ones are walked over."""
    count = sources.images.count
    if sources.held is not None:
        names, _ = class_order(sources.images, sources.model, class_names)
        class_order(sources.held, sources.model, names, which="calibration")
        if sources.held.count is not None:
            check_enough(sources.held.count, ranks, options)
    elif count is not None:
        HoldOut(count, options.needed + RANKING[0] * ranks, options)


@dataclass(frozen=True)
class Agreed:
    """What a fit is to do. none: counts what the classifier takes for nothing; named: those classes; again: that the
    calibration images are the known ones again. asked: the detector."""

    job: FitJob
    none: tuple[NoneShare, ...] = ()
    named: tuple[str, ...] = ()
    again: str = ""
    asked: Any = None
    shifts: Any = None  # as given to `fit`
    changes: Mapping[str, Changed] = field(default_factory=dict)  # of images, that are looked at


def agree_on(model: Any, known: tuple[Any, Any], **asked: Any) -> Agreed:
    """Open everything and agree on it before any image is walked over. known: (images, labels); asked: all further
    arguments of `fit`."""
    whole("thumbnails", asked["thumbnails"])
    alpha, delta = (as_share(name, asked[name]) for name in ("alpha", "delta"))
    options = CalibrationOptions(alpha, asked["guarantee"], delta, asked["seed"])
    options.check()
    changes = asked_for(asked["shifts"])
    opened = open_model(model, head=asked["head"], stages=asked["stages"])
    if not opened.capabilities.classes:
        raise ModelError("The classifier was opened with embedding=True: it has no classes. Give it as features=.")
    preprocess = as_preprocess(asked["preprocess"], channels=opened.input.channels)
    second = asked["features"], as_preprocess(asked["features_preprocess"], option="features_preprocess=")
    class_names = names_of(asked["class_names"])
    sources = open_sources(opened, known, (asked["calibration"], asked["calibration_labels"]), second)
    again, named, none = sources.again, tuple[str, ...](), tuple[NoneShare, ...]()
    if asked["none_classes"]:
        sources, class_names, named = apart(sources, asked["none_classes"], class_names)
        none = (NoneShare(),)
    detector = detector_for(model, asked["detector"])
    passes = PassOptions(asked["batch_size"], asked["progress"], asked["allow_low_accuracy"])
    job = set_up(sources, detector, options, preprocess, class_names, passes, asked["unknown"] is not None)
    return Agreed(job=job, none=none, named=named, again=again, asked=detector, shifts=asked["shifts"], changes=changes)


@dataclass(frozen=True)
class Passed:
    """What the passes gave, without images that calibrate nothing. void: why nothing is promised."""

    found: PassResults
    notes: tuple[str, ...]
    void: str = ""


def run_passes(job: FitJob, thumbnails: Thumbnails, sample: Sample, none: tuple[NoneShare, ...] = ()) -> Passed:
    """One pass over the known images, and one over the calibration images if there are any. sample: sees those that
    calibrate."""
    watch, contents = subsample(job), Contents()
    if job.held is None:
        hold = hold_out(job, RANKING[0], watch)
        hold.also = sample
        return checked_passes(score_calibration(fit_known(job, (*none, thumbnails, hold), contents=contents)))
    known = fit_known(job, (thumbnails,), contents=contents)
    return checked_passes(score_calibration(known, (*none, sample, *(() if watch is None else (watch,)))))


def checked_passes(found: PassResults) -> Passed:
    """What was found, without images that calibrate nothing, and what there is to say about those."""
    if found.held_contents is None:
        return Passed(found, _held_out(found))
    counts, notes, void = distinct(found, found.watch is None)
    member_scores = {name: part[counts] for name, part in found.member_scores.items()}
    found = replace(
        found,
        member_scores=member_scores,
        predicted=found.predicted[counts],
        keys=found.keys[counts],
        numbers=found.numbers[counts],
    )
    return Passed(found, notes, void)


def _held_out(found: PassResults) -> tuple[str, ...]:
    left, hold, contents = len(found.predicted), found.hold, found.contents
    assert hold is not None
    assert contents is not None
    note = (
        f"No calibration images were given: {left:,} of the known images were held out instead. If the "
        "classifier was trained on them, it treats them better than new images and more than the promised share of "
        "new known images will be rejected. Give calibration= images that the classifier has never seen."
    )
    if not hold.copies:
        return (note,)
    copies = (
        f"{contents.repeats:,} of the {contents.images:,} known images are the same image again. Such "
        f"copies calibrate nothing: {left:,} different ones were held out."
    )
    _enough_left(left, found.job.options.needed, copies)
    return (note, copies)


def distinct(found: PassResults, droppable: bool = True) -> tuple[np.ndarray, tuple[str, ...], str]:
    """(which calibration images count [n] bool, notes, why there is no promise: "" where there is one).

    Those that are among the known images do not. Where too few of them are left, or detectors were chosen by them
    already (not droppable), all count: there is a threshold, but nothing is promised of it.
    Raises CalibrationError when too few different images were given.
    """
    known, held, needed = found.contents, found.held_contents, found.job.options.needed
    assert known is not None
    assert held is not None
    notes: list[str] = []
    void = ""
    new = ~known.has(found.keys)
    n, of, left = len(new), held.images, int(new.sum())
    if repeats := held.repeats:
        notes.append(
            f"{repeats:,} of the {of:,} calibration images are the same image again. Each counts once: "
            f"the guarantee rests on {of - repeats:,} different ones."
        )
        _enough_left(n, needed, notes[-1])
    if not new.all():
        said = (
            f"{n - left:,} of the {n:,} calibration images are among the known images that the "
            "detectors are fitted on: the same content, whatever their names."
        )
        void = "" if left >= needed and droppable else f"{said} {VOID} {CURE}"
        notes.append(void or f"{said} They were left out, and the guarantee rests on the other {left:,}.")
    if len(alike := twins(held, known)):
        new &= ~np.isin(found.keys, alike)
        left = int(new.sum())
        said = (
            f"{len(alike):,} of the {n:,} calibration images look like another of them, encoded, resized or mirrored "
            f"again. Each counts once: the guarantee rests on {left:,} different ones."
        )
        _enough_left(left, needed, said)
        void = void or ("" if droppable else f"{said} {VOID} {CURE}")
        notes.append(void or said)
    near, compared = lookalikes(held, known)
    if near:
        copies = (
            f"{near:,} of {compared:,} calibration images look like one of the known images, encoded or resized again."
        )
        notes.append(f"{copies} {VOID} {CURE}")
        void = void or (notes[-1] if near > SOME * compared else "")
    return new if left >= needed and droppable else np.ones_like(new), tuple(notes), void


def _enough_left(left: int, needed: int, why: str) -> None:
    if left < needed:
        raise CalibrationError(f"{why} That is too few: {needed:,} are needed. Give more images, or a larger alpha.")


def score_unknown(found: PassResults, unknown: Any) -> np.ndarray | None:
    """The members' scores [k, m] of unknown images of the user's own; None without, or where nothing is chosen."""
    if unknown is None or found.watch is None:
        return None
    strange = found.job.extractor(found.fitted[ONE].passes)
    batches = strange.run(open_images(unknown), "unknown", labelled=False)
    (member_scores,), _ = measured_on([found.fitted[ONE]], (activations for activations, _ in batches))
    return member_scores


def learn_shifts(
    passed: Passed, sample: Sample, shifts: Any, changes: Mapping[str, Changed], detector: Detector
) -> tuple[Shifts | None, tuple[str, ...]]:
    """(what is kept on changed images, notes). shifts: as given to `fit`, None where nothing was asked for."""
    found, begin = passed.found, time.perf_counter()
    passes = found.known.images + len(found.predicted)
    images = copied(changes, sample, passes, always=shifts is not None)
    if not images:
        return None, ()
    job = found.job
    kept, notes = learn(
        changes, sample.first(images), job.extractor(detector.passes), detector, job.options.seed, job.progress
    )
    if kept is None:
        return None, notes
    note = (
        f"Copies of {images:,} calibration images under {len(kept.kinds)} changes ({kept.passes:,} forward passes, "
        f"{time.perf_counter() - begin:.1f} s) tell when incoming images look changed (shifts=False: without)."
    )
    return kept, (note, *notes)


def make_record(passed: Passed, choice: Chosen | None, decided: CalibratedDetector, begin: float) -> Record:
    """begin: when the fit began, by `time.perf_counter`."""
    found = passed.found
    job, member_scores, known, new = found.job, found.member_scores[ONE], found.known, found.calibration
    right, of = _accuracy(found)
    notes = [*job.notes, *passed.notes, *([] if choice is None else [choice.note])]
    if of >= 20 and right < 0.6:
        notes.append(
            f"The classifier is right on only {right:.1%} of {of:,} labelled known images. If it was better "
            "in training, the images are preprocessed differently here."
        )
    if nothing := [name for name in job.names if name.casefold().strip(" _-.") in NOTHING]:
        notes.append(
            f"The class {nothing[0]!r} sounds as if it meant nothing: as any class, its images are known. If they are "
            f"to be unknown, give none_classes={nothing!r}."
        )
    seen = known.confusion.counts.sum(axis=1)
    if known.confusion.images and not seen.all():
        absent = [repr(job.names[k]) for k in np.flatnonzero(seen == 0)]
        some = ", ".join(absent[:5]) + ", …" * (len(absent) > 5)
        notes.append(
            f"No known image is of the class{'es' * (len(absent) > 1)} {some}: images of "
            f"{'these classes' if len(absent) > 1 else 'it'} will look unknown."
        )
    unreadable = [*known.unreadable, *([] if new is None else new.unreadable)]
    if few := decided.calibration.few:
        some = ", ".join(f"{job.names[k]!r} ({n})" for k, n in list(few.items())[:10]) + ", …" * (len(few) > 10)
        notes.append(
            f"Too few calibration images were predicted as {some} for a guarantee of their own. Images of "
            f"{'these classes' if len(few) > 1 else 'this class'} are compared with all calibration images, and any "
            "share of the known ones among them may be rejected."
        )
    return Record(
        known=known.images,
        held_out=len(member_scores) if new is None else 0,
        calibration=len(decided.calibration.scores),
        ranking=len(member_scores) - len(decided.calibration.scores) if decided.detector.needs_reference else 0,
        evidence=0 if choice is None else choice.evidence,
        made=0 if choice is None else choice.made,
        accuracy=right if of else None,
        accuracy_images=of,
        calibration_is_new=new is not None and not passed.void,
        void=passed.void,
        preprocessing=" ".join(job.found),
        trials=job.trials,
        unreadable=tuple(unreadable[:1000]),
        unreadable_count=len(unreadable) + known.more_unreadable + (0 if new is None else new.more_unreadable),
        notes=tuple(notes),
        checks=checked(found.fitted[ONE].members, member_scores) if choice is None else choice.checks,
        low_accuracy_allowed=job.allow_low_accuracy,
        second="" if job.second is None else job.second.words,
        seconds=time.perf_counter() - begin,
    )


def _accuracy(found: PassResults) -> tuple[float, int]:
    """(accuracy, on how many labelled images): of those that calibrate, of the known ones if these have no labels."""
    if found.calibration is not None:
        confusion = found.calibration.confusion
        right, of = confusion.accuracy, confusion.images
    else:
        assert found.hold is not None
        right, of = found.hold.accuracy()
    known = found.known.confusion
    return (right, of) if of else (known.accuracy, known.images)


def with_none(record: Record, names: tuple[str, ...], share: float) -> Record:
    """The record of a fit with classes that mean "nothing"; share: of known images that are taken for one."""
    are = ", ".join(map(repr, names))
    note = (
        f"{are} mean{'s' * (len(names) == 1)} nothing: images of it were left out of the known ones, and what the "
        f"classifier takes for it is unknown. It takes {share:.1%} of the known images for it; these are rejected "
        "beside the promised share."
    )
    return replace(record, none_classes=names, none_share=share, notes=(*record.notes, note))

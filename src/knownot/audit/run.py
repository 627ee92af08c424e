"""The audit: one pass over the known images, one over each set of unknown ones, and what they say."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from ..arguments import number, public
from ..arrays import Activations, Preprocess
from ..errors import ImagesError, ModelError
from ..fitting.extraction import batch_size_for
from ..fitting.labels import class_order
from ..fitting.options import CalibrationOptions
from ..fitting.race import Tried
from ..fitting.setup import FitJob
from ..images import Images, open_images
from ..images.ways import as_preprocess
from ..models import Model, open_model
from ..version import __version__
from . import changed, classes, inputs, noise, plane, probabilities, recommendations, trials, unknown_images
from .known import Known, pass_known
from .page import Audit
from .recommendations import DETECTORS, GUARANTEE, Names
from .record import SCHEMA, ordered
from .sections import Map, Record, Subject

NEW = "calibration images, which are new to the classifier"
NOT_NEW = "the known images; if the classifier was trained on them, it looks better here than it is"


@public
def audit(
    model: Any,
    known: Any,
    labels: Any = None,
    *,
    calibration: Any = None,
    calibration_labels: Any = None,
    unknown: Any = None,
    alpha: float = 0.05,
    preprocess: Preprocess | None = None,
    detectors: Sequence[str] = DETECTORS,
    fooling: int = 8,
    each: int | None = None,
    class_names: Sequence[str] | None = None,
    head: str | None = None,
    stages: Sequence[str] | None = None,
    batch_size: int | None = None,
    names: Names | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Audit:
    """Why is this classifier so sure, and what would it take? Six sections, each with findings, numbers with 95 %
    confidence intervals, and pictures.

    The classifier is left as it was. The same seed gives the same numbers. Without labels the sections that need
    them say so.

    Parameters
    ----------
    model, known, labels, calibration_labels, class_names, head, stages, batch_size
        As of `knownot.fit`.
    calibration : ImagesLike, optional
        Known images that are new to the classifier. With them, the sections on known images speak of these; without
        them a fifth of the known images decides thresholds.
    unknown : ImagesLike or mapping of str to ImagesLike, optional
        Your own unknown images.
    alpha : float, default 0.05
        The share of known images that may be called unknown.
    preprocess : PreprocessLike, optional
        How images are prepared for the classifier today, right or wrong.
    detectors : sequence of str, optional
        Names to compare.
    fooling : int, default 8
        How many images to make that fool the classifier, 0 for none.
    each : int, optional
        Made images of every kind; by default 200 small ones or 64 large ones.
    names : Names, optional
        What you call things, for the commands to type next.
    seed : int, default 0
        Of all that is random.
    progress : bool, default True
        Whether to show a progress bar.

    Returns
    -------
    Audit

    Raises
    ------
    InputError
        Something given cannot be read at all.

    Examples
    --------
    >>> found = knownot.audit("model.onnx", "data/val")  # doctest: +SKIP
    >>> found.write("audit.html")  # doctest: +SKIP
    """
    CalibrationOptions(alpha, GUARANTEE).check()
    number("fooling", fooling, 0, whole=True)
    if each is not None:
        number("each", each, 2, whole=True)
    timed = _Timer()
    opened = open_model(model, head=head, stages=stages)
    if not opened.capabilities.classes:
        raise ModelError("The model was opened with embedding=True: it has no classes to be audited.")
    preprocess = as_preprocess(preprocess, channels=opened.input.channels)
    images = open_images(known, labels)
    held = None if calibration is None else open_images(calibration, calibration_labels)
    sets = {name: open_images(source) for name, source in _sets(unknown).items()}
    _one_form(images, held, sets)
    called, order = class_order(images, opened, class_names)
    held_order = None if held is None else class_order(held, opened, called)[1]
    # Accuracy is judged on images that are new to the classifier where there are any.
    judged = (held, held_order) if held is not None and held.labelled else (images, order)
    names = names or _named(model, known, calibration, unknown)
    capabilities = replace(opened.capabilities, labels=images.labelled)
    recipes, left_out = recommendations.recipes(detectors, capabilities, _features(opened))
    with timed("preprocessing"):
        size = batch_size or batch_size_for(opened, preprocess)
        fed, tried = trials.fed(opened, judged[0], preprocess, judged[1], size=size, seed=seed)
    job = FitJob(
        model=opened,
        capabilities=capabilities,
        recipes=recipes,
        images=images,
        held=held,
        second=None,
        way=fed.way,
        names=called,
        order=order,
        size=batch_size or batch_size_for(opened, fed.way),
        options=CalibrationOptions(alpha, GUARANTEE, seed=seed),
        progress=progress,
    )
    passed = pass_known(job, left_out, timed)
    return _record(passed, judged, (fed, tried), sets, names, (fooling, each), timed)


def _record(
    known: Known,
    judged: tuple[Images, np.ndarray | None],
    feeding: tuple[trials.Fed, dict[str, tuple[Preprocess | None, Tried]]],
    sets: Mapping[str, Images],
    names: Names,
    counts: tuple[int, int | None],
    timed: _Timer,
) -> Audit:
    """Look at unknown images, and say what all of it says. judged: labelled images and their order; feeding: the
    preprocessing and what was tried; counts: (fooling images, made images of every kind)."""
    job, seed = known.job, known.job.options.seed
    seen = known.new or known.seen
    shown, notes = _unknown(known, sets, *counts, timed)
    unknown_, pictures = unknown_images.section(shown, known.rules, job.names, job.options.alpha)
    with timed("sections"):
        inputs_, fix = inputs.section(job.model, judged[0], *feeding, seen.spread, judged[1], size=job.size, seed=seed)
        sections: dict[str, Any] = {
            "inputs": inputs_,
            "probabilities": probabilities.section(job.model.capabilities, seen, seed),
            "classes": classes.section(seen, job.names),
            "unknown": unknown_,
            "help": recommendations.section(unknown_.lines, _thresholds(known), names, fix),
        }
    with timed("map"):
        sections["map"] = _map(known.watch.rows(plane.KNOWN)[0], shown, seed)
    random_input, picture = noise.section(known, shown, unknown_.lines)
    if fix:
        sections |= {name: _doubted(s) for name, s in sections.items() if name != "inputs"}
    bad = [b for s in (known.seen, known.new, *(x.seen for x in shown)) if s is not None for b in s.unreadable]
    when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    findings = ordered([f for s in sections.values() for f in s.findings])
    pictures |= {f"mistake-{i}": w.thumb for i, w in enumerate(seen.wrong)}
    subject = _subject(known, names, tuple(sets), bad, notes)
    with timed("changed images"):
        sections["changed"] = changed.section(known)
    sections |= {"random_input": random_input, "pictures": pictures | picture}
    return Audit(
        Record(
            schema=SCHEMA,
            knownot=__version__,
            when=when,
            seconds=timed.all(),
            subject=subject,
            findings=findings,
            **sections,
        )
    )


def _unknown(
    known: Known, sets: Mapping[str, Images], fooling: int, each: int | None, timed: _Timer
) -> tuple[list[unknown_images.Shown], list[str]]:
    """(what the classifier computes of made images, of images that fool it and of the user's own, notes)."""
    job, seed = known.job, known.job.options.seed
    x, kept = known.watch.pictures()
    kinds = unknown_images.made(x, kept, job.way, each or unknown_images.each_of(*x.shape[1:3]), seed)
    with timed("fooling images"):
        fools, said = unknown_images.fooling(job.model, x, job.way, fooling, seed)
    with timed("unknown images"):
        passes = [one for rule in known.rules.values() for one in rule.detector.passes]
        shown, more = unknown_images.show([*kinds, *fools, *unknown_images.yours(sets, job.way, seed)], job, passes)
    return shown, [*said, *more]


def _subject(
    known: Known, names: Names, sets: tuple[str, ...], bad: Sequence[tuple[str, str]], notes: Sequence[str]
) -> Subject:
    job, model, images, new = known.job, known.job.model, known.job.images, known.new
    said = dict.fromkeys([*model.notes, *known.notes, *notes, *images.notes, *images.label_notes])
    return Subject(
        model=names.model, framework=model.framework, classes=model.capabilities.classes, features=_features(model),
        stages=tuple(model.capabilities.stages), known=names.known, images=len(known.seen.labels),
        labelled=bool(((new or known.seen).labels >= 0).any()), calibration=names.calibration,
        calibration_images=0 if new is None else len(new.labels), measured_on=NOT_NEW if new is None else NEW,
        unknown=sets, alpha=job.options.alpha, seed=job.options.seed, unreadable=len(bad),
        first_unreadable=tuple(bad[:50]), notes=tuple(said),
    )  # fmt: skip


def _thresholds(known: Known) -> recommendations.Thresholds:
    images = {name: len(rule.calibration.scores) for name, rule in known.rules.items()}
    return recommendations.Thresholds(
        detectors=images,
        left_out=known.left_out,
        alpha=known.job.options.alpha,
        new=known.new is not None,
        trains=known.job.model.trainable,
        why_none=known.why_none,
    )


def _features(model: Model) -> int | None:
    return None if model.head is None else int(model.head.weight.shape[1])


class _Timer:
    """Seconds by step."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - begin

    def all(self) -> dict[str, float]:
        return self.seconds | {"all": time.perf_counter() - self.begin}


def _doubted(section: Any) -> Any:
    """The same with no "ok": while a classifier is fed the wrong way, nothing else is."""
    return replace(
        section, findings=tuple(replace(f, severity="note") if f.severity == "ok" else f for f in section.findings)
    )


def _one_form(images: Images, held: Images | None, unknown: Mapping[str, Images]) -> None:
    """Raise ImagesError where some images are raw and others the classifier's own input."""
    forms = {"known": images, **({} if held is None else {"calibration": held}), **unknown}
    for name, source in forms.items():
        if source.ready != images.ready:
            kinds = {True: "float arrays, taken as the classifier's own input", False: "raw"}
            raise ImagesError(
                f"The known images are {kinds[images.ready]}; those of {name!r} are {kinds[source.ready]}. Give all in "
                "one form."
            )


def _map(sample: Activations, shown: Sequence[unknown_images.Shown], seed: int) -> Map:
    proper = [s.activations for s in shown if s.kind.origin == "made" and s.kind.proper]
    groups = {"made images": Activations.concat(proper)} if proper else {}
    groups |= {s.kind.name: s.activations for s in shown if s.kind.origin != "made"}
    origins = {s.kind.name: s.kind.origin for s in shown}
    roles = {"yours": "unknown", "fooling": "fooling"}
    return plane.section(sample, groups, {what: roles.get(origins.get(what, ""), "incoming") for what in groups}, seed)


def _sets(unknown: Any) -> dict[str, Any]:
    if unknown is None:
        return {}
    if isinstance(unknown, Mapping):
        return {str(name): source for name, source in unknown.items()}
    return {_base(unknown) or "your unknown images": unknown}


def _base(thing: Any) -> str:
    return os.path.basename(os.path.normpath(thing)) if isinstance(thing, str | os.PathLike) else ""


def _named(model: Any, known: Any, calibration: Any, unknown: Any) -> Names:
    """Paths that were given as such; placeholders for objects."""

    def path(thing: Any, otherwise: str) -> str:
        return os.fspath(thing) if isinstance(thing, str | os.PathLike) else otherwise

    given = unknown.values() if isinstance(unknown, Mapping) else [unknown]
    return Names(
        path(model, "MODEL"), path(known, "KNOWN"), "" if calibration is None else path(calibration, "CALIBRATION"),
        tuple(path(u, "UNKNOWN") for u in given if u is not None),
    )  # fmt: skip

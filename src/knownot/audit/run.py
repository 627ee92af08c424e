"""The audit: one pass over the known images, one over each set of unknown ones, and what they say."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from ..arguments import public
from ..arrays import Activations, Preprocess
from ..calibration import check_options
from ..detectors.base import number
from ..errors import ImagesError, ModelError
from ..fitting.extraction import batch_size_for
from ..fitting.preprocessing import class_order
from ..images import Images, open_images
from ..models import open_model
from ..version import __version__
from . import classes, helping, inputs, plane, probabilities, strange, trials
from .helping import DETECTORS, GUARANTEE, Names
from .known import DELTA, Known
from .page import Audit
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

    model, known, labels, calibration, preprocess, class_names, head, stages: as in `fit`; preprocess is how the
    classifier is fed today, right or wrong. With calibration images, the sections on known images speak of these,
    which are new to it; a fifth of the known images decides thresholds otherwise.
    unknown: your own unknown images, or {name: images}. alpha: the share of known images that may be called unknown.
    detectors: names to compare. fooling: how many images to make that fool it, 0 for none. each: made images of
    every kind, 200 of small ones and 64 of large ones if left out. names: what you call things, for the commands to
    type next.

    The classifier is left as it was. The same seed gives the same numbers. Without labels the sections that need
    them say so. Raises InputError for what cannot be read at all.
    """
    check_options(alpha, DELTA, GUARANTEE)
    number("fooling", fooling, 0, whole=True)
    if each is not None:
        number("each", each, 2, whole=True)
    timed = _Timer()
    opened = open_model(model, head=head, stages=stages)
    if not opened.offers.classes:
        raise ModelError("The model was opened with embedding=True: it has no classes to be audited.")
    images = open_images(known, labels)
    held = None if calibration is None else open_images(calibration, calibration_labels)
    sets = {name: open_images(source) for name, source in _sets(unknown).items()}
    _one_form(images, held, sets)
    called, order = class_order(images, opened, class_names)
    held_order = None if held is None else class_order(held, opened, called)[1]
    # Accuracy is judged on images that are new to the classifier where there are any.
    judged, judged_order = (held, held_order) if held is not None and held.labelled else (images, order)
    names = names or _named(model, known, calibration, unknown)
    features = None if opened.head is None else int(opened.head.weight.shape[1])
    recipes, left_out = helping.recipes(detectors, replace(opened.offers, labels=images.labelled), features)

    size = batch_size or batch_size_for(opened, preprocess)
    with timed("preprocessing"):
        fed, tried = trials.fed(opened, judged, preprocess, judged_order, size=size, seed=seed)
    size = batch_size or batch_size_for(opened, fed.way)
    job = Known(opened, images, held, (order, held_order), fed.way, size, alpha, seed, progress, left_out=left_out)
    job.passed(recipes, timed)
    seen = job.new or job.seen
    x, kept = job.watch.pictures()
    kinds = strange.made(x, kept, fed.way, each or strange.each_of(*x.shape[1:3]), seed)
    with timed("fooling images"):
        fools, said = strange.fooling(opened, x, fed.way, fooling, seed)
    with timed("unknown images"):
        shown, more = strange.show(opened, [*kinds, *fools, *strange.yours(sets, fed.way, seed)], size, progress)
        unknown_, pictures = strange.section(shown, job.rules, called, alpha)
    with timed("sections"):
        inputs_, fix = inputs.section(opened, judged, fed, tried, seen.spread, judged_order, size=size, seed=seed)
        probabilities_ = probabilities.section(opened.offers, seen, seed)
        classes_ = classes.section(seen, called)
        help_ = helping.section(
            unknown_.lines, {d: len(rule.calibration.scores) for d, rule in job.rules.items()}, job.left_out,
            alpha=alpha, new=held is not None, names=names, fix=fix, why_none=job.why_none,
            trains=opened.trainable,
        )  # fmt: skip
    with timed("map"):
        map_ = _map(job.watch.rows(plane.KNOWN)[0], shown, seed)
    sections: dict[str, Any] = {"inputs": inputs_, "probabilities": probabilities_, "classes": classes_}
    sections |= {"unknown": unknown_, "help": help_, "map": map_}
    if fix:
        sections |= {name: _doubted(s) for name, s in sections.items() if name != "inputs"}
    bad = [b for s in (job.seen, job.new, *(x.seen for x in shown)) if s is not None for b in s.unreadable]
    subject = Subject(
        names.model, opened.framework, opened.offers.classes, features, tuple(opened.offers.stages), names.known,
        len(job.seen.labels), bool((seen.labels >= 0).any()), names.calibration,
        0 if job.new is None else len(job.new.labels), NOT_NEW if job.new is None else NEW, tuple(sets), alpha, seed,
        len(bad), tuple(bad[:50]),
        tuple(dict.fromkeys([*opened.notes, *job.notes, *said, *more, *images.notes, *images.label_notes])),
    )  # fmt: skip
    when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    findings = ordered([f for s in sections.values() for f in s.findings])
    pictures |= {f"mistake-{i}": w.thumb for i, w in enumerate(seen.wrong)}
    return Audit(Record(SCHEMA, __version__, when, timed.all(), subject, findings, **sections, pictures=pictures))


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


def _map(sample: Activations, shown: Sequence[strange.Shown], seed: int) -> Map:
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

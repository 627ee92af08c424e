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

from ..arrays import Activations, Preprocess
from ..calibration import check_options, images_needed
from ..choosing import choose, enough, watch
from ..detectors import Recipe
from ..detectors.base import number
from ..errors import CalibrationError, ModelError, OptionError
from ..fitting import Decided, decide, fitted_on, measured_on
from ..images import Images, open_images
from ..models import open_model
from ..preprocessing import class_order
from ..version import __version__
from ..walk import HoldOut, Walk, batch_size_for
from . import classes, helping, inputs, plane, probabilities, strange
from .helping import DETECTORS, GUARANTEE, Names
from .look import Seen, look
from .page import Audit
from .record import SCHEMA, Finding, Record, Subject, ordered


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
    begin = time.perf_counter()
    check_options(alpha, 0.01, GUARANTEE)
    number("fooling", fooling, 0, whole=True)
    if each is not None:
        number("each", each, 2, whole=True)
    job = _Job(
        open_model(model, head=head, stages=stages), open_images(known, labels),
        None if calibration is None else open_images(calibration, calibration_labels),
        alpha, seed, progress,
    )  # fmt: skip
    return job.done(
        preprocess, list(detectors), fooling, each, class_names, batch_size,
        _sets(unknown), names or _named(model, known, calibration, unknown), begin,
    )  # fmt: skip


class _Job:
    """One audit under way."""

    def __init__(
        self, model: Any, images: Images, held: Images | None, alpha: float, seed: int, progress: bool
    ) -> None:
        if not model.offers.classes:
            raise ModelError("The model was opened with embedding=True: it has no classes to be audited.")
        self.model, self.images, self.held = model, images, held
        self.alpha, self.seed, self.progress = alpha, seed, progress
        self.offers = replace(model.offers, labels=images.labelled)
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = list(model.notes)
        self.left_out: dict[str, str] = {}
        self.why_none = ""

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - begin

    def done(
        self,
        preprocess: Preprocess | None,
        wanted: list[str],
        fooling: int,
        each: int | None,
        class_names: Sequence[str] | None,
        batch_size: int | None,
        unknown: Mapping[str, Any],
        names: Names,
        begin: float,
    ) -> Audit:
        model, seed = self.model, self.seed
        self.names, order = class_order(self.images, model, class_names)
        held_order = None if self.held is None else class_order(self.held, model, self.names)[1]
        # Accuracy is judged on images that are new to the classifier where there are any.
        judged, judged_order = (
            (self.held, held_order) if self.held is not None and self.held.labelled else (self.images, order)
        )
        size = batch_size or batch_size_for(model, preprocess)
        with self.timed("preprocessing"):
            fed, tried = inputs.fed(model, judged, preprocess, judged_order, size=size, seed=seed)
        if not self.images.ready and fed.way is None:
            raise OptionError(
                "How this classifier wants its input is not known: the model does not say, and without labels the "
                "usual ways cannot be compared. Give labels (or class sub-folders) or preprocess=knownot.Preprocess(…)."
            )
        size = batch_size or batch_size_for(model, fed.way)
        features = None if model.head is None else int(model.head.weight.shape[1])
        recipes, self.left_out = helping.recipes(wanted, self.offers, features)
        known, new, rules, sample = self._known(fed.way, order, held_order, size, recipes)
        seen = new if new is not None else known
        pictures = {f"mistake-{i}": w.thumb for i, w in enumerate(seen.wrong)}

        x, kept = self.watch.pictures()
        kinds = strange.made(x, kept, fed.way, each or strange.each_of(*x.shape[1:3]), seed)
        with self.timed("fooling images"):
            more, notes = strange.fooling(model, x, fed.way, fooling, seed)
        with self.timed("unknown images"):
            shown, said = strange.show(
                model, [*kinds, *more, *strange.yours(unknown, fed.way, seed)], size, self.progress
            )
            strangers, shots = strange.section(shown, rules, self.names, self.alpha)
        self.notes += [*notes, *said]
        with self.timed("sections"):
            fed_section, fix = inputs.section(
                model, judged, fed, tried, seen.spread, judged_order, size=size, seed=seed
            )
            sections: dict[str, Any] = {
                "inputs": fed_section,
                "probabilities": probabilities.section(model.offers, seen, seed),
                "classes": classes.section(seen, self.names),
                "unknown": strangers,
                "help": helping.section(
                    strangers.lines, {d: len(r.calibration.scores) for d, r in rules.items()}, self.left_out,
                    alpha=self.alpha, new=self.held is not None, names=names, fix=fix, why_none=self.why_none,
                ),
            }  # fmt: skip
        with self.timed("map"):
            sections["map"] = self._map(sample, shown)
        findings: list[Finding] = [f for s in sections.values() for f in s.findings]
        self.seconds["all"] = time.perf_counter() - begin
        every = [*known.unreadable, *([] if new is None else new.unreadable)]
        every += [bad for s in shown if s.kind.origin == "yours" for bad in s.seen.unreadable]
        subject = Subject(
            model=names.model, framework=model.framework, classes=model.offers.classes, features=features,
            stages=tuple(model.offers.stages), known=names.known, images=len(known.labels),
            labelled=bool((seen.labels >= 0).any()), calibration=names.calibration,
            calibration_images=0 if new is None else len(new.labels),
            measured_on=(
                "calibration images, which are new to the classifier" if new is not None
                else "the known images; if the classifier was trained on them, it looks better here than it is"
            ),
            unknown=tuple(unknown), alpha=self.alpha, seed=seed, unreadable=len(every),
            first_unreadable=tuple(every[:50]),
            notes=tuple(dict.fromkeys([*self.notes, *self.images.notes, *self.images.label_notes])),
        )  # fmt: skip
        when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
        record = Record(
            SCHEMA, __version__, when, self.seconds, subject, ordered(findings), **sections, pictures=pictures | shots
        )
        return Audit(record)

    def _known(
        self,
        way: Preprocess | None,
        order: np.ndarray | None,
        held_order: np.ndarray | None,
        size: int,
        recipes: dict[str, Recipe],
    ) -> tuple[Seen, Seen | None, dict[str, Decided], Activations]:
        """(what was seen of known images, and of calibration images, the calibrated detectors, activations of some)."""
        c = self.model.offers.classes
        known, new = Seen(c), None if self.held is None else Seen(c)
        self.watch = watch(self.seed)
        hold = None
        needed = images_needed(self.alpha, guarantee=GUARANTEE)
        if self.held is None:
            try:
                hold = self._hold(needed, recipes)
            except CalibrationError as error:
                self.why_none, recipes = str(error), {}
        refused: dict[int, str] = {}
        with self.timed("known images"):
            walk = look(
                self.model, way, self.images, "known", known, size=size, order=order, hold=hold,
                watch=self.watch if self.held is None else None, progress=self.progress,
            )  # fmt: skip
            fitted = fitted_on(list(recipes.values()), walk, self.model, self.offers, refused)
            for _ in walk:  # without detectors nobody has walked yet
                pass
        kept = [(name, recipe) for i, (name, recipe) in enumerate(recipes.items()) if i not in refused]
        self.left_out |= {name: refused[i] for i, name in enumerate(recipes) if i in refused}
        with self.timed("calibration"):
            if self.held is not None:
                assert new is not None  # for the type checker: they come together
                batches: Any = look(
                    self.model, way, self.held, "calibration", new, size=size, order=held_order, watch=self.watch,
                    progress=self.progress,
                )  # fmt: skip
                parts, predicted = measured_on(fitted, (a for a, _ in batches))
                numbers = self.watch.numbers
            elif hold is not None:
                parts, predicted = measured_on(fitted, [hold.activations()] if hold.kept else [])
                numbers = hold.numbers
            else:
                return known, new, {}, self.watch.rows(plane.KNOWN)[0]
            rules = {}
            for (name, recipe), detector, mine in zip(kept, fitted, parts, strict=True):
                try:
                    rules[name] = self._decided(name, detector, recipe, mine, predicted, numbers, way, size, needed)
                except CalibrationError as error:
                    self.left_out[name] = str(error)
            if not rules:
                self.why_none = "; ".join(f"{name}: {why}" for name, why in self.left_out.items())
        return known, new, rules, self.watch.rows(plane.KNOWN)[0]

    def _hold(self, needed: int, recipes: dict[str, Recipe]) -> HoldOut:
        count = self.images.count
        want = needed + 10 if any(r.kind.ranks for r in recipes.values()) else needed
        if any(r.kind.chooses for r in recipes.values()) and (count is None or enough(needed) <= count // 2):
            want = max(want, enough(needed))
        return HoldOut(count, want, self.seed, self.alpha, 0.01, GUARANTEE)

    def _decided(
        self, name: str, detector: Any, recipe: Recipe, parts: np.ndarray, predicted: np.ndarray, numbers: np.ndarray,
        way: Preprocess | None, size: int, needed: int,
    ) -> Decided:  # fmt: skip
        final = (detector, parts, predicted)
        if detector.chooses:
            walk = Walk(self.model, way, size, 0, self.seed, False)
            chosen = choose(
                detector, recipe, parts, predicted, numbers, self.watch, walk=walk, offers=self.offers, needed=needed,
                seed=self.seed,
            )  # fmt: skip
            self.notes.append(f"{name}: {chosen.note}")
            final = chosen.rest
        return decide(*final, alpha=self.alpha, guarantee=GUARANTEE, delta=0.01, seed=self.seed)

    def _map(self, sample: Activations, shown: list[strange.Shown]) -> Any:
        made_ = [s.activations for s in shown if s.kind.origin == "made" and s.kind.proper]
        groups = {"made images": Activations.concat(made_)} if made_ else {}
        groups |= {s.kind.name: s.activations for s in shown if s.kind.origin == "yours"}
        groups |= {s.kind.name: s.activations for s in shown if s.kind.origin == "fooling"}
        roles = {"made images": "incoming", strange.FOOLING: "fooling"}
        return plane.section(sample, groups, {what: roles.get(what, "unknown") for what in groups}, self.seed)


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

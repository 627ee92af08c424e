"""A fit in parts: what a pass over some of the images gave, as data that merges and can be kept in a folder.

The same images merge to the same result, however they were divided and whoever made the parts: this process, others
of this machine, or a cluster. Nothing here knows of any engine; those are in `engines`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

import numpy as np

from ..arrays import Activations, Preprocess
from ..errors import ImagesError, SavedError
from ..stats import Statistic, gather
from .content import Contents
from .extraction import Extractor, Observer
from .labels import Confusion, class_order
from .many import Gathered, PassResults, fit_gathered, gather_known, score_held_out, with_scores
from .none_classes import NoneShare
from .options import CalibrationOptions
from .sampling import HoldOut, Subsample, Watcher
from .setup import FitJob
from .thumbnails import Thumbnails
from .trial import Trial

Rows = Mapping[str, np.ndarray]  # activations by path, and "key", "label"
MOST = 1000  # unreadable images that are named


@dataclass
class Noted:
    """What a pass noted of all its images. count: of those that could not be read."""

    confusion: Confusion
    contents: Contents
    images: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0

    @classmethod
    def of(cls, walk: Extractor, contents: Contents) -> Self:
        return cls(walk.confusion, contents, walk.images, sorted(walk.unreadable)[:MOST], len(walk.unreadable))

    def merge(self, other: Noted) -> None:
        self.confusion.merge(other.confusion)
        self.contents.merge(other.contents)
        self.images, self.count = self.images + other.images, self.count + other.count
        self.unreadable = sorted([*self.unreadable, *other.unreadable])[:MOST]

    def put_into(self, walk: Extractor) -> Extractor:
        """The extractor, as if it had made the pass."""
        walk.confusion, walk.images, walk.unreadable = self.confusion, self.images, self.unreadable
        walk.more_unreadable = self.count - len(self.unreadable)
        return walk


@dataclass
class Part:
    """What is known of a part of the images, or of several together; nothing is fitted yet.

    about: what all parts of a fit have to agree on. pieces: (source, part from 1 on, of how many). watch, sample: keep
    some of the images that calibrate. rows: activations of the calibration images, where they are images of their own.
    """

    about: dict[str, Any]
    pieces: tuple[tuple[str, int, int], ...]
    statistics: tuple[Statistic, ...]  # in the order of `FitJob.wanted`; none where the part had no images
    known: Noted
    shown: Thumbnails
    none: NoneShare | None = None
    hold: HoldOut | None = None
    calibration: Noted | None = None
    watch: Subsample | None = None
    sample: Watcher | None = None
    rows: list[Rows] = field(default_factory=list)

    def merge(self, other: Part, job: FitJob) -> None:
        """Also what another part is."""
        self.pieces += other.pieces
        self._add(other.statistics)
        self.known.merge(other.known)
        self.shown.merge(other.shown.kept)
        if self.none is not None and other.none is not None:
            self.none.merge(other.none)
        self.watch, self.sample = _together(self.watch, other.watch), _together(self.sample, other.sample)
        if self.calibration is not None and other.calibration is not None:
            self.calibration.merge(other.calibration)
            self.rows += other.rows
        if self.hold is not None and other.hold is not None:
            self.hold.merge(other.hold)
            self.hold.watch, self.hold.also = self.watch, self.sample
            self.release(job, last=False)

    def release(self, job: FitJob, last: bool) -> None:
        """Images that are not held out after all go into the statistics."""
        free = [] if self.hold is None else self.hold.released(last)
        found = gather(free, job.wanted)
        self._add(tuple(found[want] for want in job.wanted) if found else ())
        self.known.images += sum(len(labels) for _, labels in free)

    def _add(self, statistics: Sequence[Statistic]) -> None:
        if self.statistics and statistics:
            self.statistics = tuple(a.merge(b) for a, b in zip(self.statistics, statistics, strict=True))
        else:
            self.statistics = self.statistics or tuple(statistics)


W = TypeVar("W", bound=Watcher)


def _together(one: W | None, other: W | None) -> W | None:
    """None is what a part without images gives."""
    if one is None or other is None:
        return other if one is None else one
    one.merge(other.kept)
    return one


def gather_part(
    job: FitJob,
    part: tuple[int, int],
    about: dict[str, Any],
    shown: Thumbnails,
    *,
    none: NoneShare | None = None,
    hold: HoldOut | None = None,
    watch: Subsample | None = None,
    sample: Watcher | None = None,
) -> Part:
    """One pass over part (i, from 1 on, of) of the known images, and one over that of the calibration images."""
    number, of = part
    held = None if job.held is None else job.held.part(number - 1, of)
    some = replace(job, images=job.images.part(number - 1, of), held=held)
    contents, watching = Contents(), () if none is None else (none,)
    observers: tuple[Observer, ...] = (*watching, shown) if held is None else (shown,)
    found = gather_known(
        some, observers if hold is None else (*observers, hold), judges=False, contents=contents, last=False
    )
    statistics = tuple(found.statistics[want] for want in job.wanted if want in found.statistics)
    made = Part(
        about=about,
        pieces=(),
        statistics=statistics,
        known=Noted.of(found.known, contents),
        shown=shown,
        none=none,
        hold=hold,
        watch=watch,
        sample=sample,
    )
    if held is not None:
        once = Contents(once=True)
        own = some.extractor(p for recipe in job.recipes.values() for p in recipe.passes(held_out=True))
        order = class_order(held, job.model, job.names, which="calibration")[1]
        seen: tuple[Observer, ...] = (*watching, *(one for one in (watch, sample) if one is not None))
        batches = own.run(held, "calibration", seen, order=order, contents=once, last=False)
        made.rows = [_named(activations, labels) for activations, labels in batches]
        made.calibration = Noted.of(own, once)
    return made


def finish(job: FitJob, part: Part) -> PassResults:
    """Fitted, and the calibration images scored, from all parts together."""
    part.release(job, last=True)
    if not part.known.images:
        raise ImagesError("None of the known images could be used, in any part.")
    known = part.known.put_into(job.extractor())
    statistics = dict(zip(job.wanted, part.statistics, strict=True))
    found = fit_gathered(
        Gathered(job=job, known=known, statistics=statistics, hold=part.hold, contents=part.known.contents)
    )
    if part.calibration is None:
        return score_held_out(found)
    part.calibration.confusion = Confusion(job.model.capabilities.classes)
    found = with_scores(found, _each_once(part.rows, part.calibration.confusion))
    own = part.calibration.put_into(job.extractor())
    own.judge(job.names, job.trials)
    return replace(found, calibration=own, watch=part.watch, held_contents=part.calibration.contents)


def _named(activations: Activations, labels: np.ndarray) -> Rows:
    return {**activations.named(), "label": labels, "key": np.asarray(activations.keys)}


def _each_once(rows: Iterable[Rows], confusion: Confusion) -> Iterator[Activations]:
    """Images that are in several parts come once."""
    seen: set[int] = set()
    for some in rows:
        new = np.array([key not in seen for key in some["key"].tolist()], dtype=bool)
        seen.update(some["key"].tolist())
        batch = {path: x[new] for path, x in some.items()}
        labels, keys = batch.pop("label"), batch.pop("key")
        if len(keys):
            confusion.add(labels, np.argmax(batch["logits"], axis=1))
            yield replace(Activations.of(batch), keys=keys)


# As arrays and plain values, for a folder


def things_of(part: Part) -> dict[str, Any]:
    """What `saving.write` takes."""
    hold, watch, sample = part.hold, part.watch, part.sample
    things: dict[str, Any] = {
        "statistics": tuple(one.settled() for one in part.statistics),
        "known": _of_noted(part.known),
        "calibration": None if part.calibration is None else _of_noted(part.calibration),
        "shown": None if part.shown.kept is None else part.shown.kept.settled(),
        "watch": None if watch is None or watch.kept is None else tuple(one.settled() for one in watch.kept),
        "sample": None if sample is None or sample.kept is None else sample.kept.settled(),
        "none": None if part.none is None else (part.none.images, part.none.taken),
        "rows": _joined(part.rows) if part.rows else None,
        "hold": None,
    }
    if hold is not None:
        state: dict[str, Any] = {"images": hold.images, "end": hold.end, "needed": hold.needed}
        if hold.rows:
            rows = [{**_named(a, y), "number": n, "times": t} for a, y, n, t in hold.rows]
            state |= {"rows": _joined(rows)}
        things["hold"] = state
    return things


def part_of(
    things: Mapping[str, Any],
    about: dict[str, Any],
    pieces: Iterable[Any],
    options: CalibrationOptions,
    watch: Subsample | None,
    sample: Watcher | None,
) -> Part:
    """The inverse. watch, sample: empty ones, where a part has them. Raises SavedError for what no part has."""
    try:
        shown, none = Thumbnails(int(about["thumbnails"]), options.seed), None
        shown.merge(things["shown"])
        if things["none"] is not None:
            none = NoneShare()
            none.images, none.taken = things["none"]
        if watch is not None:
            watch.merge(things["watch"])
        if sample is not None:
            sample.merge(things["sample"])
        hold = None if things["hold"] is None else _hold_of(things["hold"], options, watch)
        if hold is not None:
            hold.also = sample
        calibration = None if things["calibration"] is None else _noted_of(things["calibration"])
        rows = [] if things["rows"] is None else [things["rows"]]
        return Part(
            about=about,
            pieces=tuple((str(s), int(i), int(n)) for s, i, n in pieces),
            statistics=things["statistics"],
            known=_noted_of(things["known"]),
            shown=shown,
            none=none,
            hold=hold,
            calibration=calibration,
            watch=watch,
            sample=sample,
            rows=rows,
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise SavedError(f"This folder does not hold a part of a fit: {error!r}. Fit that part again.") from error


def _joined(rows: Sequence[Rows]) -> Rows:
    return {path: np.concatenate([one[path] for one in rows]) for path in rows[0]}


def _hold_of(state: Mapping[str, Any], options: CalibrationOptions, watch: Subsample | None) -> HoldOut:
    hold = HoldOut(None, int(state["needed"]), options, watch)
    hold.images, hold.end = int(state["images"]), int(state["end"])
    if "rows" in state:
        rows = dict(state["rows"])
        labels, keys, numbers, times = (rows.pop(name) for name in ("label", "key", "number", "times"))
        hold.rows = [(replace(Activations.of(rows), keys=keys), labels, numbers, times)]
    return hold


def _of_noted(noted: Noted) -> dict[str, Any]:
    contents = noted.contents
    return {
        "confusion": noted.confusion.counts,
        "images": noted.images,
        "unreadable": tuple(noted.unreadable),
        "count": noted.count,
        "contents": contents.state(),
    }


def _noted_of(state: Mapping[str, Any]) -> Noted:
    confusion = Confusion(len(state["confusion"]))
    confusion.counts = state["confusion"]
    unreadable = [(str(name), str(why)) for name, why in state["unreadable"]]
    return Noted(
        confusion=confusion,
        contents=Contents.restored(state["contents"]),
        images=state["images"],
        unreadable=unreadable,
        count=state["count"],
    )


def kinds() -> dict[str, type]:
    """What a part is made of, by name: every statistic that a detector may want among it."""
    found: dict[str, type] = {"Preprocess": Preprocess, "Trial": Trial}
    todo: list[type] = [Statistic]
    while todo:
        below: list[type] = todo.pop().__subclasses__()
        found |= {kind.__name__: kind for kind in below}
        todo += below
    return found

"""Remedies side by side, and none: on the same splits, and on unknown images that no training saw."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...arguments import number
from ...arrays import Preprocess
from ...errors import OptionError
from ...images import open_images
from ...models import Model, open_model
from ..base import chosen_mode
from ..retraining import retrain
from ..saved import Remedied
from ..table import REMEDIES, remedy_class
from .measure import CLEAN, Measurement, measure, reason
from .result import NONE, Compared, Line, Tried
from .splits import Splits, plain, split, strangers


@dataclass(frozen=True)
class Asked:
    """One remedy to try: its name in the comparison, its name in the table, its options, its outliers."""

    name: str
    remedy: str
    options: Mapping[str, Any]
    outliers: Any


def compare(
    model: Any,
    known: Any,
    labels: Any = None,
    *,
    remedies: Sequence[str] | Mapping[str, Any],
    validation: Any,
    validation_labels: Any = None,
    unknown: Mapping[str, Any],
    outliers: Any = None,
    auto: bool = True,
    fooling: int = 10,
    tolerance: float | None = 0.005,
    preprocess: Preprocess | None = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> Compared:
    """Try remedies on one classifier, and measure each, and the classifier as it is, on the same images.

    A remedy that fails, for whatever reason, is a row that says why.

    Parameters
    ----------
    model, preprocess, class_names, tolerance, **options
        As of `retrain`.
    known, labels
        What is trained on, and what detectors are fitted on.
    remedies : sequence of str or mapping
        Names of `REMEDIES`; or {any name: (name in the table, its options)} to try one with several options, of which
        outliers= may be one.
    validation : ImagesLike
        Known images that the classifier was not trained on, with labels. A random quarter each validates the training,
        calibrates the detectors, ranks scores that are combined, and is tested on.
    validation_labels : LabelsLike, optional
        Their classes.
    unknown : mapping of str to ImagesLike
        {name: images} that NO remedy may see.
    outliers : str or ImagesLike or list of both, optional
        What those learn from that need some: "made:KINDS", images, or a list of both.
    auto : bool, default True
        Whether to fit "auto" as well, which takes longer.
    fooling : int, default 10
        So many images are made to fool each classifier, 0 for none.
    seed : int, default 0
        Of all that is random.
    progress : bool, default True
        Whether to show a progress bar.

    Returns
    -------
    Compared

    Raises
    ------
    OptionError
        A remedy is not in the table.
    ImagesError
        There are too few images.
    """
    begin = time.perf_counter()
    asked = _asked(remedies, outliers)
    if not unknown:
        raise OptionError("unknown= is empty: give {name: images} of no class, which no remedy has seen.")
    if NONE in unknown or CLEAN in unknown:
        raise OptionError(f"unknown= may not be named {NONE!r} or {CLEAN!r}.")
    number("fooling", fooling, 0, 10_000, whole=True)
    opened = open_model(model)
    splits, names, notes = split(
        opened, open_images(known, labels), open_images(validation, validation_labels), preprocess, class_names, seed,
        progress,
    )  # fmt: skip
    strange = {name: strangers(opened, splits.known, images, name, progress) for name, images in unknown.items()}
    tried: list[Tried] = []
    found: dict[str, Remedied] = {}
    with tempfile.TemporaryDirectory() as folder:  # what the classifier computes of the images is computed once
        for one in asked:
            result = attempt(one, opened, splits, names, tolerance, seed, progress, {"folder": folder, **options})
            if isinstance(result, Remedied):
                found[one.name] = result
            tried.append(_try_remedy(one, result))
    on = Measurement(
        splits=splits, names=names, unknown=strange, auto=auto, fooling=fooling, seed=seed, progress=progress
    )
    lines, facts = _measured(groups(opened, found), on)
    rows = [Tried(NONE, NONE, accuracy_before=None, accuracy_after=None, seconds=0.0), *tried]
    rows = [replace(row, **facts.get(row.name, {})) if not row.failed else row for row in rows]
    return Compared(
        tried=tuple(rows), lines=tuple(lines), unknown={name: len(pool) for name, pool in strange.items()},
        images={f: len(getattr(splits, f)) for f in ("known", "validation", "calibration", "rank", "test")},
        seed=seed, notes=tuple(notes), seconds=time.perf_counter() - begin,
    )  # fmt: skip


def _measured(
    groups: list[tuple[dict[str, Any], Model]], on: Measurement
) -> tuple[list[Line], dict[str, dict[str, Any]]]:
    """(lines, {remedy: facts, or why it failed})."""
    lines: list[Line] = []
    facts: dict[str, dict[str, Any]] = {}
    for scorers, own in groups:
        try:
            some, said = measure(own, scorers, on)
        except Exception as error:  # the others are not to be lost
            facts |= {name: {"failed": reason(error)} for name in scorers}
        else:
            lines += some
            facts |= dict.fromkeys(scorers, said)
    return lines, facts


def _asked(remedies: Sequence[str] | Mapping[str, Any], outliers: Any) -> list[Asked]:
    pairs = remedies if isinstance(remedies, Mapping) else {name: (name, {}) for name in remedies}
    found = []
    for name, given in pairs.items():
        table, own = (given, {}) if isinstance(given, str) else given
        kind, own = remedy_class(table), dict(own)
        images = own.pop("outliers", outliers)
        if kind.outliers == "none":
            images = None
        if images is None and kind.outliers == "required":
            raise OptionError(f"{name} learns from outliers: give outliers=, images of no class or 'made:all'.")
        found.append(Asked(str(name), table, own, images))
    if not found:
        raise OptionError(f"No remedy was given. There are: {', '.join(REMEDIES)}.")
    if any(one.name == NONE for one in found):
        raise OptionError(f"{NONE!r} is the classifier as it is; it is always there. Name the remedy otherwise.")
    return found


def attempt(
    one: Asked,
    opened: Model,
    splits: Splits,
    names: tuple[str, ...],
    tolerance: float | None,
    seed: int,
    progress: bool,
    options: Mapping[str, Any],
) -> Remedied | str:
    """What came of it, or why it failed."""
    known, validation = splits.known, splits.validation
    try:
        kind = remedy_class(one.remedy)
        if chosen_mode(kind, {**options, **one.options}.get("mode")) not in kind.keeps:  # a checkpoint would be there
            options = {name: x for name, x in options.items() if name != "folder"}
        return retrain(
            one.remedy, opened, known.x, known.labels, outliers=one.outliers, validation=validation.x,
            validation_labels=validation.labels, tolerance=tolerance, preprocess=plain(known.way), class_names=names,
            seed=seed, progress=progress, **{**options, **one.options},
        )  # fmt: skip
    except Exception as error:  # whatever it is: the others are not to be lost
        return reason(error)


def _try_remedy(one: Asked, result: Remedied | str) -> Tried:
    outliers = one.outliers if isinstance(one.outliers, str) else "none" if one.outliers is None else "images"
    if isinstance(result, str):
        return Tried(one.name, one.remedy, failed=result, outliers=outliers)
    return Tried(
        one.name, one.remedy, accuracy_before=result.accuracy_before, accuracy_after=result.accuracy_after,
        seconds=result.seconds, outliers=outliers, notes=tuple(result.notes), same=result.model is None,
        share=result.share,
    )  # fmt: skip


def groups(opened: Model, found: Mapping[str, Remedied]) -> list[tuple[dict[str, Any], Model]]:
    """[({remedy: its scorer, None for "none"}, the classifier)]: those that left the classifier as it is in one."""
    same = {NONE: None} | {name: r.detector for name, r in found.items() if r.model is None}
    return [(same, opened), *(({name: r.detector}, r.opened) for name, r in found.items() if r.model is not None)]

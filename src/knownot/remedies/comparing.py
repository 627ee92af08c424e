"""Remedies side by side, and none: on the same splits, and on unknown images that no training saw."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arrays import Preprocess, softmax
from ..benchmark import compare as compare_detectors
from ..calibration import p_values
from ..detectors import beside_default
from ..detectors.base import number
from ..errors import ImagesError, KnownotError, OptionError
from ..fooling import fool
from ..images import open_images
from ..measure import auroc, fpr_at_95_known_recall, fpr_at_95_unknown_recall
from ..models import Model, open_model
from ..outliers import make
from .base import Remedied, Settings, recipe_of
from .data import Outliers, Pool, outliers_of
from .outcome import NONE, Compared, Line, Tried
from .retraining import prepared, retrain
from .table import REMEDIES, remedy_class

NOISE, PER_NOISE = ("uniform", "gaussian"), 200
SURE = 0.99
CLEAN, RANK = "known", "known, to rank"


@dataclass(frozen=True)
class Splits:
    """Known images [n, h, w, 3] with labels: to train and fit, to validate, to calibrate, to rank, to test."""

    known: Pool
    validation: Pool
    calibration: Pool
    rank: Pool
    test: Pool


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

    remedies: names of `REMEDIES`; or {any name: (name in the table, its options)} to try one with several options, of
    which outliers= may be one. known, labels: what is trained on, and what detectors are fitted on. validation: known
    images that the classifier was not trained on, with labels; a random quarter each validates the training, calibrates
    the detectors, ranks scores that are combined, and is tested on. unknown: {name: images} that NO remedy may see.
    outliers: what those learn from that need some: "made:KINDS", images, or a list of both. auto: fit "auto" as well,
    which takes longer. fooling: so many images are made to fool each classifier, 0 for none. tolerance, options: as of
    `retrain`.

    A remedy that fails, for whatever reason, is a row that says why.
    Raises OptionError for unknown remedies, ImagesError when there are too few images.
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
            tried.append(_tried(one, result))
    lines: list[Line] = []
    facts: dict[str, dict[str, Any]] = {}
    for scorers, own in groups(opened, found):
        try:
            some, said = measured(own, scorers, splits, names, strange, auto, fooling, seed, progress)
        except Exception as error:  # the others are not to be lost
            facts |= {name: {"failed": _reason(error)} for name in scorers}
        else:
            lines += some
            facts |= dict.fromkeys(scorers, said)
    rows = [Tried(NONE, NONE, accuracy_before=None, accuracy_after=None, seconds=0.0), *tried]
    rows = [replace(row, **facts.get(row.name, {})) if not row.failed else row for row in rows]
    return Compared(
        tried=tuple(rows), lines=tuple(lines), unknown={name: len(pool) for name, pool in strange.items()},
        images={f: len(getattr(splits, f)) for f in ("known", "validation", "calibration", "rank", "test")},
        seed=seed, notes=tuple(notes), seconds=time.perf_counter() - begin,
    )  # fmt: skip


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


def split(
    opened: Model,
    known: Any,
    held: Any,
    preprocess: Preprocess | None,
    class_names: Sequence[str] | None,
    seed: int,
    progress: bool,
) -> tuple[Splits, tuple[str, ...], tuple[str, ...]]:
    """(all known images, class names, notes). The validation images go in four random parts of equal size."""
    task = prepared(opened, known, held, None, preprocess, class_names, Settings(seed=seed, progress=progress))
    rows = np.random.default_rng([seed, 41]).permutation(len(task.validation))
    quarter = len(rows) // 4
    if quarter < 20:
        raise ImagesError(
            f"{len(rows)} validation images are too few to be split in four. Give more, new known images."
        )
    parts = [task.validation.take(np.sort(rows[i * quarter : (i + 1) * quarter])) for i in range(4)]
    return Splits(task.known, *parts), task.names, task.notes


def strangers(opened: Model, known: Pool, images: Any, name: str, progress: bool) -> Pool:
    """Unknown images in the form and size of the known ones."""
    found = outliers_of(images, known, spec=opened.input, progress=progress) if not isinstance(images, Pool) else images
    pool = getattr(found, "pool", found)
    if isinstance(pool, Outliers):
        raise OptionError(f"unknown={{{name!r}: {images!r}}}: give images; made ones by knownot.outliers.make.")
    return pool


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
    if remedy_class(one.remedy).modes != ("head",):  # others have checkpoints of a training there
        options = {name: x for name, x in options.items() if name != "folder"}
    try:
        return retrain(
            one.remedy, opened, known.x, known.labels, outliers=one.outliers, validation=validation.x,
            validation_labels=validation.labels, tolerance=tolerance, preprocess=plain(known.way), class_names=names,
            seed=seed, progress=progress, **{**options, **one.options},
        )  # fmt: skip
    except Exception as error:  # whatever it is: the others are not to be lost
        return _reason(error)


def _reason(error: BaseException) -> str:
    text = str(error) or repr(error)
    return text if isinstance(error, KnownotError) else f"{type(error).__name__}: {text}"


def _tried(one: Asked, result: Remedied | str) -> Tried:
    outliers = one.outliers if isinstance(one.outliers, str) else "none" if one.outliers is None else "images"
    if isinstance(result, str):
        return Tried(one.name, one.remedy, failed=result, outliers=outliers)
    return Tried(
        one.name, one.remedy, accuracy_before=result.accuracy_before, accuracy_after=result.accuracy_after,
        seconds=result.seconds, outliers=outliers, notes=tuple(result.notes), same=result.model is None,
    )  # fmt: skip


def plain(way: Preprocess | None) -> Preprocess | None:
    """For images that have the classifier's size already: nothing is resized or cropped a second time."""
    return None if way is None else replace(way, height=None, width=None)


def groups(opened: Model, found: Mapping[str, Remedied]) -> list[tuple[dict[str, Any], Model]]:
    """[({remedy: its scorer, None for "none"}, the classifier)]: those that left the classifier as it is in one."""
    same = {NONE: None} | {name: r.detector for name, r in found.items() if r.model is None}
    return [(same, opened), *(({name: r.detector}, r.opened) for name, r in found.items() if r.model is not None)]


def measured(
    opened: Model,
    scorers: Mapping[str, Any],
    splits: Splits,
    names: tuple[str, ...],
    unknown: Mapping[str, Pool],
    auto: bool,
    fooling: int,
    seed: int,
    progress: bool,
) -> tuple[list[Line], dict[str, Any]]:
    """(a line per remedy, scorer and unknown set; facts about the classifier that they share)."""
    way = plain(splits.known.way)
    sets = {name: pool.x for name, pool in unknown.items()}
    extra, sure, notes = oddities(opened, splits.known, fooling, seed)
    detectors: dict[str, Any] = {"default": "default"} | ({"auto": "auto"} if auto else {})
    for name, detector in scorers.items():
        if detector is not None and detector != "default":
            detectors[f"{name}: own"] = recipe_of(detector)
            detectors[f"{name}: default"] = beside_default(name, detector)
    result = compare_detectors(
        opened, splits.known.x, splits.known.labels, calibration=(splits.calibration.x, splits.calibration.labels),
        test={CLEAN: (splits.test.x, splits.test.labels), RANK: (splits.rank.x, splits.rank.labels)},
        unknown=sets | extra, detectors=detectors, preprocess=way, class_names=names, guarantee="marginal",
        check=False, seed=seed, progress=progress,
    )  # fmt: skip
    lines = []
    members = sum(check.verdict in ("kept", "added") for check in result.choices.get("auto", ()))
    for name, detector in scorers.items():
        for scorer, of in scores(name, detector, auto, result.scores, members).items():
            lines += [line(name, scorer, what, of[CLEAN], of[what], what in extra) for what in (*sets, *extra)]
    notes += [f"{d}: {why}" for d, why in result.left_out.items()]
    return lines, {"accuracy": result.accuracy[CLEAN], "sure": sure, "remarks": tuple(notes)}


def scores(
    name: str, detector: Any, auto: bool, found: Mapping[str, Mapping[str, np.ndarray]], members: int
) -> dict[str, dict[str, np.ndarray]]:
    """{scorer: {set: scores [n]}} of one remedy. members: how many "auto" has chosen.

    "auto + own": the remedy's scorer as one member more of what "auto" has chosen. A combination's score is the sum of
    minus the log of its members' p-values, so that of the scorer is added; its p-values are those among known images
    that nothing was fitted, chosen or calibrated on. Where one detector was chosen, it enters in the same way.
    """
    there = next(iter(found.values()))
    named = {"default": "default", "auto": "auto", "own": f"{name}: own", "default + own": f"{name}: default"}
    out = {
        scorer: {what: x[key] for what, x in found.items()}
        for scorer, key in named.items()
        if key in there and (auto or scorer != "auto")
    }
    if "own" in out and "auto" in out:
        own, chosen = surprise(out["own"]), out["auto"] if members > 1 else surprise(out["auto"])
        out["auto + own"] = {what: chosen[what] + own[what] for what in own}
    return out


def surprise(of: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Minus the log of the p-values of all but the images to rank among, which are not to be measured on."""
    ranked = np.sort(of[RANK].astype(np.float64))
    return {what: -np.log(p_values(ranked, x)) for what, x in of.items() if what != RANK}


def line(remedy: str, scorer: str, what: str, known: np.ndarray, unknown: np.ndarray, odd: bool) -> Line:
    return Line(
        remedy, scorer, what, auroc(known, unknown), fpr_at_95_known_recall(known, unknown),
        fpr_at_95_unknown_recall(known, unknown), len(unknown), odd,
    )  # fmt: skip


def oddities(
    opened: Model, known: Pool, fooling: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, float], list[str]]:
    """({name: images} of noise and of images made to fool this classifier, {name: share with a softmax of at least
    0.99}, notes). None for a classifier that is fed arrays: what its pixels mean is not known."""
    if known.way is None:
        return {}, {}, []
    h, w = known.x.shape[1:3]
    made = {f"noise: {kind}": make(kind, PER_NOISE, size=(h, w), seed=seed) for kind in NOISE}
    notes = []
    if fooling:
        try:
            attack = fool(opened, count=fooling, preprocess=replace(known.way, height=h, width=w), seed=seed)
            made["fooling images"] = attack.images
        except Exception as error:  # no gradient and no package for the other way, for instance
            notes.append(f"No fooling images: {_reason(error)}")
    return made, {name: confident(opened, known, x) for name, x in made.items()}, notes


def confident(opened: Model, pool: Pool, x: np.ndarray) -> float:
    """The share of images whose largest softmax output is at least 0.99."""
    logits = opened.forward(opened.input.to_layout(pool.inputs(x))).logits
    return float((np.asarray(softmax(np.asarray(logits))).max(axis=1) >= SURE).mean())

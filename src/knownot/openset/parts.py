"""A fit in parts: `fit_part` on each, `merge` of all, in whatever processes and on whatever machines."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from .. import saving
from ..arguments import public, short, whole
from ..detectors import resolve
from ..engines import each
from ..errors import OptionError, SavedError, unknown_name
from ..fitting.auxiliary import Auxiliary
from ..fitting.distributed import Part, finish, gather_part, kinds, part_of, things_of
from ..fitting.extraction import batch_size_for
from ..fitting.many import RANKING
from ..fitting.options import CalibrationOptions
from ..fitting.setup import FitJob
from ..fitting.thumbnails import Thumbnails
from ..models import Model, open_model
from ..models.reopen import described
from ..progress import bar
from ..selection.choice import watch as empty_watch
from ..selection.decision import hold_out, subsample
from ..shifts.kinds import asked_for
from ..shifts.sample import Sample
from ..version import __version__
from .classifier import OpenSetClassifier, networks_in
from .fit import assemble, fit
from .replacing import replacing
from .steps import ONE, Agreed, agree_on, checked_passes

DEFAULTS = {p.name: p.default for p in inspect.signature(fit).parameters.values() if p.kind is p.KEYWORD_ONLY}
OBJECTS = ("preprocess", "second_preprocess", "trials")  # of what all parts have in common: no plain values
HOLDS = "part of a fit"
# What all parts of a fit have to have in common, in words for people.
ALIKE = {
    "version": "knownot's version",
    "fingerprint": "classifier",
    "second": "second network",
    "detector": "detector",
    "wanted": "statistics",
    "options": "alpha, guarantee, delta or seed",
    "preprocess": "preprocessing",
    "names": "class names",
    "labelled": "form: with labels or without",
    "calibrated": "form: with calibration images or without",
    "none": "none_classes",
    "thumbnails": "number of thumbnails",
    "shifts": "kinds of change (shifts=)",
}


@public
def fit_part(model: Any, known: Any, labels: Any = None, *, part: tuple[int, int] = (1, 1), **options: Any) -> Part:
    """What part (i, of) of the known images, and of the calibration images, gives to a fit; `merge` makes it of all.

    Every part is given the same arguments, the whole images among them, on whatever machine: each reads its own part,
    and some images of the whole where the preprocessing has to be found. Where the images are in several places that
    share none, each gives its own with part=(1, 1), and the preprocessing where it is not the model's.

    Parameters
    ----------
    model, known, labels, **options
        As of `knownot.fit`; unknown= is for `merge`. A part keeps some calibration images as pictures, for `merge` to
        make changed copies of them, unless shifts=False; with part=(1, 1) only where shifts= is given.
    part : (int, int), default (1, 1)
        Which part, from 1 on, of how many.

    Returns
    -------
    Part
        See `save_part`; it can be pickled too.

    Raises
    ------
    KnownotError
        As `knownot.fit` does, for what can be said of a part.

    Examples
    --------
    >>> images = {"known": "data/train", "calibration": "data/val"}
    >>> halves = [knownot.fit_part("model.onnx", **images, part=(i, 2), progress=False) for i in (1, 2)]
    >>> knownot.merge(halves, model="model.onnx").record.known
    400
    """
    if tuple(part) == (1, 1) and options.get("shifts") is None:
        options["shifts"] = False  # images of one place among several may have to stay there
    return _part(model, known, labels, part, options)


def _part(model: Any, known: Any, labels: Any, part: tuple[int, int], options: dict[str, Any]) -> Part:
    given = {**DEFAULTS, **options}
    if unknown := [name for name in options if name not in DEFAULTS]:
        raise unknown_name("option of fit_part", unknown[0], list(DEFAULTS))
    if given["unknown"] is not None:
        raise OptionError("unknown= is no part of the known images: give it to merge.")
    return gathered(agree_on(model, (known, labels), **given), part, source_name(known), given["thumbnails"])


def gathered(agreed: Agreed, part: tuple[int, int], source: str, thumbnails: int) -> Part:
    """The part of a fit that is agreed on. source: what parts of the same images have in common."""
    job, (number, of) = agreed.job, part
    if not 1 <= number <= of:
        raise OptionError(f"part {number}/{of}: expected one from 1 to {of}.")
    if any(recipe.kind.passes_by_fit for recipe in job.recipes.values()):
        raise OptionError(
            "This detector changes images by what it has learnt, so that calibration images cannot be looked at before "
            "everything is fitted: it cannot be fitted in parts."
        )
    watch = subsample(job)
    hold = hold_out(job, RANKING[0], watch) if job.held is None else None
    none = agreed.none[0] if agreed.none else None
    shown, sample = Thumbnails(thumbnails, job.options.seed), Sample(seed=job.options.seed) if agreed.changes else None
    if hold is not None:
        hold.also = sample
    about = _about(agreed, thumbnails)
    made = gather_part(job, part, about, shown, none=none, hold=hold, watch=watch, sample=sample)
    if sample is not None:
        sample.shared(None if of == 1 else (job.images if job.held is None else job.held).count)
    if of == 1:  # whole sources are told apart by what is in them
        source = f"{source}, {hash_of(made)}"
    made.pieces = ((f"{source} of {job.images.count or 'many'} images", number, of),)
    return made


@public
def merge(
    parts: Iterable[Part | str | Path],
    *,
    model: Any = None,
    features: Any = None,
    unknown: Any = None,
    progress: bool = False,
) -> OpenSetClassifier:
    """The open-set classifier that `knownot.fit` would make of all images together.

    Parameters
    ----------
    parts : iterable of Part or path
        All parts of the known images, in any order: folders, or what `fit_part` returned. Parts of several sources may
        be mixed, each of them whole.
    model, features : optional
        The classifier and the second network, where no part was saved with them.
    unknown : optional
        As of `knownot.fit`, with detector="auto".
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    OpenSetClassifier

    Raises
    ------
    SavedError
        A folder is no part, or parts are missing, come twice, or are of different fits.
    KnownotError
        As `knownot.fit` does, for what only all images together show.

    Examples
    --------
    >>> part = knownot.fit_part("model.onnx", "data/train", calibration="data/val", progress=False)
    >>> knownot.merge([part], model="model.onnx").promise
    'at most 5 % of known images are rejected (99 % confidence)'
    """
    begin, listed = time.perf_counter(), list(parts)
    if not listed:
        raise OptionError("There are no parts to merge.")
    # One that was saved with the classifier comes first.
    listed.sort(key=lambda one: isinstance(one, str | Path) and not any(Path(one).glob("model*")))
    whole, agreed = _first(listed[0], (model, features))
    with bar("merge", len(listed) - 1, progress) as advance:
        for one in listed[1:]:
            part = one if isinstance(one, Part) else read_part(one)[0]
            add_part(whole, part, agreed.job)
            advance(1)
    return merged(agreed, whole, begin, unknown)


@public
def fit_in_parts(
    model: Any,
    known: Any,
    labels: Any = None,
    *,
    parts: int,
    engine: str = "none",
    workers: int | None = None,
    unknown: Any = None,
    **options: Any,
) -> OpenSetClassifier:
    """`knownot.fit` by parts of the images, several at once: `fit_part` of each, and `merge`.

    Parameters
    ----------
    model, known, labels, unknown, **options
        As of `knownot.fit`. Of engines other than "none": what can be pickled, so files by their paths.
    parts : int
        How many parts.
    engine : {"none", "processes", "ray"}, default "none"
        Who fits them: this process, one after the other; others of this machine; or a Ray cluster, whose machines see
        the same paths.
    workers : int, optional
        Processes at once; as many as there are cores when left out.

    Returns
    -------
    OpenSetClassifier

    Raises
    ------
    KnownotError
        As `fit_part` and `merge` do; StorageError where processes are lost again and again.
    """
    whole("parts", parts, 1)
    progress = options.pop("progress", True)
    work, made = partial(_fit_one, model, known, labels, parts, options), list[Part | str | Path]()
    with bar("parts", parts, progress) as advance:
        for _, part in each(work, range(1, parts + 1), engine=engine, workers=workers):
            made.append(part)
            advance(1)
    asked = {name: options[name] for name in ("head", "stages") if options.get(name) is not None}
    return merge(made, model=open_model(model, **asked), features=options.get("features"), unknown=unknown)


def _fit_one(model: Any, known: Any, labels: Any, of: int, options: dict[str, Any], number: int) -> Part:
    return _part(model, known, labels, (number, of), {**options, "progress": False})


def add_part(whole: Part, part: Part, job: FitJob) -> None:
    """Merge `part` into `whole`. Raises SavedError where they are of different fits."""
    for name, words in ALIKE.items():
        mine, theirs = whole.about[name], part.about[name]
        if mine != theirs:
            raise SavedError(
                f"The parts are of different fits: {words} of {_words(whole)} is not that of {_words(part)} "
                f"({short(mine)}, {short(theirs)}). Give each the same arguments."
            )
    whole.merge(part, job)


def merged(agreed: Agreed, whole: Part, begin: float, unknown: Any = None) -> OpenSetClassifier:
    """From all parts together. Raises SavedError when some are missing or come twice."""
    _check_complete(whole.pieces)
    passed = checked_passes(finish(agreed.job, whole))
    sample = whole.sample if isinstance(whole.sample, Sample) else None
    return assemble(agreed, passed, whole.shown, begin, unknown=unknown, sample=sample)


def _check_complete(pieces: Sequence[tuple[str, int, int]]) -> None:
    for source, of in dict.fromkeys((source, of) for source, _, of in pieces):
        numbers = [i for s, i, n in pieces if (s, n) == (source, of)]
        if twice := sorted({i for i in numbers if numbers.count(i) > 1}):
            raise SavedError(f"Part {twice[0]}/{of} of {source} is there twice. Give each once.")
        if missing := sorted(set(range(1, of + 1)) - set(numbers)):
            some = ", ".join(map(str, missing[:10])) + ", …" * (len(missing) > 10)
            raise SavedError(f"Of {source}, {of} parts, {len(missing)} are missing: {some}. Fit them, and merge all.")


def _words(part: Part) -> str:
    source, number, of = part.pieces[0]
    return f"part {number}/{of} of {source}"


def source_name(known: Any) -> str:
    """What is called the same wherever the same images lie."""
    return Path(known).name if isinstance(known, str | Path) else type(known).__name__


def hash_of(part: Part) -> str:
    """Tells images by what is in them."""
    keys = np.array(sorted(part.known.contents.times), np.uint64)
    return hashlib.blake2b(keys.tobytes(), digest_size=4).hexdigest()


def _about(agreed: Agreed, thumbnails: int) -> dict[str, Any]:
    """What is the same for all parts, or for people; plain values but for the preprocessing."""
    job = agreed.job
    options = job.options
    return {
        **described(job.model, None),
        "version": __version__,
        "second": None if job.second is None else described(job.second.model, None),
        "detector": agreed.asked,
        "wanted": [repr(want) for want in job.wanted],
        "options": {n: getattr(options, n) for n in ("alpha", "guarantee", "delta", "seed")},
        "names": list(job.names),
        "labelled": job.capabilities.labels,
        "calibrated": job.held is not None,
        "none": list(agreed.named),
        "thumbnails": thumbnails,
        "shifts": list(agreed.shifts) if isinstance(agreed.shifts, tuple) else agreed.shifts,
        "allow_low_accuracy": job.allow_low_accuracy,
        "found": list(job.found),
        "notes": list(job.notes),
        "preprocess": job.way,
        "second_preprocess": None if job.second is None else job.second.preprocess,
        "trials": job.trials,
    }


def _first(one: Part | str | Path, given: tuple[Any, Any]) -> tuple[Part, Agreed]:
    """The first part, and what all agreed on, with the networks opened."""
    folder, files = Path("the part"), tuple[str, ...]()
    if not isinstance(one, Part):
        folder = Path(one)
        one, files = read_part(folder)
    about = one.about
    model, second = networks_in(folder, about, files, given, about["second_preprocess"])
    own = model.capabilities if second is None else second.beside(model.capabilities)
    capabilities = replace(own, labels=about["labelled"])
    recipe, _ = resolve(about["detector"], capabilities)
    job = FitJob(
        model=model,
        capabilities=capabilities,
        recipes={ONE: recipe},
        images=cast(Any, None),  # they were walked over elsewhere
        held=None,
        second=second,
        way=about["preprocess"],
        names=tuple(about["names"]),
        order=None,
        size=batch_size_for(model, about["preprocess"], second),
        options=CalibrationOptions(**about["options"]),
        progress=False,
        allow_low_accuracy=about["allow_low_accuracy"],
        trials=about["trials"],
        found=tuple(about["found"]),
        notes=tuple(about["notes"]),
    )
    if [repr(want) for want in job.wanted] != list(about["wanted"]):
        raise SavedError("These parts hold other statistics than this detector is fitted on here. Fit them again.")
    return one, Agreed(
        job=job,
        none=() if one.none is None else (one.none,),
        named=tuple(about["none"]),
        again="",
        asked=about["detector"],
        shifts=about["shifts"],
        changes=asked_for(about["shifts"]),
    )


def save_part(part: Part, folder: str | Path, model: Model | None = None, second: Auxiliary | None = None) -> Path:
    """Write a part into a folder of its own: arrays and JSON. model, second: the classifier, and the second network as
    an `Auxiliary`; written beside it, if given. One part of a fit needs them.

    Raises OptionError for a detector or kinds of change that are no names, or lists of names: they could not be found
    again.
    """
    if not _names(part.about["detector"]):
        raise OptionError(
            "A part can be kept only where detectors are given by name, as 'knownot detectors' lists them."
        )
    if not (part.about["shifts"] is None or isinstance(part.about["shifts"], bool) or _names(part.about["shifts"])):
        raise OptionError("A part can be kept only where kinds of change (shifts=) are given by name.")
    objects = {name: part.about[name] for name in OBJECTS}
    with replacing(Path(folder)) as draft:
        facts = {name: x for name, x in part.about.items() if name not in OBJECTS}
        if model is not None:
            facts["model_file"] = model.save(draft)
        if second is not None:
            facts["second"] = facts["second"] | {"model_file": second.saved(draft, True)["model_file"]}
        files = tuple(sorted(p.relative_to(draft).as_posix() for p in draft.rglob("*") if p.is_file()))
        about = {"knownot": __version__, "holds": HOLDS, "part": facts, "pieces": [list(one) for one in part.pieces]}
        saving.write(draft, {**things_of(part), **objects}, about=about, files=files)
    return Path(folder)


def _names(given: Any) -> bool:
    return isinstance(given, str) or (isinstance(given, list | tuple) and all(isinstance(name, str) for name in given))


def read_part(folder: str | Path) -> tuple[Part, tuple[str, ...]]:
    """(what `save_part` wrote, names of the networks' files). Raises SavedError."""
    things, about, files = saving.read(Path(folder), kinds(), holds=HOLDS)
    facts = {**about["part"], **{name: things.pop(name) for name in OBJECTS}}
    options = CalibrationOptions(**facts["options"])
    watch = None if things["watch"] is None else empty_watch(options.seed)
    sample = None if things["sample"] is None else Sample(seed=options.seed)
    return part_of(things, facts, about["pieces"], options, watch, sample), files

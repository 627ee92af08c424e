"""From batches of activations to fitted, ranked and calibrated detectors: any number of them in the same pass."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from ..arrays import Activations, Capabilities
from ..calibration import PER_CLASS, Calibration, allowed_rank
from ..detectors import Detector, Recipe
from ..detectors.base import to_namespace
from ..errors import CalibrationError, OptionError, UnsoundError
from ..images.prefetch import overlap_work
from ..models import Model
from ..stats import Statistic, StatisticRequest, gather, one_blas_thread, raised
from .content import Contents
from .extraction import Extractor, Observer
from .labels import class_order
from .options import CalibrationOptions
from .sampling import HoldOut, Subsample, numbers_of
from .setup import FitJob

T = TypeVar("T")

NARROW = 256  # features up to which BLAS's threads gain nothing, and on a busy machine lose most of the time by waiting
FEWEST, RANKING = 10, (30, 75)  # images that rank the members of a combination: at least, and of how many is chosen
NEARLY = 0.98  # of the most that could be rejected within alpha
ROWS = 1024  # that are scored at once, so that tables of them against a bank stay small


def fitted_on(
    recipes: Sequence[Recipe], batches: Iterable[tuple[Activations, np.ndarray]], model: Model
) -> list[Detector]:
    """Every recipe, fitted from one pass; what several want is gathered once. Raises UnsoundError."""
    wanted = [want for recipe in recipes for want in recipe.required_statistics(model.capabilities).values()]
    return fit_from(recipes, gather((batch for batch in batches), wanted, overlap_work), model, model.capabilities)


def fit_from(
    recipes: Sequence[Recipe],
    statistics: Mapping[StatisticRequest, Statistic],
    model: Model,
    capabilities: Capabilities,
    refused: dict[int, str] | None = None,
    seconds: dict[int, float] | None = None,
) -> list[Detector]:
    """Every recipe, fitted.

    refused: filled with {which recipe: why} for those that the known images show to be unsound here, or their options
    to be out of range, and these are left out of the result; without it, the first one raises its error. seconds:
    filled with {which recipe: what fitting it took by the clock}, statistics apart.
    """
    fitted = []
    narrow = model.head is not None and model.head.weight.shape[1] <= NARROW
    with one_blas_thread() if narrow else nullcontext():
        for i, recipe in enumerate(recipes):
            begin = time.perf_counter()
            try:
                fitted.append(recipe.fit(statistics, model.head, capabilities))
            except (UnsoundError, OptionError) as error:
                if refused is None:
                    raise
                refused[i] = str(error)
            if seconds is not None:
                seconds[i] = time.perf_counter() - begin
    return fitted


def measured_on(detectors: Sequence[Detector], batches: Iterable[Activations]) -> tuple[list[np.ndarray], np.ndarray]:
    """(for each detector its members' scores [n, m], the predicted classes [n]) of calibration images."""
    in_float32: tuple[Detector, ...] = to_namespace(tuple(detectors), np, np.float32)
    member_scores: list[list[np.ndarray]] = [[] for _ in in_float32]
    predicted: list[np.ndarray] = []

    def measure(batch: Activations) -> None:
        for begin in range(0, len(batch), ROWS):
            some = batch.take(slice(begin, begin + ROWS)).with_cache()
            with one_blas_thread():
                for mine, detector in zip(member_scores, in_float32, strict=True):
                    mine.append(np.asarray(detector.member_scores(some)))
            predicted.append(np.argmax(some.logits, axis=1))

    for _ in overlap_work(measure, (batch for batch in batches)):
        pass
    if not predicted:
        raise CalibrationError("There is no calibration image that could be read.")
    return [np.concatenate(mine) for mine in member_scores], np.concatenate(predicted)


Scored = tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]


def score_each(detectors: Sequence[Detector], batches: Iterable[Activations], seed: int) -> Scored:
    """(for each detector its members' scores [n, m], the predicted classes [n], keys [n], numbers [n]) of calibration
    images, each once, in the order of the numbers by which they rank and calibrate: no other order, and no division of
    the images, changes anything."""
    keys: list[np.ndarray] = []

    def noted() -> Iterator[Activations]:
        for batch in batches:
            keys.append(np.asarray(batch.keys))
            yield batch

    parts, predicted = measured_on(detectors, noted())
    found = np.concatenate(keys)
    numbers, order = np.unique(numbers_of(found, seed), return_index=True)
    return [part[order] for part in parts], predicted[order], found[order], numbers


@dataclass(frozen=True)
class Gathered:
    """What a pass over the known images, or over a part of them, gave; nothing is fitted yet."""

    job: FitJob
    known: Extractor
    statistics: Mapping[StatisticRequest, Statistic]
    hold: HoldOut | None  # known images held out to calibrate
    contents: Contents | None = None  # what was in the known images, where that was looked at


@dataclass(frozen=True)
class PassResults:
    """Detectors fitted on the known images, and their members' scores of the images that calibrate, by name."""

    job: FitJob
    known: Extractor
    fitted: Mapping[str, Detector]
    refused: Mapping[str, str]  # {name: why the known images show it to be unsound}
    hold: HoldOut | None  # known images held out to calibrate
    contents: Contents | None = None  # what was in the known images, where that was looked at
    held_contents: Contents | None = None  # and in those that are only there to calibrate
    calibration: Extractor | None = None  # the pass over images that are only there to calibrate
    watch: Subsample | None = None  # some of the images that calibrate, where they are kept
    member_scores: Mapping[str, np.ndarray] = field(default_factory=dict)  # [n, m] each
    predicted: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # [n]
    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))  # [n] of their contents
    numbers: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))  # [n] ascending, to draw by
    seconds: Mapping[str, float] = field(default_factory=dict)  # that fitting each one took


def gather_known(
    job: FitJob,
    observers: Sequence[Observer] = (),
    *,
    judges: bool = True,
    contents: Contents | None = None,
    last: bool = True,
) -> Gathered:
    """One pass over the known images gathers what every detector of the job is fitted on. A `HoldOut` among the
    observers keeps some images.

    judges: raise LabelsError early where labels and outputs do not belong together. contents: looks at what is in the
    images. last: False where another part of the known images follows.
    """
    hold = _first(HoldOut, observers)
    known = job.extractor([one for recipe in job.recipes.values() for one in recipe.passes(held_out=hold is not None)])
    names = job.names if judges else None
    batches = known.run(job.images, "known", observers, order=job.order, names=names, contents=contents, last=last)
    statistics = gather((batch for batch in batches), job.wanted, overlap_work)
    for _ in batches:  # where nobody has walked yet, as nothing is gathered
        pass
    return Gathered(job=job, known=known, statistics=statistics, hold=hold, contents=contents)


def fit_gathered(found: Gathered, *, strict: bool = True, judges: bool = True) -> PassResults:
    """Every detector of the job, fitted.

    strict: raise UnsoundError for a detector that the images show to be unsound, instead of leaving it out. judges:
    raise LabelsError where labels and outputs do not belong together.
    """
    job, refused = found.job, {}  # type: ignore[var-annotated]
    recipes = list(job.recipes.values())
    seconds: dict[int, float] = {}
    fitted = fit_from(recipes, found.statistics, job.model, job.capabilities, None if strict else refused, seconds)
    if judges:
        found.known.judge(job.names, job.trials)
    fine = [name for i, name in enumerate(job.recipes) if i not in refused]
    left = {name: refused[i] for i, name in enumerate(job.recipes) if i in refused}
    named = dict(zip(fine, fitted, strict=True))
    took = dict(zip(job.recipes, seconds.values(), strict=True))
    return PassResults(
        job=job, known=found.known, fitted=named, refused=left, hold=found.hold, contents=found.contents, seconds=took
    )


def fit_known(
    job: FitJob,
    observers: Sequence[Observer] = (),
    *,
    strict: bool = True,
    judges: bool = True,
    contents: Contents | None = None,
) -> PassResults:
    """Both in one. The images that calibrate count once each where contents are looked at."""
    found = gather_known(job, observers, judges=judges, contents=contents)
    return fit_gathered(found, strict=strict, judges=judges)


def score_calibration(found: PassResults, observers: Sequence[Observer] = (), *, judges: bool = True) -> PassResults:
    """With the scores of the images that calibrate: those held out, or else one pass over images of their own, for the
    observers. Raises CalibrationError when there is none."""
    job = found.job
    if job.held is None:
        return score_held_out(found)
    own = job.extractor([p for d in found.fitted.values() for p in d.passes])
    contents = None if found.contents is None else Contents(once=True)
    names = job.names if judges else None
    order = class_order(job.held, job.model, job.names, which="calibration")[1]
    batches = own.run(job.held, "calibration", observers, order=order, names=names, contents=contents)
    found = with_scores(found, (activations for activations, _ in batches))
    if judges:
        own.judge(job.names, job.trials)
    return replace(found, calibration=own, watch=_first(Subsample, observers), held_contents=contents)


def score_held_out(found: PassResults) -> PassResults:
    """With the scores of the known images that were held out."""
    hold = found.hold
    kept = [] if hold is None or not hold.rows else [hold.activations()]
    return replace(with_scores(found, kept), watch=None if hold is None else hold.watch)


def with_scores(found: PassResults, batches: Iterable[Activations]) -> PassResults:
    """With the scores of these calibration images."""
    parts, predicted, keys, numbers = score_each(list(found.fitted.values()), batches, found.job.options.seed)
    scores = dict(zip(found.fitted, parts, strict=True))
    return replace(found, member_scores=scores, predicted=predicted, keys=keys, numbers=numbers)


def _first(kind: type[T], observers: Sequence[Observer]) -> T | None:
    return next((one for one in observers if isinstance(one, kind)), None)


@dataclass(frozen=True)
class CalibratedDetector:
    """A detector with its rule. references: each member's scores of the calibration images, ascending and
    raised by what rounding may add."""

    detector: Detector
    calibration: Calibration
    references: tuple[np.ndarray, ...]


def calibrate(
    detector: Detector,
    member_scores: np.ndarray,
    predicted: np.ndarray,
    options: CalibrationOptions,
    *,
    numbers: np.ndarray | None = None,
    evidence: int = 0,
) -> CalibratedDetector:
    """Rank and calibrate a detector from its members' scores [n, m] of known images that are new to the classifier.

    The images that rank the members of a combination and those that set its threshold are different ones, drawn at
    random: a known image to come is then exchangeable with the latter, and the guarantee holds.
    numbers [n]: to draw by, see `numbers_of`, the smallest rank; those of places in a row, if not given. evidence: of
    how many of the smallest the detector was chosen by. They set no threshold, but may rank.
    Raises CalibrationError when there are too few.
    """
    numbers = numbers_of(np.arange(len(member_scores)), options.seed) if numbers is None else numbers
    rank, rest = _split(np.argsort(numbers, kind="stable"), detector.needs_reference, evidence, options)
    ranked = detector.fit_reference(member_scores[rank]) if len(rank) else detector
    scores = np.asarray(to_namespace(ranked, np, np.float32).combine(member_scores[rest]))
    calibration = Calibration.of(scores, predicted[rest], **options.rule)
    return CalibratedDetector(ranked, calibration, tuple(raised(np.sort(part)) for part in member_scores[rest].T))


def check_enough(n: int, ranks: bool, options: CalibrationOptions) -> None:
    """Raise the CalibrationError that `calibrate` would raise of n calibration images, before anything is computed."""
    if ranks:
        _split(np.arange(n), True, 0, options)
    elif options.guarantee in ("pac", "marginal"):
        Calibration.of(np.zeros(n), np.zeros(n, np.int64), **options.rule)


def images_that_rank(n: int, options: CalibrationOptions) -> int:
    """How many of n calibration images rank the members of a combination: of 30 to 75, as far as there are enough, the
    largest number whose rest rejects about as many known images within alpha as any (the rule goes in steps of k).

    Beyond the largest reference p-values go on as an exponential tail, so few references do; every other image makes
    the threshold less strict. It depends on numbers alone and on no score, so the guarantee holds.
    """
    most = min(max(n // 2, FEWEST), RANKING[1], n - options.needed)
    if options.guarantee in PER_CLASS:
        return most  # each class has its own steps

    spent = {
        rank: allowed_rank(n - rank, options.alpha, options.guarantee, options.delta) / (n - rank + 1)
        for rank in range(min(RANKING[0], most), most + 1)
    }
    return max(rank for rank, share in spent.items() if share >= NEARLY * max(spent.values()))


def _split(order: np.ndarray, ranks: bool, evidence: int, options: CalibrationOptions) -> tuple[np.ndarray, np.ndarray]:
    """(rows that rank the members, rows that calibrate), of rows in random order."""
    n = len(order)
    if not ranks:
        return np.empty(0, np.int64), np.sort(order[evidence:])
    rank = max(images_that_rank(n, options), evidence)
    if rank < FEWEST:
        raise CalibrationError(
            f"{n} calibration images are too few for a combination of detectors: {options.needed} decide the threshold "
            f"and at least {FEWEST} others rank the members' scores. {options.sentence} Give "
            "more images, guarantee='marginal', a larger alpha, or a single detector."
        )
    return np.sort(order[:rank]), np.sort(order[rank:])

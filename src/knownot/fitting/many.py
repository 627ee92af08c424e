"""From batches of activations to fitted, ranked and calibrated detectors: any number of them in the same pass."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from ..arrays import Activations, Capabilities
from ..calibration import PER_CLASS, Calibration, allowed_rank
from ..detectors import Detector, Recipe
from ..detectors.base import to_namespace
from ..errors import CalibrationError, OptionError, UnsoundError
from ..images.prefetch import overlapped
from ..models import Model
from ..stats import gather, one_blas_thread, raised
from .content import Contents
from .extraction import Extractor, Observer
from .labels import class_order
from .options import CalibrationOptions
from .sampling import HoldOut, Subsample
from .setup import FitJob

T = TypeVar("T")

NARROW = 256  # features up to which BLAS's threads gain nothing, and on a busy machine lose most of the time by waiting
FEWEST, RANKING = 10, (30, 75)  # images that rank the members of a combination: at least, and of how many is chosen
NEARLY = 0.98  # of the most that could be rejected within alpha
ROWS = 1024  # that are scored at once, so that tables of them against a bank stay small


def fitted_on(
    recipes: Sequence[Recipe],
    batches: Iterable[tuple[Activations, np.ndarray]],
    model: Model,
    capabilities: Capabilities | None = None,
    refused: dict[int, str] | None = None,
    seconds: dict[int, float] | None = None,
) -> list[Detector]:
    """Every recipe, fitted from one pass; what several want is gathered once.

    capabilities: if more than the model's own.

    refused: filled with {which recipe: why} for those that the known images show to be unsound here, or their options
    to be out of range, and these are left out of the result; without it, the first one raises its error. seconds:
    filled with {which recipe: what fitting it took by the clock}, statistics apart.
    """
    capabilities = capabilities or model.capabilities
    wanted = [want for recipe in recipes for want in recipe.required_statistics(capabilities).values()]
    found = gather((batch for batch in batches), wanted, overlapped)
    fitted = []
    narrow = model.head is not None and model.head.weight.shape[1] <= NARROW
    with one_blas_thread() if narrow else nullcontext():
        for i, recipe in enumerate(recipes):
            begin = time.perf_counter()
            try:
                fitted.append(recipe.fit(found, model.head, capabilities))
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

    for _ in overlapped(measure, (batch for batch in batches)):
        pass
    if not predicted:
        raise CalibrationError("There is no calibration image that could be read.")
    return [np.concatenate(mine) for mine in member_scores], np.concatenate(predicted)


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
    numbers: np.ndarray = field(default_factory=lambda: np.empty(0))  # [n] random, for whoever draws among them
    seconds: Mapping[str, float] = field(default_factory=dict)  # that fitting each one took


def fit_known(
    job: FitJob,
    observers: Sequence[Observer] = (),
    *,
    strict: bool = True,
    judges: bool = True,
    contents: Contents | None = None,
) -> PassResults:
    """One pass over the known images fits every detector of the job. A `HoldOut` among the observers keeps some images.

    strict: raise UnsoundError for a detector that the images show to be unsound, instead of leaving it out. judges:
    raise LabelsError where labels and outputs do not belong together. contents: looks at what is in the images; those
    that calibrate then count once each, and `held_contents` tells which are among the known ones.
    """
    hold = _first(HoldOut, observers)
    known = job.extractor([one for recipe in job.recipes.values() for one in recipe.passes(held_out=hold is not None)])
    names = job.names if judges else None
    batches = known.run(job.images, "known", observers, order=job.order, names=names, contents=contents)
    refused: dict[int, str] = {}
    seconds: dict[int, float] = {}
    recipes = list(job.recipes.values())
    fitted = fitted_on(recipes, batches, job.model, job.capabilities, None if strict else refused, seconds)
    for _ in batches:  # where nobody has walked yet, as nothing is gathered
        pass
    if judges:
        known.judge(job.names, job.trials)
    fine = [name for i, name in enumerate(job.recipes) if i not in refused]
    left = {name: refused[i] for i, name in enumerate(job.recipes) if i in refused}
    took = dict(zip(job.recipes, seconds.values(), strict=True))
    return PassResults(job, known, dict(zip(fine, fitted, strict=True)), left, hold, contents, seconds=took)


def score_calibration(found: PassResults, observers: Sequence[Observer] = (), *, judges: bool = True) -> PassResults:
    """With the scores of the images that calibrate: those held out, or else one pass over images of their own, for the
    observers. Raises CalibrationError when there is none."""
    job, detectors, hold = found.job, list(found.fitted.values()), found.hold
    own, contents, watch = None, None, None if hold is None else hold.watch
    if job.held is None:
        kept = [] if hold is None or not hold.kept else [hold.activations()]
        member_scores, predicted = measured_on(detectors, kept)
        numbers = np.empty(0) if hold is None else hold.numbers
    else:
        own, watch = job.extractor([p for d in detectors for p in d.passes]), _first(Subsample, observers)
        order = class_order(job.held, job.model, job.names, which="calibration")[1]
        contents = None if found.contents is None else Contents(known=found.contents)
        batches = own.run(
            job.held, "calibration", observers, order=order, names=job.names if judges else None, contents=contents
        )
        member_scores, predicted = measured_on(detectors, (activations for activations, _ in batches))
        if judges:
            own.judge(job.names, job.trials)
        numbers = random_numbers(len(predicted), job.options.seed) if watch is None else watch.numbers
    scores = dict(zip(found.fitted, member_scores, strict=True))
    found = replace(found, held_contents=contents)
    return replace(found, calibration=own, watch=watch, member_scores=scores, predicted=predicted, numbers=numbers)


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
    numbers [n]: the random numbers to draw by, the smallest rank; drawn from the seed if not given. evidence: of how
    many of the smallest the detector was chosen by. They set no threshold, but may rank.
    Raises CalibrationError when there are too few.
    """
    numbers = random_numbers(len(member_scores), options.seed) if numbers is None else numbers
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


def random_numbers(n: int, seed: int) -> np.ndarray:
    """Of n calibration images, in the order of the walk; the first m of them are those of m images."""
    return np.random.default_rng([seed, 3]).random(n)


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

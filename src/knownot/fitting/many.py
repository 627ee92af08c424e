"""From batches of activations to fitted, ranked and calibrated detectors: any number of them in the same pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from ..arrays import Activations, Offers
from ..calibration import PER_CLASS, Calibration, allowed_rank, images_needed, images_needed_sentence
from ..detectors import Detector, Recipe
from ..detectors.base import moved
from ..errors import CalibrationError, UnsoundError
from ..images.prefetch import overlapped
from ..models import Model
from ..stats import gather, one_blas_thread, raised

NARROW = 256  # features up to which BLAS's threads gain nothing, and on a busy machine lose most of the time by waiting
FEWEST, RANKING = 10, (30, 75)  # images that rank the members of a combination: at least, and of how many is chosen
NEARLY = 0.98  # of the most that could be rejected within alpha
ROWS = 1024  # that are scored at once, so that tables of them against a bank stay small


def fitted_on(
    recipes: Sequence[Recipe],
    batches: Iterable[tuple[Activations, np.ndarray]],
    model: Model,
    offers: Offers | None = None,
    refused: dict[int, str] | None = None,
) -> list[Detector]:
    """Every recipe, fitted from one pass; what several want is gathered once. offers: if more than the model's own.

    refused: filled with {which recipe: why} for those that the known images show to be unsound here, and these are left
    out of the result; without it, the first one raises UnsoundError.
    """
    offers = offers or model.offers
    wanted = [want for recipe in recipes for want in recipe.wants(offers).values()]
    found = gather((batch for batch in batches), wanted, overlapped)
    fitted = []
    narrow = model.head is not None and model.head.weight.shape[1] <= NARROW
    with one_blas_thread() if narrow else nullcontext():
        for i, recipe in enumerate(recipes):
            try:
                fitted.append(recipe.fit(found, model.head, offers))
            except UnsoundError as error:
                if refused is None:
                    raise
                refused[i] = str(error)
    return fitted


def measured_on(detectors: Sequence[Detector], batches: Iterable[Activations]) -> tuple[list[np.ndarray], np.ndarray]:
    """(for each detector its members' scores [n, m], the predicted classes [n]) of calibration images."""
    quick: tuple[Detector, ...] = moved(tuple(detectors), np, np.float32)
    parts: list[list[np.ndarray]] = [[] for _ in quick]
    predicted: list[np.ndarray] = []

    def measure(batch: Activations) -> None:
        for begin in range(0, len(batch), ROWS):
            some = batch.take(slice(begin, begin + ROWS)).sharing()
            with one_blas_thread():
                for mine, detector in zip(parts, quick, strict=True):
                    mine.append(np.asarray(detector.parts(some)))
            predicted.append(np.argmax(some.logits, axis=1))

    for _ in overlapped(measure, (batch for batch in batches)):
        pass
    if not predicted:
        raise CalibrationError("There is no calibration image that could be read.")
    return [np.concatenate(mine) for mine in parts], np.concatenate(predicted)


@dataclass(frozen=True)
class CalibratedDetector:
    """A detector with its rule. references: each member's scores of the calibration images, ascending and
    raised by what rounding may add."""

    detector: Detector
    calibration: Calibration
    references: tuple[np.ndarray, ...]


def decide(
    detector: Detector,
    parts: np.ndarray,
    predicted: np.ndarray,
    *,
    alpha: float,
    guarantee: str,
    delta: float,
    seed: int,
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
    numbers = random_numbers(len(parts), seed) if numbers is None else numbers
    rank, rest = _split(np.argsort(numbers, kind="stable"), detector.ranks, evidence, alpha, guarantee, delta)
    ranked = detector.rank(parts[rank]) if len(rank) else detector
    scores = np.asarray(moved(ranked, np, np.float32).join(parts[rest]))
    calibration = Calibration.of(scores, predicted[rest], alpha=alpha, guarantee=guarantee, delta=delta)
    return CalibratedDetector(ranked, calibration, tuple(raised(np.sort(part)) for part in parts[rest].T))


def random_numbers(n: int, seed: int) -> np.ndarray:
    """Of n calibration images, in the order of the walk; the first m of them are those of m images."""
    return np.random.default_rng([seed, 3]).random(n)


def images_that_rank(n: int, needed: int, alpha: float, guarantee: str, delta: float) -> int:
    """How many of n calibration images rank the members of a combination: of 30 to 75, as far as there are enough, the
    largest number whose rest rejects about as many known images within alpha as any (the rule goes in steps of k).

    Beyond the largest reference p-values go on as an exponential tail, so few references do; every other image makes
    the threshold less strict. It depends on numbers alone and on no score, so the guarantee holds.
    """
    most = min(max(n // 2, FEWEST), RANKING[1], n - needed)
    if guarantee in PER_CLASS:
        return most  # each class has its own steps

    spent = {
        rank: allowed_rank(n - rank, alpha, guarantee, delta) / (n - rank + 1)
        for rank in range(min(RANKING[0], most), most + 1)
    }
    return max(rank for rank, share in spent.items() if share >= NEARLY * max(spent.values()))


def _split(
    order: np.ndarray, ranks: bool, evidence: int, alpha: float, guarantee: str, delta: float
) -> tuple[np.ndarray, np.ndarray]:
    """(rows that rank the members, rows that calibrate), of rows in random order."""
    n = len(order)
    if not ranks:
        return np.empty(0, np.int64), np.sort(order[evidence:])
    needed = images_needed(alpha, delta, guarantee)
    rank = max(images_that_rank(n, needed, alpha, guarantee, delta), evidence)
    if rank < FEWEST:
        raise CalibrationError(
            f"{n} calibration images are too few for a combination of detectors: {needed} decide the threshold and at "
            f"least {FEWEST} others rank the members' scores. {images_needed_sentence(alpha, delta, guarantee)} Give "
            "more images, guarantee='marginal', a larger alpha, or a single detector."
        )
    return np.sort(order[:rank]), np.sort(order[rank:])

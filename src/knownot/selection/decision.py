"""From fitted detectors to calibrated ones, chosen before where that was asked for."""

from __future__ import annotations

import numpy as np

from ..fitting.many import CalibratedDetector, PassResults, calibrate
from ..fitting.sampling import HoldOut, Subsample
from ..fitting.setup import FitJob
from .choice import Chosen, choose, enough, watch


def subsample(job: FitJob) -> Subsample | None:
    """What has to see the calibration images, if any of the detectors is to be chosen."""
    return watch(job.options.seed) if any(recipe.kind.chooses for recipe in job.recipes.values()) else None


def hold_out(job: FitJob, ranking: int, watch: Subsample | None) -> HoldOut:
    """Of the known images. ranking: how many at least rank the members of a combination; watch: sees those held out.

    Raises CalibrationError when there are too few.
    """
    kinds, needed, count = [recipe.kind for recipe in job.recipes.values()], job.options.needed, job.images.count
    want = needed + ranking * any(kind.needs_reference for kind in kinds)
    if any(kind.chooses for kind in kinds) and (count is None or enough(needed) <= count // 2):
        want = max(want, enough(needed))
    return HoldOut(count, want, job.options, watch)


def decide(
    found: PassResults, name: str, unknown: np.ndarray | None = None
) -> tuple[CalibratedDetector, Chosen | None]:
    """(the detector of that name with its rule, what was chosen if it chooses). unknown [k, m]: scores of the members
    on unknown images of the user's own.

    Raises CalibrationError when there are too few calibration images.
    """
    detector, member_scores = found.fitted[name], found.member_scores[name]
    choice = choose(found, name, unknown) if detector.chooses and len(member_scores) else None
    if choice is not None:
        detector, member_scores = choice.detector, choice.member_scores
    calibrated = calibrate(
        detector, member_scores, found.predicted, found.job.options, numbers=found.numbers,
        evidence=0 if choice is None else choice.evidence,
    )  # fmt: skip
    return calibrated, choice

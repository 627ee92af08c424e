"""Options chosen on validation images, as OpenOOD's automatic parameter search; test images have no part in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..arrays import Capabilities
from ..detectors import Recipe, resolve
from ..detectors.ranges import ranges_of, variations
from ..errors import CalibrationError, KnownotError
from ..fitting.many import RANKING, CalibratedDetector, PassResults, calibrate
from ..images import Images
from ..measure import auroc
from .scoring import score_set

FEWEST = 30  # calibration images to choose by


@dataclass(frozen=True)
class Tuned:
    """key: the name of the chosen candidate in the run, the detector's own where its own options stay. tried: how many
    there were. auroc: of validation images."""

    key: str
    options: str
    auroc: float
    tried: int

    def rule(self, found: PassResults, evidence: int) -> CalibratedDetector:
        """evidence: how many calibration images it was chosen by, which set no threshold."""
        return calibrate(
            found.fitted[self.key], found.member_scores[self.key], found.predicted, found.job.options,
            numbers=found.numbers, evidence=evidence,
        )  # fmt: skip


def candidates(recipes: Mapping[str, Recipe], capabilities: Capabilities) -> dict[str, dict[str, Recipe]]:
    """{detector: {name in the run: recipe}} of the options that detectors with ranges may have on this classifier."""
    found: dict[str, dict[str, Recipe]] = {}
    for name, recipe in recipes.items():
        for said, changed in variations(recipe, ranges_of(name, recipe)):
            try:
                found.setdefault(name, {})[f"{name} ({said})"] = resolve(changed, capabilities)[0]
            except KnownotError:
                continue
    return found


def tune(
    found: PassResults, options: Mapping[str, Mapping[str, Recipe]], validation: Images
) -> tuple[dict[str, Tuned], int]:
    """({detector: what was chosen}, by how many calibration images): the largest AUROC of these against the validation
    images; of equal ones the first, which is the detector with the options that it has without tuning.

    Raises CalibrationError when too few calibration images would be left to set thresholds.
    """
    if not options:
        return {}, 0
    job, n = found.job, len(found.predicted)
    evidence = min(n // 2, n - job.options.of_classes(job.capabilities.classes) - RANKING[0])
    if evidence < FEWEST:
        raise CalibrationError(
            f"{n:,} calibration images are too few to tune by: {FEWEST} or more choose options, and others set the "
            "threshold. Give more images, a larger alpha, or do not tune."
        )
    rows = np.argsort(found.numbers, kind="stable")[:evidence]
    tried = {name: [key for key in (name, *group) if key in found.fitted] for name, group in options.items()}
    fitted = {key: found.fitted[key] for keys in tried.values() for key in keys}
    unknown = score_set(fitted, job, "validation", validation, known=False).scores
    chosen = {}
    for name, keys in tried.items():
        known = {key: np.asarray(found.fitted[key].combine(found.member_scores[key][rows])) for key in keys}
        fine = [key for key in keys if not (np.isnan(known[key]).any() or np.isnan(unknown[key]).any())]
        aurocs = {key: auroc(known[key], unknown[key]) for key in fine}
        if aurocs:
            best = max(aurocs, key=lambda key: aurocs[key])
            said = best.removeprefix(name).strip(" ()") or "as it is"
            chosen[name] = Tuned(best, said, aurocs[best], len(aurocs))
    return chosen, evidence

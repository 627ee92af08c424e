"""The automatic choice: which detectors to combine on this classifier, from evidence without unknown images.

It starts from the default and has to be talked out of it. First are weights (`stacking`), tried on families of made
outliers that took no part in learning them; where they do not hold, single members may still come and go (`stepwise`).
On the mean over made outliers alone mixtures of two known images would outvote all else (measured; see
docs/reference/detectors.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import Activations
from ..detectors import Detector
from ..detectors.auto import Auto
from ..fitting.many import PassResults, measured_on
from ..fitting.sampling import Subsample
from .combination import select_combination, weight_of_yours
from .diagnostics import Check, answers, flags, left_out
from .scoreboard import YOURS

LEAST, MOST = 100, 2_000  # images of evidence
EACH = 64  # made outliers of a kind


def watch(seed: int) -> Subsample:
    """What has to see the calibration images for a choice to be made afterwards."""
    return Subsample(LEAST, MOST, seed)


def enough(needed: int) -> int:
    """How many calibration images a choice takes, when `needed` decide the threshold."""
    return LEAST + needed + max(needed, 50)


def share(n: int, needed: int) -> int:
    """How many of n calibration images are evidence, when `needed` decide the threshold; 0 when they are too few."""
    return min(MOST, max(LEAST, n // 4)) if n >= enough(needed) else 0


@dataclass(frozen=True)
class Chosen:
    """What was chosen, and why. member_scores [n, m]: of all calibration images."""

    detector: Detector  # not ranked yet
    member_scores: np.ndarray
    checks: tuple[Check, ...]
    note: str
    evidence: int = 0  # known images that took part
    made: int = 0  # made outliers that the classifier was shown


def choose(found: PassResults, name: str, unknown: np.ndarray | None = None) -> Chosen:
    """Choose among the fitted candidates of the detector `name`, by the calibration images of smallest random number,
    which must set no threshold afterwards.

    unknown [k, m]: the candidates' scores of unknown images of the user's own, one more kind of evidence, of more
    weight the more there are.
    """
    auto, member_scores, job = found.fitted[name], found.member_scores[name], found.job
    assert isinstance(auto, Auto)  # for the type checker: no other detector chooses
    assert found.watch is not None
    start, names = list(auto.start), auto.names
    failed = tuple(
        Check(detector=one, flags=(), auroc={}, verdict="left out", why=f"It could not be fitted here: {why}")
        for one, why in auto.failed
    )
    needed = job.options.of_classes(job.capabilities.classes)
    n = share(len(member_scores), needed)
    if not n:
        note = (
            f"Automatic choice: {len(member_scores):,} calibration images are too few to choose by, so the default "
            f"stays; {enough(needed):,} are enough, {LEAST} as evidence and the others to rank and calibrate."
        )
        return Chosen(auto.only(auto.start, auto.weights), member_scores[:, start], failed, note)
    known = member_scores[np.argsort(found.numbers, kind="stable")[:n]]
    computed = answers(job.extractor(), *found.watch.pictures(), each=EACH, seed=job.options.seed)
    made = _by_kind(auto, computed)
    weights: dict[str, float] = {}
    if unknown is not None and len(unknown):
        made, weights = made | {YOURS: unknown}, weight_of_yours(len(unknown), list(made))
    count = sum(len(batch) for batch in computed.values())
    rounds: list[tuple[np.ndarray, np.ndarray]] = []

    def again(near: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        rounds.extend(_left_out(found, name, near, n))
        return rounds

    ruling = select_combination(names, start, known, made, again, weights, auto.votes_of(range(len(names))))
    chosen = ruling.columns
    checks = [
        Check(
            detector=one,
            flags=flags(known[:, j], aurocs),
            auroc=aurocs,
            verdict=_verdict(j, start, chosen),
            why=ruling.why.get(j, ""),
        )
        for j, (one, aurocs) in enumerate(zip(names, ruling.found, strict=True))
    ]
    places = {j: (j not in start, j not in chosen, -(checks[j].median or 0)) for j in range(len(names))}
    lines = [checks[j] for j in sorted(places, key=places.__getitem__)]
    basis = f"{n:,} known images, {count:,} made outliers, {len(made) + len(rounds)} kinds of unknown images"
    return Chosen(
        detector=auto.only(chosen, ruling.weights or auto.votes_of(chosen).tolist()),
        member_scores=member_scores[:, list(chosen)],
        checks=(*lines, *failed),
        note=ruling.words(names, start, basis),
        evidence=n,
        made=count,
    )


def _left_out(found: PassResults, name: str, near: Sequence[int], n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scores of (known, unknown) images, [n, m] with NaN for others than those `near`, when classes are left out."""
    auto, job, watch = found.fitted[name], found.job, found.watch
    assert isinstance(auto, Auto)
    assert watch is not None
    sample = dict(auto.sample)
    classes = np.asarray(sample.pop("class"), dtype=np.int64)
    recipes = {auto.names[j]: job.recipes[name].options["candidates"][auto.names[j]] for j in near}
    train = (Activations.of(sample), classes)
    for a, b in left_out(recipes, train, watch.rows(n), job.model.head, job.capabilities, job.options.seed):
        yield _spread(a, near, len(auto.names)), _spread(b, near, len(auto.names))


def _by_kind(auto: Detector, computed: Mapping[str, Activations]) -> dict[str, np.ndarray]:
    """{kind: scores [k, m]} of the candidates."""
    if not computed:
        return {}
    (member_scores,), _ = measured_on([auto], computed.values())
    ends = np.cumsum([len(batch) for batch in computed.values()])
    return dict(zip(computed, np.split(member_scores, ends[:-1]), strict=True))


def _spread(member_scores: np.ndarray, columns: Sequence[int], m: int) -> np.ndarray:
    """[n, len(columns)] -> [n, m], NaN elsewhere."""
    wide = np.full((len(member_scores), m), np.nan)
    wide[:, list(columns)] = member_scores
    return wide


def _verdict(j: int, start: Sequence[int], chosen: Sequence[int]) -> str:
    return {(True, True): "kept", (True, False): "dropped", (False, True): "added", (False, False): ""}[
        j in start, j in chosen
    ]

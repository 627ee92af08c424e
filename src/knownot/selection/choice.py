"""The automatic choice: which detectors to combine on this classifier, from evidence without unknown images.

It starts from the default and has to be talked out of it. First are weights (`stacking`), tried on families of made
outliers that took no part in learning them; where they do not hold, single members may still come and go (`stepwise`).
On the mean over made outliers alone mixtures of two known images would outvote all else (measured; see
docs/detectors.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import Activations, Offers
from ..detectors import Detector, Recipe
from ..detectors.auto import Auto
from ..fitting.extraction import Extractor, Subsample
from ..fitting.many import measured_on
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
    """What was chosen, and why. parts [n, m]: of all calibration images."""

    detector: Detector  # not ranked yet
    parts: np.ndarray
    checks: tuple[Check, ...]
    note: str
    evidence: int = 0  # known images that took part
    made: int = 0  # made outliers that the classifier was shown


def choose(
    auto: Detector,
    recipe: Recipe,
    parts: np.ndarray,
    numbers: np.ndarray,
    seen: Subsample,
    *,
    walk: Extractor,
    offers: Offers,
    needed: int,
    seed: int,
    unknown: np.ndarray | None = None,
) -> Chosen:
    """Choose among the fitted candidates by the images of smallest `numbers`, which must set no threshold afterwards.

    parts [n, m], numbers [n]: the candidates' scores and the random numbers of calibration images; seen: what saw them.
    recipe: of `auto`, settled. needed: images that decide the threshold. unknown [k, m]: the candidates' scores of
    unknown images of the user's own, one more kind of evidence, of more weight the more there are.
    """
    assert isinstance(auto, Auto)  # for the type checker: no other detector chooses
    start, names = list(auto.start), auto.names
    failed = tuple(Check(name, (), {}, "left out", f"It could not be fitted here: {why}") for name, why in auto.failed)
    n = share(len(parts), needed)
    if not n:
        note = (
            f"Automatic choice: {len(parts):,} calibration images are too few to choose by, so the default stays; "
            f"{enough(needed):,} are enough, {LEAST} as evidence and the others to rank and calibrate."
        )
        return Chosen(auto.only(auto.start, auto.weights), parts[:, start], failed, note)
    order = np.argsort(numbers, kind="stable")
    evidence = order[:n]
    held, labels = seen.rows(n)
    computed = answers(walk, *seen.pictures(), each=EACH, seed=seed)
    made = _by_kind(auto, computed)
    weights: dict[str, float] = {}
    if unknown is not None and len(unknown):
        made, weights = made | {YOURS: unknown}, weight_of_yours(len(unknown), list(made))
    sample = dict(auto.sample)
    classes = np.asarray(sample.pop("class"), dtype=np.int64)
    count = sum(len(batch) for batch in computed.values())

    def again(near: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        recipes = {names[j]: recipe.options["candidates"][names[j]] for j in near}
        some = left_out(recipes, (Activations.of(sample), classes), (held, labels), walk.model.head, offers, seed)
        rounds.extend((_spread(a, near, len(names)), _spread(b, near, len(names))) for a, b in some)
        return rounds

    rounds: list[tuple[np.ndarray, np.ndarray]] = []
    known = parts[evidence]
    ruling = select_combination(names, start, known, made, again, weights, auto.votes_of(range(len(names))))
    chosen = ruling.columns
    checks = [
        Check(name, flags(known[:, j], found), found, _verdict(j, start, chosen), ruling.why.get(j, ""))
        for j, (name, found) in enumerate(zip(names, ruling.found, strict=True))
    ]
    places = {j: (j not in start, j not in chosen, -(checks[j].median or 0)) for j in range(len(names))}
    lines = [checks[j] for j in sorted(places, key=places.__getitem__)]
    basis = f"{n:,} known images, {count:,} made outliers, {len(made) + len(rounds)} kinds of unknown images"
    return Chosen(
        auto.only(chosen, ruling.weights or auto.votes_of(chosen).tolist()), parts[:, list(chosen)], (*lines, *failed),
        ruling.words(names, start, basis), n, count,
    )  # fmt: skip


def _by_kind(auto: Detector, computed: Mapping[str, Activations]) -> dict[str, np.ndarray]:
    """{kind: scores [k, m]} of the candidates."""
    if not computed:
        return {}
    (parts,), _ = measured_on([auto], computed.values())
    ends = np.cumsum([len(batch) for batch in computed.values()])
    return dict(zip(computed, np.split(parts, ends[:-1]), strict=True))


def _spread(parts: np.ndarray, columns: Sequence[int], m: int) -> np.ndarray:
    """[n, len(columns)] -> [n, m], NaN elsewhere."""
    wide = np.full((len(parts), m), np.nan)
    wide[:, list(columns)] = parts
    return wide


def _verdict(j: int, start: Sequence[int], chosen: Sequence[int]) -> str:
    return {(True, True): "kept", (True, False): "dropped", (False, True): "added", (False, False): ""}[
        j in start, j in chosen
    ]

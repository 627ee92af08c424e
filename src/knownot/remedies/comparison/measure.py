"""What scorers tell on one classifier: a line for each of them and each unknown set, and how sure the classifier is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...arrays import softmax
from ...benchmark import compare as compare_detectors
from ...calibration import p_values
from ...detectors import beside_default
from ...errors import KnownotError
from ...fooling import fool
from ...measure import auroc, fpr_at_95_known_recall, fpr_at_95_unknown_recall
from ...models import Model
from ...outliers import make
from ..saved import recipe_of
from ..training.data import Pool
from .result import Line
from .splits import Splits, plain

NOISE, PER_NOISE = ("uniform", "gaussian"), 200
SURE = 0.99
CLEAN, RANK = "known", "known, to rank"


@dataclass(frozen=True)
class Measurement:
    """What every classifier is measured on. names: of its outputs; unknown: sets; auto, fooling: as of `compare`."""

    splits: Splits
    names: tuple[str, ...]
    unknown: Mapping[str, Pool]
    auto: bool
    fooling: int
    seed: int
    progress: bool


def measure(opened: Model, scorers: Mapping[str, Any], on: Measurement) -> tuple[list[Line], dict[str, Any]]:
    """(a line per remedy, scorer and unknown set; facts about the classifier that they share)."""
    splits, way = on.splits, plain(on.splits.known.way)
    sets = {name: pool.x for name, pool in on.unknown.items()}
    extra, sure, notes = oddities(opened, splits.known, on.fooling, on.seed)
    detectors: dict[str, Any] = {"default": "default"} | ({"auto": "auto"} if on.auto else {})
    for name, detector in scorers.items():
        if detector is not None and detector != "default":
            detectors[f"{name}: own"] = recipe_of(detector)
            detectors[f"{name}: default"] = beside_default(name, detector)
    result = compare_detectors(
        opened, splits.known.x, splits.known.labels, calibration=(splits.calibration.x, splits.calibration.labels),
        test={CLEAN: (splits.test.x, splits.test.labels), RANK: (splits.rank.x, splits.rank.labels)},
        unknown=sets | extra, detectors=detectors, preprocess=way, class_names=on.names, guarantee="marginal",
        check=False, seed=on.seed, progress=on.progress,
    )  # fmt: skip
    lines = []
    members = sum(check.verdict in ("kept", "added") for check in result.choices.get("auto", ()))
    for name, detector in scorers.items():
        for scorer, of in scores(name, detector, on.auto, result.scores, members).items():
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
        remedy=remedy,
        scorer=scorer,
        unknown=what,
        auroc=auroc(known, unknown),
        fpr_at_95_known_recall=fpr_at_95_known_recall(known, unknown),
        fpr_at_95_unknown_recall=fpr_at_95_unknown_recall(known, unknown),
        images=len(unknown),
        odd=odd,
    )


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
            notes.append(f"No fooling images: {reason(error)}")
    return made, {name: confident(opened, known, x) for name, x in made.items()}, notes


def confident(opened: Model, pool: Pool, x: np.ndarray) -> float:
    """The share of images whose largest softmax output is at least 0.99."""
    logits = np.concatenate([np.asarray(seen.logits) for seen in replace(pool, x=x).activations(opened)])
    return float((softmax(logits).max(axis=1) >= SURE).mean())


def reason(error: BaseException) -> str:
    """What to say of it in a table."""
    text = str(error) or repr(error)
    return text if isinstance(error, KnownotError) else f"{type(error).__name__}: {text}"

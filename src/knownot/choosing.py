"""The automatic choice: which detectors to combine on this classifier, from evidence without unknown images.

It starts from the default and has to be talked out of it. First are weights (`weighing`), tried on families of made
outliers that took no part in learning them; where they do not hold, single members may still come and go (`selecting`).
On the mean over made outliers alone mixtures of two known images would outvote all else (measured; see
docs/detectors.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .arena import YOURS, Arena, family
from .arrays import Activations, Offers
from .detectors import Auto, Detector, Recipe
from .evidence import LEFT_OUT, Check, answers, auroc_of, failing, flags, left_out
from .fitting import measured_on
from .selecting import select
from .walk import Walk, Watch
from .weighing import promising, weighed

LEAST, MOST = 100, 2_000  # images of evidence
EACH = 64  # made outliers of a kind
TRIED = 12  # candidates looked at closely


def watch(seed: int) -> Watch:
    """What has to see the calibration images for a choice to be made afterwards."""
    return Watch(LEAST, MOST, seed)


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
    seen: Watch,
    *,
    walk: Walk,
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
        return Chosen(auto.only(auto.start), parts[:, start], failed, note)
    order = np.argsort(numbers, kind="stable")
    evidence = order[:n]
    held, labels = seen.rows(n)
    computed = answers(walk, *seen.pictures(), each=EACH, seed=seed)
    made = _by_kind(auto, computed)
    weights = {}
    if unknown is not None and len(unknown):
        families = len({family(kind) for kind in made}) + 1
        made, weights = made | {YOURS: unknown}, {YOURS: families * len(unknown) / (len(unknown) + 50)}
    sample = dict(auto.sample)
    classes = np.asarray(sample.pop("class"), dtype=np.int64)
    known = parts[evidence]
    found = [_aurocs(j, known, made, ()) for j in range(len(names))]
    bad = {j: " ".join(why) for j in range(len(names)) if (why := failing(known[:, j], found[j]))}
    near = shortlist(Arena.of(known, made, (), weights), start, bad) if made else list(start)
    # To fit again without classes is what costs: only those that may be chosen are.
    recipes = {names[j]: recipe.options["candidates"][names[j]] for j in near}
    some = left_out(recipes, (Activations.of(sample), classes), (held, labels), walk.model.head, offers, seed)
    rounds = [(_spread(a, near, len(names)), _spread(b, near, len(names))) for a, b in some]
    found = [_aurocs(j, known, made, rounds) for j in range(len(names))]
    bad |= {j: " ".join(why) for j in near if (why := failing(known[:, j], found[j]))}
    others = {j: "not on the shortlist" for j in range(len(names)) if j not in near}
    ruling = rule(Arena.of(known, made, rounds, weights), names, start, others, bad)
    chosen = ruling.columns
    checks = [
        Check(name, flags(known[:, j], found[j]), found[j], _verdict(j, start, chosen), ruling.why.get(j, ""))
        for j, name in enumerate(names)
    ]
    places = {j: (j not in start, j not in chosen, -(checks[j].median or 0)) for j in range(len(names))}
    lines = [checks[j] for j in sorted(places, key=places.__getitem__)]
    count = sum(len(batch) for batch in computed.values())
    basis = f"{n:,} known images, {count:,} made outliers, {len(made) + len(rounds)} kinds of unknown images"
    return Chosen(
        auto.only(chosen, ruling.weights), parts[:, list(chosen)], (*lines, *failed),
        ruling.words(names, start, basis), n, count,
    )  # fmt: skip


@dataclass(frozen=True)
class Ruling:
    """columns, and their weights in the sum (none: all 1). why: {column: why it went or came}."""

    columns: tuple[int, ...]
    weights: tuple[float, ...] = ()
    why: Mapping[int, str] = field(default_factory=dict)
    before: float = 0.0  # mean AUROC over families
    after: float = 0.0

    def words(self, names: Sequence[str], start: Sequence[int], basis: str) -> str:
        if set(self.columns) == set(start) and not self.weights:
            return f"Automatic choice: the default stays. No evidence against it is strong enough ({basis})."
        went = [f"{names[j]} dropped ({self.why[j]})" for j in start if j not in self.columns and j in self.why]
        if self.weights:
            order = sorted(zip(self.weights, self.columns, strict=True), reverse=True)
            moves = [f"weights {', '.join(f'{names[j]} {w:.2g}' for w, j in order)}", *went]
            how = ", each family with the weights learnt without it,"
        else:
            moves = went + [f"{names[j]} added ({self.why[j]})" for j in self.columns if j not in start]
            how = ""
        return (
            f"Automatic choice: {'; '.join(moves)}. Mean AUROC over families of unknown images{how} "
            f"{self.before:.3f} → {self.after:.3f} ({basis})."
        )


def rule(
    arena: Arena, names: Sequence[str], start: Sequence[int], aside: Mapping[int, str], bad: Mapping[int, str]
) -> Ruling:
    """What the evidence says. aside: {column: why} of those not looked at closely; bad: of those not to be used."""
    if not arena.unknown:
        return Ruling(tuple(start))
    own = [j for j in start if j not in bad]
    more = [j for j in range(len(names)) if j not in start and j not in bad and j not in aside]
    found = weighed(arena, own, more) if own else None
    if found is None:
        chosen, why = select(arena, names, start, {**aside, **bad})
        before, after = (arena.mean(arena.auroc(columns)) for columns in (start, chosen))
        return Ruling(chosen, (), why, before, after)
    why = {j: bad[j] for j in start if j in bad}
    why |= {j: f"weight {w:.2g}" for j, w in zip(found.columns, found.weights, strict=True)}
    return Ruling(found.columns, found.weights, why, found.before, found.after)


def shortlist(arena: Arena, start: Sequence[int], failing: Mapping[int, str]) -> list[int]:
    """The columns to look at closely: those to start from, those with a weight, and those with which most is gained."""
    m = next(iter(arena.known.values())).shape[1]
    own = [j for j in start if j not in failing]
    rest = [j for j in range(m) if j not in start and j not in failing]
    with_them = sorted(rest, key=lambda j: -(arena.least([*own, j], own) if own else 0.0))
    alone = sorted(rest, key=lambda j: -arena.mean(arena.auroc([j])))
    return sorted({*start, *promising(arena, own, rest), *with_them[:TRIED], *alone[: TRIED // 4]})


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


def _aurocs(
    j: int, known: np.ndarray, made: Mapping[str, np.ndarray], rounds: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[str, float]:
    found = {kind: auroc_of(known[:, j], x[:, j]) for kind, x in made.items()}
    without = [auroc_of(a[:, j], b[:, j]) for a, b in rounds if np.isfinite(a[:, j]).all()]
    return found | ({LEFT_OUT: float(np.mean(without))} if without else {})


def _verdict(j: int, start: Sequence[int], chosen: Sequence[int]) -> str:
    return {(True, True): "kept", (True, False): "dropped", (False, True): "added", (False, False): ""}[
        j in start, j in chosen
    ]

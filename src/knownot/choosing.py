"""The automatic choice: which detectors to combine on this classifier, from evidence without unknown images.

It starts from the default and has to be talked out of it: a member goes when the evidence shows that it fails here, and
one comes, only where that is better on every *family* of made outliers that leaves room, and harms none: nobody knows
which of them the unknown images to come are like. On their mean alone mixtures of two known images would outvote all
else (measured; see docs/detectors.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from .arrays import Activations, Offers
from .detectors import Auto, Detector, Recipe
from .evidence import LEFT_OUT, Check, answers, auroc_of, failing, flags, left_out
from .fitting import measured_on
from .outliers import OUTLIERS
from .walk import Walk, Watch

LEAST, MOST = 100, 2_000  # images of evidence
EACH = 64  # made outliers of a kind
MARGIN = 0.005  # of the mean AUROC over families, whichever of them is left out: less is no strong evidence
WEAK = 0.75  # median AUROC of a member above which it does not fail, and stays
TOLERANCE = 0.03  # how much worse it may be on any one kind, beyond twice the standard error
EVEN = 0.003  # of the AUROC on a family: a smaller difference is none
FEWEST = 4  # families that leave room, all of which have to be better
ROOM = 0.99  # a family on which both are above this says nothing about which is better
TRIED, ADDED = 12, 3  # candidates looked at closely, and added, at most
YOURS = "your unknown images"


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
class Arena:
    """Minus the log of p-values, for known images and for each kind of unknown, of m detectors."""

    known: Mapping[str, np.ndarray]  # {kind: [n, m]}: the known images that it is compared with
    unknown: Mapping[str, np.ndarray]  # {kind: [k, m]}
    weights: Mapping[str, float] = field(default_factory=dict)  # {family: weight}, 1 where it is not named

    @classmethod
    def of(
        cls,
        known: np.ndarray,
        made: Mapping[str, np.ndarray],
        rounds: Sequence[tuple[np.ndarray, np.ndarray]] = (),
        weights: Mapping[str, float] | None = None,
    ) -> Arena:
        """From scores: known [n, m], made {kind: [k, m]}, rounds of classes left out [(known, unknown)]."""
        pairs = {kind: (known, x) for kind, x in made.items()}
        pairs |= {f"{LEFT_OUT} {i + 1}": pair for i, pair in enumerate(rounds)}
        surprise = {kind: _surprise(*pair) for kind, pair in pairs.items()}
        return cls({k: x[0] for k, x in surprise.items()}, {k: x[1] for k, x in surprise.items()}, weights or {})

    def placed(self, columns: Sequence[int], half: int | None = None) -> dict[str, np.ndarray]:
        """{kind: for each unknown image [k], the share of known ones that these detectors, combined, score below it}.

        Its mean is the AUROC. half: 0 or 1 for every other image only.
        """
        rows = slice(half, None, 1 if half is None else 2)
        columns = list(columns)
        found = {}
        for kind, x in self.unknown.items():
            known = np.sort(self.known[kind][rows][:, columns].sum(axis=1))
            scores = x[rows][:, columns].sum(axis=1)
            below = np.searchsorted(known, scores, side="left") + np.searchsorted(known, scores, side="right")
            found[kind] = below / (2 * len(known))
        return found

    def auroc(self, columns: Sequence[int], half: int | None = None) -> dict[str, float]:
        """{kind: AUROC} of these detectors, combined."""
        return {kind: float(x.mean()) for kind, x in self.placed(columns, half).items()}

    def families(self, found: Mapping[str, float]) -> dict[str, float]:
        """The mean within each family of kinds."""
        groups: dict[str, list[float]] = {}
        for kind, x in found.items():
            groups.setdefault(family(kind), []).append(x)
        return {name: float(np.mean(x)) for name, x in groups.items()}

    def mean(self, found: Mapping[str, float]) -> float:
        """Over families, weighted."""
        means = self.families(found)
        return float(np.average(list(means.values()), weights=[self.weights.get(name, 1.0) for name in means]))

    def better(self, new: Sequence[int], old: Sequence[int], *, harmless: bool = False) -> str:
        """Why the detectors `new`, combined, are clearly better than `old`; "" where they are not.

        harmless: it is enough that no family loses, as where there are fewer detectors than before.
        """
        change, room = self._change(new, old)
        least = self.least(new, old)
        if len(room) < FEWEST or self.gain(new, old) < MARGIN or least < (-EVEN if harmless else EVEN):
            return ""
        after, before = self.placed(new), self.placed(old)
        for x in (after[kind] - before[kind] for kind in after):  # of each image
            if x.mean() + 2 * x.std() / np.sqrt(len(x)) < -TOLERANCE:
                return ""
        if any(self.mean(self.auroc(new, half)) <= self.mean(self.auroc(old, half)) for half in (0, 1)):
            return ""
        total = self.mean(self.auroc(new)) - self.mean(self.auroc(old))
        up = sum(change[name] > 0 for name in room)
        return f"{total:+.3f} mean AUROC, better on {up} of the {len(room)} families of unknown images that leave room"

    def least(self, new: Sequence[int], old: Sequence[int]) -> float:
        """What is gained on the made family that gains least, of those that leave room; minus one where any loses.

        Nobody knows which family the unknown images to come are like. Where there are some of the user's own, their
        change counts as well, by their share of the weight, and so much harm elsewhere is borne.
        """
        change, room = self._change(new, old)
        yours = {name: self.weights[name] for name in change if name in self.weights}
        part = sum(yours.values()) / (sum(yours.values()) + len(change) - len(yours))
        made = [name for name in change if name not in yours]
        if any(change[name] < -EVEN - part * TOLERANCE for name in made):
            return -1.0
        worst = min((change[name] for name in made if name in room), default=0.0)
        return (1 - part) * worst + (
            sum(w * change[name] for name, w in yours.items()) / (sum(yours.values()) or 1)
        ) * part

    def _change(self, new: Sequence[int], old: Sequence[int]) -> tuple[dict[str, float], list[str]]:
        """({family: change of its AUROC}, the families that leave room for one)."""
        a, b = self.families(self.auroc(new)), self.families(self.auroc(old))
        return {name: a[name] - b[name] for name in a}, [name for name in a if min(a[name], b[name]) < ROOM]

    def gain(self, new: Sequence[int], old: Sequence[int]) -> float:
        """Of the mean AUROC over families, without the made family that gains most: it must not hang on one."""
        change, _ = self._change(new, old)
        made = [name for name in change if name not in self.weights]
        best = max(made, key=change.__getitem__) if len(change) > 1 and made else None
        rest = {name: x for name, x in change.items() if name != best}
        return float(np.average(list(rest.values()), weights=[self.weights.get(name, 1.0) for name in rest]))


def family(kind: str) -> str:
    if kind in OUTLIERS:
        return OUTLIERS[kind].family
    return LEFT_OUT if kind.startswith(LEFT_OUT) else kind


def _surprise(known: np.ndarray, unknown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-log p of both against the known ones; a known image is compared with the others. NaN counts as most known."""
    out: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for mine, theirs in zip(known.T, unknown.T, strict=True):
        low = np.finfo(np.float64).min
        a, b = (np.where(np.isnan(x), low, x.astype(np.float64)) for x in (mine, theirs))
        reference = np.sort(a)
        n = len(reference)
        out[0].append(-np.log((n - np.searchsorted(reference, a, side="left")) / n))
        out[1].append(-np.log((1 + n - np.searchsorted(reference, b, side="left")) / (n + 1)))
    return np.stack(out[0], axis=1), np.stack(out[1], axis=1)


def select(
    arena: Arena, names: Sequence[str], start: Sequence[int], failing: Mapping[int, str]
) -> tuple[tuple[int, ...], dict[int, str]]:
    """(columns chosen, {column: why it went or came}).

    failing: {column: why} of those that must not be in: their scores are no numbers, all the same, or upside down.
    """
    why: dict[int, str] = {}
    fit = sorted((j for j in range(len(names)) if j not in failing), key=lambda j: -arena.mean(arena.auroc([j])))
    chosen = [j for j in start if j not in failing]
    why |= {j: failing[j] for j in start if j in failing}
    if not chosen and fit:
        chosen = fit[:1]
        why[fit[0]] = "no member of the default holds; this one sees most"
    while leaving := _leaving(arena, chosen):
        out, said = leaving
        chosen = [j for j in chosen if j not in out]
        why |= {j: f"without {'it' if len(out) == 1 else 'these ' + str(len(out))} {said}" for j in out}
    others = [j for j in fit if j not in start and j not in chosen]
    for _ in range(ADDED):
        least = {j: arena.least([*chosen, j], chosen) for j in others if j not in chosen}
        for j in sorted(least, key=lambda j: -least[j]):
            said = arena.better([*chosen, j], chosen)
            if said:
                chosen, why[j] = [*chosen, j], f"with it {said}"
                break
        else:
            break
    return tuple(chosen or start), why


def _leaving(arena: Arena, chosen: Sequence[int]) -> tuple[tuple[int, ...], str] | None:
    """(the weak member, or two of them, without which most is gained, why), if it is clearly better without."""
    weak = [j for j in chosen if float(np.median(list(arena.auroc([j]).values()))) < WEAK]
    found = []
    for out in (*combinations(weak, 1), *combinations(weak, 2)):
        rest = [j for j in chosen if j not in out]
        said = arena.better(rest, chosen, harmless=True) if rest else ""
        if said:
            found.append((arena.gain(rest, chosen), out, said))
    return max(found)[1:] if found else None


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
    arena = Arena.of(known, made, rounds, weights)
    chosen, moves = select(arena, names, start, others | bad) if arena.unknown else (tuple(start), {})
    checks = [
        Check(name, flags(known[:, j], found[j]), found[j], _verdict(j, start, chosen), moves.get(j, ""))
        for j, name in enumerate(names)
    ]
    places = {j: (j not in start, j not in chosen, -(checks[j].median or 0)) for j in range(len(names))}
    lines = [checks[j] for j in sorted(places, key=places.__getitem__)]
    count = sum(len(batch) for batch in computed.values())
    return Chosen(
        auto.only(chosen), parts[:, list(chosen)], (*lines, *failed),
        _words(names, start, chosen, moves, arena, n, count), n, count,
    )  # fmt: skip


def shortlist(arena: Arena, start: Sequence[int], failing: Mapping[int, str]) -> list[int]:
    """The columns to look at closely: those to start from, and of the others those with which these gain most."""
    m = next(iter(arena.known.values())).shape[1]
    own = [j for j in start if j not in failing]
    rest = [j for j in range(m) if j not in start and j not in failing]
    with_them = sorted(rest, key=lambda j: -(arena.least([*own, j], own) if own else 0.0))
    alone = sorted(rest, key=lambda j: -arena.mean(arena.auroc([j])))
    return sorted({*start, *with_them[:TRIED], *alone[: TRIED // 4]})


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


def _words(
    names: Sequence[str],
    start: Sequence[int],
    chosen: Sequence[int],
    why: Mapping[int, str],
    arena: Arena,
    evidence: int,
    made: int,
) -> str:
    kinds = len(arena.unknown)
    basis = f"{evidence:,} known images, {made:,} made outliers, {kinds} kinds of unknown images"
    if set(chosen) == set(start):
        return f"Automatic choice: the default stays. No evidence against it is strong enough ({basis})."
    before, after = (arena.mean(arena.auroc(columns)) for columns in (start, chosen))
    moves = [f"{names[j]} dropped ({why[j]})" for j in start if j not in chosen]
    moves += [f"{names[j]} added ({why[j]})" for j in chosen if j not in start]
    return (
        f"Automatic choice: {'; '.join(moves)}. Mean AUROC over families of unknown images {before:.3f} → {after:.3f} "
        f"({basis})."
    )

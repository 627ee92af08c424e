"""What the evidence says in the end: which detectors, with which weights, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .diagnostics import LEFT_OUT, auroc_of, failing
from .scoreboard import YOURS, Scoreboard, family
from .stacking import LearntWeights, fit_weights, promising
from .stepwise import select

TRIED = 12  # candidates looked at closely
Rounds = Sequence[tuple[np.ndarray, np.ndarray]]  # of classes left out: scores of (known, unknown)


@dataclass(frozen=True)
class Selection:
    """columns of the candidates, and their weights in the sum (none: their votes).

    why: {column: why it went or came}. found: of each candidate {kind: AUROC}.
    """

    columns: tuple[int, ...]
    weights: tuple[float, ...] = ()
    why: Mapping[int, str] = field(default_factory=dict)
    gain: str = ""  # in words
    found: tuple[Mapping[str, float], ...] = ()

    def words(self, names: Sequence[str], start: Sequence[int], basis: str) -> str:
        if set(self.columns) == set(start) and not self.weights:
            return f"Automatic choice: the default stays. No evidence against it is strong enough ({basis})."
        moves = [f"{names[j]} dropped ({self.why[j]})" for j in start if j not in self.columns and j in self.why]
        if self.weights:
            order = sorted(zip(self.weights, self.columns, strict=True), reverse=True)
            moves = [f"weights {', '.join(f'{names[j]} {w:.2g}' for w, j in order)}", *moves]
        else:
            moves += [f"{names[j]} added ({self.why[j]})" for j in self.columns if j not in start]
        return f"Automatic choice: {'; '.join(moves)}. {self.gain} ({basis})."


def select_combination(
    names: Sequence[str],
    start: Sequence[int],
    known: np.ndarray,
    made: Mapping[str, np.ndarray],
    again: Callable[[Sequence[int]], Rounds],
    weights: Mapping[str, float] | None = None,
    votes: np.ndarray | None = None,
) -> Selection:
    """known [n, m], made {kind: [k, m]}: the candidates' scores. start: the columns of the default.

    again: from columns to their scores when classes are left out, [n, m] with NaN for others; that costs, so only those
    that may be chosen are fitted again. weights: {family: weight}, 1 where it is not named. votes [m]: what each counts
    before weights are learnt, 1 if not given.
    """
    m = len(names)
    wrong = {j for j in range(m) if failing(known[:, j])}
    found = [_aurocs(j, known, made, ()) for j in range(m)]
    near = (
        shortlist(Scoreboard.of(known, made, (), weights, votes), start, _failing(known, found))
        if made
        else list(start)
    )
    rounds = again(near)
    found = [_aurocs(j, known, made, rounds) for j in range(m)]
    arena = Scoreboard.of(known, made, rounds, weights, votes)
    if not arena.unknown:
        return Selection(tuple(start), found=tuple(found))
    bad = _failing(known, found)
    aside = {j: "not on the shortlist" for j in range(m) if j not in near}
    own = _upright(arena, [j for j in start if j not in wrong], bad)
    bad = {j: reason for j, reason in bad.items() if j not in own}
    weighs = fit_weights(arena, own, [j for j in near if j not in start and j not in bad]) if own else None
    if weighs is None:
        chosen, why = select(arena, names, start, {**aside, **bad})
        before, after = (arena.mean(arena.auroc(columns)) for columns in (start, chosen))
        gain = f"Mean AUROC over families of unknown images {before:.3f} → {after:.3f}"
        return Selection(columns=chosen, weights=(), why=why, gain=gain, found=tuple(found))
    said = {j: f"weight {w:.2g}" for j, w in zip(weighs.columns, weighs.weights, strict=True)}
    went = {j: bad[j] for j in start if j in bad}
    return Selection(
        columns=weighs.columns, weights=weighs.weights, why=went | said, gain=_gain(weighs), found=tuple(found)
    )


def _gain(weighs: LearntWeights) -> str:
    (far, seen), (near, also) = weighs.nothing, weighs.something
    return (
        f"Mean AUROC on families of made outliers that keep nothing of known images {far:.3f} → {seen:.3f}, on those "
        f"that keep something {near:.3f} → {also:.3f}, each by weights learnt without it"
    )


def _upright(arena: Scoreboard, own: Sequence[int], bad: Mapping[int, str]) -> list[int]:
    """Without those that are upside down, one by one, unless the others together would see less.

    A member may be upside down on most kinds and yet tell on the others what no other tells. Where all are, none stays.
    """
    own = list(own)
    if all(j in bad for j in own):
        return []
    while down := [j for j in own if j in bad]:
        with_it = arena.mean(arena.auroc(own))
        without = {j: arena.mean(arena.auroc([i for i in own if i != j])) for j in down}
        worst = max(down, key=without.__getitem__)
        if without[worst] < with_it:
            break
        own.remove(worst)
    return own


def shortlist(arena: Scoreboard, start: Sequence[int], failing: Mapping[int, str]) -> list[int]:
    """The columns to look at closely: those to start from, those with a weight, and those with which most is gained."""
    m = next(iter(arena.known.values())).shape[1]
    own = [j for j in start if j not in failing]
    rest = [j for j in range(m) if j not in start and j not in failing]
    with_them = sorted(rest, key=lambda j: -(arena.least([*own, j], own) if own else 0.0))
    alone = sorted(rest, key=lambda j: -arena.mean(arena.auroc([j])))
    return sorted({*start, *promising(arena, own, rest), *with_them[:TRIED], *alone[: TRIED // 4]})


def _failing(known: np.ndarray, found: Sequence[Mapping[str, float]]) -> dict[int, str]:
    said = (failing(known[:, j], found[j]) for j in range(len(found)))
    return {j: " ".join(reasons) for j, reasons in enumerate(said) if reasons}


def _aurocs(j: int, known: np.ndarray, made: Mapping[str, np.ndarray], rounds: Rounds) -> dict[str, float]:
    found = {kind: auroc_of(known[:, j], x[:, j]) for kind, x in made.items()}
    without = [auroc_of(a[:, j], b[:, j]) for a, b in rounds if np.isfinite(a[:, j]).all()]
    return found | ({LEFT_OUT: float(np.mean(without))} if without else {})


def weight_of_yours(count: int, kinds: Sequence[str]) -> dict[str, float]:
    """{family: weight} of so many unknown images of the user's own, among made ones of these kinds: more, the more."""
    return {YOURS: (len({family(kind) for kind in kinds}) + 1) * count / (count + 50)} if count else {}

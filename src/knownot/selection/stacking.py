"""Weights of a combination, learnt from evidence: a logistic regression that is drawn to the default.

What is learnt is tried on *families* of made outliers that took no part in learning it, each in turn. Two groups of
them are asked: those that keep something of known images (`NEAR`), and those that keep nothing. On a good network the
latter are all seen, and a loss among unknown images that resemble nothing known would not show: so it is there that a
gain has to be seen. The former always leave room, and a loss shows; a small one, against that gain, is borne.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .diagnostics import LEFT_OUT
from .scoreboard import YOURS, Scoreboard, family

NEAR = frozenset({"shuffle", "mixture", "inversion", LEFT_OUT})  # families that keep parts, outlines or more
PULLS = (0.03, 0.01, 0.003)  # towards the default, in nats for its own squared length
MEMBERS = 12  # with a weight, at most: each costs at every prediction
GAIN = 0.05  # of the log odds of placing an image right, in families that keep nothing, and over all but the best
BORNE = 0.25  # of that gain, as a loss in families that keep something
FINEST = 1 / 400  # from 0 and 1: closer, an AUROC is not known
Slope = Callable[[np.ndarray], tuple[float, np.ndarray]]  # a function's value and gradient


@dataclass(frozen=True)
class LearntWeights:
    columns: tuple[int, ...]
    weights: tuple[float, ...]  # the largest is 1
    nothing: tuple[float, float]  # mean AUROC over families that keep nothing, before and after; each family by the
    something: tuple[float, float]  # weights that were learnt without it. And over those that keep something


def fit_weights(arena: Scoreboard, start: Sequence[int], others: Sequence[int]) -> LearntWeights | None:
    """Weights for the detectors to start from, which have their votes, and for others, which have 0; None where none
    hold.

    Of several strengths of the pull towards the start, that which helps families most that took no part.
    """
    columns, prior = _begin(arena, start, others)
    fold = _families(arena)
    near, far = [f for f in fold if f in NEAR], [f for f in fold if f not in NEAR and f != YOURS]
    if min(len(near), len(far)) < 2:
        return None
    best: tuple[float, float, dict[str, float]] | None = None
    before = arena.families(arena.auroc(start))
    for pull in PULLS:
        learnt = {f: learn(arena, columns, prior, pull, [g for g in fold if g != f]) for f in fold}
        change = _change(arena, columns, prior, learnt)
        gain = float(np.mean(list(change.values())))
        rest = (sum(change.values()) - max(change.values())) / (len(change) - 1)  # it must not hang on one family
        seen = _over(change, far)
        holds = min(seen, rest) >= GAIN and _over(change, near) >= -BORNE * seen and change.get(YOURS, 0.0) >= 0
        if holds and (best is None or gain > best[0]):
            after = {f: arena.families(arena.auroc(columns, scale=w))[f] for f, w in learnt.items()}
            best = gain, pull, after
    if best is None:
        return None
    weights = learn(arena, columns, prior, best[1], fold)
    chosen = np.flatnonzero(weights)
    nothing, something = ((_over(before, group), _over(best[2], group)) for group in (far, near))
    return LearntWeights(tuple(columns[i] for i in chosen), tuple(map(float, weights[chosen])), nothing, something)


def promising(arena: Scoreboard, start: Sequence[int], others: Sequence[int]) -> list[int]:
    """The columns that have a weight for any strength of the pull."""
    if not start:
        return []
    columns, prior = _begin(arena, start, others)
    found = [learn(arena, columns, prior, pull, _families(arena)) for pull in PULLS]
    return [columns[i] for i in np.flatnonzero(np.max(found, axis=0))]


def _begin(arena: Scoreboard, start: Sequence[int], others: Sequence[int]) -> tuple[list[int], np.ndarray]:
    """(columns, their weights before anything is learnt); of others that rank alike, the first."""
    more = [j for j in arena.distinct([*start, *others]) if j not in start]
    return [*start, *more], np.concatenate([arena.votes_of(start), np.zeros(len(more))])


def learn(
    arena: Scoreboard, columns: Sequence[int], prior: np.ndarray, pull: float, fold: Collection[str]
) -> np.ndarray:
    """Weights [len(columns)] >= 0, the largest 1 and at most `MEMBERS` others than 0, of these families.

        least of  sum over images i of a_i log(1 + exp(-y_i (w x_i + b)))  +  pull |w - s w0|^2 / |s w0|^2

    x_i: minus the log of p-values; y_i: 1 unknown, -1 known; a_i: half the weight on known images, families alike and
    kinds alike within them; w0: prior; s: the scale that fits best, with w = s w0.
    """
    x, y, share = _examples(arena, columns, fold)

    def slope(z: np.ndarray) -> tuple[float, np.ndarray]:
        return float(share @ np.logaddexp(0, -y * z)), -share * y / (1 + np.exp(np.clip(y * z, -500, 500)))

    along = x @ prior

    def scaled(v: np.ndarray) -> tuple[float, np.ndarray]:
        loss, g = slope(v[0] * along + v[1])
        return loss, np.array([g @ along, g.sum()])

    s, b = _least(scaled, np.array([1 / prior.sum(), -1.0]), 1e-6)
    pull = pull / float(s * s * prior @ prior)
    drawn = _fit_drawn(x, slope, s * prior, b, pull)
    kept = np.sort(np.lexsort((-drawn, prior == 0))[:MEMBERS])  # those to start from stay
    weights = np.zeros(len(columns))
    weights[kept] = _fit_drawn(x[:, kept], slope, s * prior[kept], b, pull)
    return np.asarray(np.round(weights / (weights.max() or 1.0), 3))


def _fit_drawn(x: np.ndarray, slope: Slope, centre: np.ndarray, b: float, pull: float) -> np.ndarray:
    """Weights of least loss that are drawn to `centre`."""

    def near(v: np.ndarray) -> tuple[float, np.ndarray]:
        loss, g = slope(x @ v[:-1] + v[-1])
        away = v[:-1] - centre
        return loss + pull * float(away @ away), np.append(x.T @ g + 2 * pull * away, g.sum())

    return _least(near, np.append(centre, b), centre)[:-1]


def _least(function: Slope, begin: np.ndarray, low: float | np.ndarray) -> np.ndarray:
    """Where a convex function with its gradient is least; all variables but the last at least `low`."""
    from scipy.optimize import minimize

    lowest = np.broadcast_to(low, len(begin) - 1)
    bounds = [(float(x), None) for x in lowest] + [(None, None)]
    return np.asarray(minimize(function, begin, jac=True, method="L-BFGS-B", bounds=bounds).x)


def _examples(
    arena: Scoreboard, columns: Sequence[int], fold: Collection[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x [n, m], y [n] of 1 and -1, weights [n])."""
    x: list[np.ndarray] = []
    share: list[np.ndarray] = []
    known: dict[int, tuple[np.ndarray, float]] = {}  # many kinds are compared with the same known images
    kinds = _families(arena)
    whole = sum(arena.weights.get(f, 1.0) for f in fold)
    for f in fold:
        for kind in kinds[f]:
            part = arena.weights.get(f, 1.0) / whole / len(kinds[f]) / 2
            x.append(arena.unknown[kind][:, columns])
            share.append(np.full(len(x[-1]), part / len(x[-1])))
            same = arena.known[kind]
            known[id(same)] = same, part + known.get(id(same), (same, 0.0))[1]
    n = sum(map(len, x))
    for rows, part in known.values():
        x.append(rows[:, columns])
        share.append(np.full(len(rows), part / len(rows)))
    y = np.ones(sum(map(len, x)))
    y[n:] = -1
    return np.concatenate(x), y, np.concatenate(share)


def _families(arena: Scoreboard) -> dict[str, list[str]]:
    """{family: its kinds}."""
    found: dict[str, list[str]] = {}
    for kind in arena.unknown:
        found.setdefault(family(kind), []).append(kind)
    return found


def _change(
    arena: Scoreboard, columns: Sequence[int], prior: np.ndarray, learnt: dict[str, np.ndarray]
) -> dict[str, float]:
    """{family: change of the log odds of its AUROC, by the weights learnt without it}."""
    before = arena.families(arena.auroc(columns, scale=prior))
    after = {f: arena.families(arena.auroc(columns, scale=weights))[f] for f, weights in learnt.items()}
    return {f: _odds(after[f]) - _odds(before[f]) for f in learnt}


def _over(found: Mapping[str, float], group: Sequence[str]) -> float:
    return float(np.mean([found[f] for f in group]))


def _odds(share: float) -> float:
    share = float(np.clip(share, FINEST, 1 - FINEST))
    return float(np.log(share / (1 - share)))

"""Weights learnt from evidence: the least of the documented loss, and only where families that took no part agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import knownot
from helpers import toy
from helpers.auto import KINDS, arena
from knownot import Preprocess
from knownot.detectors import Combined, Energy
from knownot.selection.combination import select_combination
from knownot.selection.scoreboard import YOURS, Scoreboard, family
from knownot.selection.stacking import MEMBERS, NEAR, fit_weights, learn, promising

HALF = Preprocess(scale=1 / 255, name="[0, 1]")
ALL = list(dict.fromkeys(family(kind) for kind in KINDS))


def loss(found: Scoreboard, columns: list[int], weights: np.ndarray, b: float) -> float:
    """The first term of the docstring of `learn`, written out again."""
    total = 0.0
    for name in ALL:
        kinds = [kind for kind in KINDS if family(kind) == name]
        for kind in kinds:
            part = 1 / len(ALL) / len(kinds) / 2
            for y, x in ((1, found.unknown[kind]), (-1, found.known[kind])):
                total += part / len(x) * float(np.log1p(np.exp(-y * (x[:, columns] @ weights + b))).sum())
    return total


def test_the_weights_are_those_of_least_loss():
    """Against others close by: no weights that leave those to start from their share do better, by that loss."""
    found = arena({kind: [1.5, 0.5, 1.0] for kind in KINDS}, 60, 30)
    columns, prior, pull = [0, 1, 2], np.array([1.0, 1.0, 0.0]), 0.01
    weights = learn(found, columns, prior, pull, ALL)
    assert weights.max() == 1
    grid = np.linspace(-5, 0.5, 56)
    s = min((loss(found, columns, x * prior, b), x) for x in np.linspace(0.1, 1.5, 57) for b in grid)[1]
    scale = s / weights[1]  # the second has its share and no more: it sees least

    def least(w: np.ndarray) -> float:
        away = scale * w - s * prior
        pulled = pull * float(away @ away) / float(s * s * prior @ prior)
        return min(loss(found, columns, scale * w, b) + pulled for b in grid)

    here = least(weights)
    tried = 0
    for j in range(3):
        for step in (-0.3, 0.3):
            other = weights.copy()
            other[j] = max(0.0, other[j] + step)
            if (scale * other >= s * prior - 1e-9).all():
                assert here < least(other)
                tried += 1
    assert tried == 5  # all but less of the second
    assert weights[0] > weights[1]
    assert weights[2] > 0


def test_a_strong_pull_leaves_the_default_and_a_weak_one_finds_what_sees():
    found = arena({kind: [0.2, 2.5, 1.0] for kind in KINDS}, 1000, 200)
    prior = np.array([1.0, 0.0, 1.0])
    strong, weak = (learn(found, [0, 1, 2], prior, pull, ALL) for pull in (100.0, 1e-4))
    np.testing.assert_allclose(strong, prior, atol=0.02)
    assert weak[1] == 1
    assert 0.2 < weak[0] < 0.5  # its share, however little it sees here
    assert weak[0] < weak[2] < 0.8


def test_known_images_have_half_of_the_weight_and_families_alike():
    """More images of one kind, or more kinds in one family, change nothing: what is learnt is a mean over families."""
    found = arena({kind: [1.0, 2.0 if kind == "blur" else 0.3] for kind in KINDS}, 400, 64)
    prior = np.array([1.0, 1.0])
    before = learn(found, [0, 1], prior, 0.01, ALL)
    twice = {kind: np.concatenate([x, x]) if kind == "blur" else x for kind, x in found.unknown.items()}
    np.testing.assert_allclose(learn(replace(found, unknown=twice), [0, 1], prior, 0.01, ALL), before, atol=2e-3)
    kinds = {"salt-and-pepper": "uniform", "gaussian": "uniform"}
    more = replace(
        found,
        known=found.known | {new: found.known[old] for new, old in kinds.items()},
        unknown=found.unknown | {new: found.unknown[old] for new, old in kinds.items()},
    )
    np.testing.assert_allclose(learn(more, [0, 1], prior, 0.01, ALL), before, atol=2e-3)


def test_at_most_so_many_members_have_a_weight():
    found = arena({kind: [1.0] * 14 for kind in KINDS}, 400, 64)
    weights = learn(found, list(range(14)), np.ones(14), 0.001, ALL)
    assert (weights > 0).sum() == MEMBERS


def test_weights_hold_where_images_that_keep_nothing_gain_and_the_others_do_not_lose():
    found = arena({kind: [1.0, 1.4] for kind in KINDS}, 1000, 200)
    decided = fit_weights(found, [0], [1])
    assert decided is not None
    assert decided.columns == (0, 1)
    assert decided.weights[1] > 0.7
    assert decided.nothing[1] > decided.nothing[0] + 0.02
    assert decided.something[1] > decided.something[0] + 0.02
    for near in (True, False):  # sees one group much better and the other not at all
        gains = {kind: [1.2, 3.0 if (family(kind) in NEAR) is near else -1.5] for kind in KINDS}
        one = arena(gains, 1000, 200)
        assert learn(one, [0, 1], np.array([1.0, 0.0]), 0.003, ALL)[1] > 0.2  # of all families it would have a weight
        assert fit_weights(one, [0], [1]) is None


def test_what_helps_one_family_alone_is_not_learnt():
    gains = {kind: [1.2, 4.0 if family(kind) == "mixture" else 0.0] for kind in KINDS}
    found = arena(gains, 1000, 200)
    assert learn(found, [0, 1], np.array([1.0, 0.0]), 0.003, ALL)[1] > 0.2
    assert fit_weights(found, [0], [1]) is None


def test_a_gain_that_hangs_on_one_family_is_none():
    """A weight is learnt of small gains everywhere, and one family that took no part gains much by it."""
    outcome = []
    for small in (0.3, 0.75):
        gains = {kind: [1.5, 6.0 if kind == "blur" else small] for kind in KINDS}
        outcome.append(fit_weights(arena(gains, 1000, 200), [0], [1]) is not None)
    assert outcome == [False, True]


def test_a_default_at_its_best_keeps_its_weights():
    perfect = arena({kind: [9.0, 9.0] for kind in KINDS}, 400, 64)
    assert fit_weights(perfect, [0], [1]) is None
    alike = arena({kind: [1.0, 0.9, 0.9] for kind in KINDS}, 1000, 200)
    assert fit_weights(alike, [0, 1, 2], []) is None


def test_without_two_families_in_each_group_nothing_is_learnt():
    kinds = [kind for kind in KINDS if family(kind) in {"noise", "mixture", "inversion", "shuffle"}]
    found = arena({kind: [1.0, 1.6] for kind in kinds}, 1000, 200)
    assert fit_weights(found, [0], [1]) is None


def test_your_own_images_have_to_gain_as_well():
    gains = {kind: [1.0, 1.4] for kind in KINDS}
    for own, holds in ((1.4, True), (-1.0, False)):
        found = replace(arena(gains | {YOURS: [1.0, own]}, 1000, 200), weights={YOURS: 2.0})
        assert (fit_weights(found, [0], [1]) is not None) is holds


def test_of_those_that_rank_alike_one_is_enough():
    rng = np.random.default_rng(0)
    known = np.repeat(rng.normal(size=(500, 2)), [1, 3], axis=1)
    made = {kind: np.repeat(rng.normal((1.0, 1.5), 1, (64, 2)), [1, 3], axis=1) for kind in KINDS}
    known[:, 2] = np.exp(known[:, 2])  # another scale, the same order
    made = {kind: np.column_stack([x[:, :2], np.exp(x[:, 2]), x[:, 3]]) for kind, x in made.items()}
    found = Scoreboard.of(known, made)
    assert found.distinct([0, 1, 2, 3]) == [0, 1]
    assert promising(found, [0], [1, 2, 3]) == [0, 1]
    assert fit_weights(found, [0], [1, 2, 3]).columns == (0, 1)


def test_a_loss_where_something_is_kept_is_borne_only_against_a_gain_four_times_as_large():
    outcome = []
    for near in (0.2, -2.0):
        gains = {kind: [1.5, near if family(kind) in NEAR else 2.5] for kind in KINDS}
        found = arena(gains, 2000, 1000)
        weights = learn(found, [0, 1], np.array([1.0, 0.0]), 0.003, ALL)
        after, before = (found.families(found.auroc([0, 1], scale=w)) for w in (weights, np.array([1.0, 0.0])))
        odds = {f: np.log(after[f] / (1 - after[f])) - np.log(before[f] / (1 - before[f])) for f in after}
        lost = -np.mean([x for f, x in odds.items() if f in NEAR])
        won = np.mean([x for f, x in odds.items() if f not in NEAR])
        outcome.append((lost / won, fit_weights(found, [0], [1]) is not None))
    assert outcome[0][0] < 0.25
    assert outcome[1][0] > 0.25
    assert [held for _, held in outcome] == [True, False]


def scores(gains: dict[str, list[float]], n: int = 1000, k: int = 200) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    m = len(next(iter(gains.values())))
    return rng.normal(size=(n, m)), {kind: rng.normal(size=(k, m)) + np.array(x) for kind, x in gains.items()}


def test_a_detector_that_fails_gets_no_weight():
    known, made = scores({kind: [1.0, 1.4, -1.0, 9.0] for kind in KINDS})
    known[0, 3] = np.nan
    asked = []

    def again(columns):
        asked.append(list(columns))
        return []

    ruling = select_combination(["a", "b", "upside", "broken"], [2, 0, 3], known, made, again)
    assert ruling.columns == (0, 1)
    assert "clearly below one half on 9 of 9 kinds" in ruling.why[2]
    assert "not a finite number for 0.1%" in ruling.why[3]
    assert "upside dropped (It takes" in ruling.words(["a", "b", "upside", "broken"], [2, 0, 3], "")
    assert 1 in asked[0]


def test_a_member_that_is_upside_down_stays_if_the_others_see_less_without_it():
    """On most kinds it is, but on one it alone sees anything."""
    gains = {kind: [6.0, 0.0 if kind == "blur" else 6.0, -0.4] for kind in KINDS}
    gains["blur"] = [-0.5, -0.5, 8.0]
    known, made = scores(gains)
    ruling = select_combination(["a", "b", "gen"], [0, 1, 2], known, made, lambda columns: [])
    assert ruling.columns == (0, 1, 2)
    gains["blur"] = [6.0, 6.0, -0.4]
    known, made = scores(gains)
    ruling = select_combination(["a", "b", "gen"], [0, 1, 2], known, made, lambda columns: [])
    assert ruling.columns == (0, 1)


def test_a_default_of_nothing_but_upside_down_members_is_replaced():
    """Also where the mean over families is above one half, because one family is seen."""
    gains = {kind: [2.0, 6.0 if kind in ("blur", "inversion", "solid") else -0.4] for kind in KINDS}
    known, made = scores(gains)
    ruling = select_combination(["a", "gen"], [1], known, made, lambda columns: [])
    assert ruling.columns == (0,)
    assert "no member of the default holds" in ruling.why[0]


# The combination


def test_a_weighted_sum_of_surprises():
    from knownot.calibration import p_values

    rng = np.random.default_rng(0)
    known, new = rng.normal(size=(50, 3)), rng.normal(size=(20, 3)) * 2
    detector = Combined((Energy(), Energy(), Energy()), ("a", "b", "c"), weights=(1.0, 0.25, 0.0)).fit_reference(known)
    known = known + 2.0**-14 * np.maximum(np.abs(known), np.median(np.abs(known), axis=0))  # what rounding may add
    expected = sum(
        w * (tail(known[:, j], new[:, j]) - np.log(p_values(known[:, j], new[:, j])))
        for j, w in enumerate((1.0, 0.25, 0.0))
    )
    np.testing.assert_allclose(detector.combine(new), expected, rtol=1e-12)
    assert (detector.combine(new) > expected.max() / 2).any()


def tail(known, new):
    """What is added to minus the log of the p-value beyond the largest known score, as it is defined."""
    down = np.sort(known)[::-1]
    count = max(5, len(down) // 10)
    return np.maximum(new - down[0], 0) / (down[:count] - down[count]).mean()


def test_the_tail_is_that_of_an_exponential_law():
    """Of exponential scores minus the log of p is the score itself; the tail goes on so beyond the known ones."""
    rng = np.random.default_rng(0)
    far = np.array([[12.0], [20.0], [40.0]])
    found = [
        Combined((Energy(),), ("a",)).fit_reference(rng.exponential(1.0, (400, 1)) * 3 + 1).combine(far * 3 + 1)
        for _ in range(300)
    ]
    np.testing.assert_allclose(np.median(found, axis=0), far[:, 0], rtol=0.05)


def test_a_tail_needs_scores_that_vary_and_never_ends_in_infinity():
    def joined(known, new):
        return Combined((Energy(),), ("a",)).fit_reference(np.array(known)[:, None]).combine(np.array(new)[:, None])

    np.testing.assert_allclose(joined([0.0] * 50, [0.0, 9.0]), [0, np.log(51)])
    np.testing.assert_allclose(joined(range(5), [9.0]), [np.log(6)])
    huge = joined(np.linspace(0, 1, 50), np.array([1e38], np.float32))
    assert np.isfinite(huge).all()
    assert huge[0] > 1e5


@pytest.fixture(scope="module")
def osc():
    known, calibration = toy.known(800, 2), toy.known(1000, 3)
    model = knownot.open_model(toy.graph())
    return knownot.fit(
        model, *known, calibration=calibration[0], calibration_labels=calibration[1], detector="auto",
        preprocess=HALF, thumbnails=0, progress=False,
    )  # fmt: skip


def test_the_automatic_choice_weighs_and_says_so(osc):
    assert max(osc.detector.weights) == 1
    assert len(osc.detector.weights) == len(osc.detector.members) <= MEMBERS
    note = osc.record.notes[-1]
    assert "Automatic choice: weights " in note
    assert "each by weights learnt without it" in note
    assert "keep nothing of known images 0." in note
    said = {c.detector: c.why for c in osc.record.checks}
    for name, weight in zip(osc.detector.members, osc.detector.weights, strict=True):
        assert said[name] == f"weight {weight:.2g}"
        assert f"{name} {weight:.2g}" in note
    alarms = osc.predict(toy.known(1500, 4)[0]).unknown.mean()
    assert 0.005 < alarms < 0.05  # calibrated anew
    assert osc.predict(toy.unknown(200)).unknown.mean() > 0.95


def test_weights_are_saved(osc, tmp_path):
    images = toy.known(40, 5)[0]
    again = knownot.load(osc.save(tmp_path / "osc"))
    assert again.detector.weights == osc.detector.weights
    np.testing.assert_array_equal(again.predict(images).score, osc.predict(images).score)


def test_the_score_is_the_weighted_sum_of_what_its_members_say(osc):
    rng = np.random.default_rng(1)
    parts = rng.normal(size=(30, len(osc.detector.members)))
    total = sum(
        w * (np.log((1 + len(r)) / (1 + (r >= column[:, None]).sum(axis=1))) + tail(r, column))
        for w, r, column in zip(osc.detector.weights, osc.detector.references, parts.T, strict=True)
    )
    np.testing.assert_allclose(osc.detector.combine(parts), total, rtol=1e-9)

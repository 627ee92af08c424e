"""Decisions over a batch: the published procedures, their promises over many draws, and what is said when none hold."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from knownot.calibration import known_bound, p_values, select, unknown_share
from knownot.calibration.counts import at_least, at_most
from knownot.errors import CalibrationError, OptionError


def batch(rng, n, m, unknown, strength=3.0):
    """(p-values [m], of which the first `unknown` are of unknown images) against n calibration images."""
    scores = rng.normal(size=m)
    scores[:unknown] += strength
    return p_values(rng.normal(size=n), scores)


@given(st.lists(st.integers(1, 41), min_size=1, max_size=30), st.sampled_from([0.05, 0.1, 0.3]))
@settings(max_examples=60, deadline=None)
def test_bh_selects_the_largest_k_with_p_k_at_most_q_k_over_m(ranks, q):
    p = np.array(ranks) / 41
    got = select(p, 40, fdr=q, method="bh")
    m, ordered = len(p), np.sort(p)
    k = max((i + 1 for i in range(m) if ordered[i] <= q * (i + 1) / m * (1 + 1e-12)), default=0)
    assert got.count == (int((p <= ordered[k - 1]).sum()) if k else 0)


def test_storey_divides_the_level_by_the_estimated_share_of_known_images():
    p = np.concatenate([np.full(60, 1 / 1001), np.linspace(0.02, 1, 40).round(3) * 1000 // 1 / 1001])
    got, plain = select(p, 1000, fdr=0.1), select(p, 1000, fdr=0.1, method="bh")
    assert got.known_share == pytest.approx(2 * (1 + (p > 0.5).sum()) / 100)
    np.testing.assert_allclose(got.q_value, np.minimum(1, plain.q_value * got.known_share))
    assert got.count > plain.count >= 60
    np.testing.assert_array_equal(got.rows[:60], np.arange(60))


@pytest.mark.parametrize(("unknown", "method"), list(itertools.product([0, 20, 100], ["bh", "storey"])))
def test_the_share_of_known_among_selected_is_at_most_q_on_average(unknown, method):
    rng = np.random.default_rng(unknown)
    shares = []
    for _ in range(250):
        chosen = select(batch(rng, 400, 200, unknown), 400, fdr=0.1, method=method).rows
        shares.append((chosen >= unknown).mean() if len(chosen) else 0.0)
    assert np.mean(shares) <= 0.1 + 3 * np.std(shares) / np.sqrt(250) + 1e-9
    assert unknown == 0 or np.mean(shares) > 0.04  # the level is used


def test_what_is_needed_is_said_when_nothing_can_be_selected():
    p = np.full(2000, 1.0)
    p[:39] = 1 / 501
    got = select(p, 500, fdr=0.1, method="bh")
    assert (got.count, got.needed) == (0, 40)
    assert "with 500 calibration images and 2,000 incoming ones, at least 40 must look stranger" in got.sentence
    assert "19,999 calibration images one suffices" in got.sentence
    p[39] = 1 / 501
    assert select(p, 500, fdr=0.1, method="bh").count == 40
    assert select(np.full(1, 1 / 20_000), 19_999, fdr=0.1).count == 1
    small = select(np.full(9, 0.5), 5, fdr=0.01)
    assert small.needed > 9
    assert "cannot be promised of any selection; at least 899" in small.sentence


def test_unreadable_images_are_neither_counted_nor_selected():
    p = np.array([1 / 100, np.nan, 1 / 100, 0.9])
    got = select(p, 99, fdr=0.1)
    assert got.images == 3
    assert got.selected.tolist() == [True, False, True, False]
    assert np.isnan(got.q_value[1])
    assert select(np.array([np.nan]), 99).sentence == "there are no readable images to select from"


@pytest.mark.parametrize(
    ("p", "n", "options", "error", "says"),
    [
        ([0.5], 99, {"fdr": 0}, OptionError, "fdr=0"),
        ([0.5], 99, {"method": "by"}, OptionError, "storey, bh"),
        ([0.0], 99, {}, OptionError, r"\(0, 1\]"),
        ([0.515], 99, {}, CalibrationError, "not from a calibration set of 99"),
        ([[0.5]], 99, {}, OptionError, "shape"),
        ([0.5], 0, {}, CalibrationError, "calibration=0"),
    ],
)
def test_bad_input_is_explained(p, n, options, error, says):
    with pytest.raises(error, match=says):
        select(np.array(p), n, **options)


def test_the_law_of_counts_is_scipys():
    law = stats.betabinom(30, 4, 97)
    np.testing.assert_allclose(at_least(30, 4, 97)[:-1], law.sf(np.arange(31) - 1), rtol=1e-9, atol=1e-14)
    assert at_most(3, 30, 4, 97) == pytest.approx(law.cdf(3))
    assert (at_most(-1, 30, 4, 97), at_most(30, 30, 4, 97)) == (0.0, 1.0)


def test_the_bound_holds_for_all_choices_at_once():
    """Violated by the worst choice of k strangest in at most 5 % of draws; the binomial bound would fail."""
    rng = np.random.default_rng(1)
    violated, sizes = 0, []
    for _ in range(150):
        p = batch(rng, 200, 150, 40)
        bound = known_bound(p, 200, confidence=0.9)
        known = np.cumsum(np.argsort(p, kind="stable") >= 40)
        curve = bound.curve()
        violated += bool((known > curve).any()) or bound.known < 110
        sizes.append(curve[39])
    assert violated <= stats.binom.ppf(0.999, 150, 0.1)
    assert np.median(sizes) < 25  # and it says something


def test_the_bound_of_any_choice_agrees_with_the_curve_and_counts_what_lies_above():
    p = batch(np.random.default_rng(2), 500, 300, 100)
    bound = known_bound(p, 500)
    order = np.argsort(p, kind="stable")
    curve = bound.curve()
    for k in (1, 50, 100, 300):
        assert bound.among(order[:k]) == curve[k - 1]
    assert bound.among(order[-100:]) == 100
    assert bound.among(np.zeros(300, bool)) == 0
    k = bound.largest(0.2)
    assert curve[k - 1] <= 0.2 * k < 0.2 * (k + 1) < curve[k] + 0.2
    assert bound.sentence(k) == f"of the {k:,} strangest images at most {curve[k - 1]:,} are known (95 % confidence)"
    with_bad = known_bound(np.append(p, np.nan), 500)
    np.testing.assert_array_equal(with_bad.curve(), curve)


def test_the_share_of_unknown_is_covered_and_never_claimed_where_there_is_none():
    rng = np.random.default_rng(3)
    inside, below, none = 0, 0, 0
    for _ in range(80):
        share = unknown_share(batch(rng, 200, 300, 60, strength=6.0), 200, confidence=0.9)
        inside += share.low <= 0.2 <= share.high
        below += share.at_least <= 0.2
        none += unknown_share(batch(rng, 200, 300, 0), 200, confidence=0.9).at_least > 0
    assert inside >= stats.binom.ppf(0.001, 80, 0.9)
    assert below >= stats.binom.ppf(0.001, 80, 0.9)
    assert none <= stats.binom.ppf(0.999, 80, 0.1)


def test_the_estimate_is_near_and_the_interval_narrows():
    rng = np.random.default_rng(4)
    few, many = (unknown_share(batch(rng, n, 10 * n, 2 * n, 6.0), n) for n in (100, 800))
    assert abs(many.estimate - 0.2) < 0.05
    assert many.high - many.low < 0.6 * (few.high - few.low)
    assert few.low <= few.estimate <= few.high
    assert "look unknown" in many.sentence
    assert unknown_share(np.array([np.nan]), 50).sentence == "there are no readable images"

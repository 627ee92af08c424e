"""The metrics against scikit-like definitions written as plain loops."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from knownot.errors import InputError
from knownot.measure import (
    aupr_unknown,
    auroc,
    auroc_interval,
    calibration_error,
    calibration_error_by_chance,
    equal_count,
    equal_width,
    fpr_at_95_known_recall,
    fpr_at_95_unknown_recall,
    log_loss,
    mean_interval,
    paired_interval,
    temperature,
    wilson,
)

scores = st.lists(st.integers(0, 6), min_size=1, max_size=25)


@given(scores, scores)
def test_every_metric_equals_its_definition(known, unknown):
    pairs = [(u > k) + (u == k) / 2 for u in unknown for k in known]
    assert auroc(known, unknown) == pytest.approx(np.mean(pairs), abs=1e-12)
    steps = sorted({*known, *unknown})
    share = lambda values, t: np.mean([v >= t for v in values])  # noqa: E731
    caught = [t for t in steps if share(unknown, t) >= 0.95 - 1e-12]
    assert fpr_at_95_unknown_recall(known, unknown) == pytest.approx(share(known, max(caught)))
    kept = [t for t in steps if np.mean([k <= t for k in known]) >= 0.95 - 1e-12]
    assert fpr_at_95_known_recall(known, unknown) == pytest.approx(np.mean([u <= min(kept) for u in unknown]))
    area, before = 0.0, 0.0
    for t in reversed(steps):
        true, false = sum(u >= t for u in unknown), sum(k >= t for k in known)
        area += (true / len(unknown) - before) * true / (true + false)
        before = true / len(unknown)
    assert aupr_unknown(known, unknown) == pytest.approx(area)


def test_direction_larger_means_unknown():
    assert auroc([0, 1], [2, 3]) == 1.0
    assert fpr_at_95_known_recall([0, 1], [2, 3]) == 0.0
    assert fpr_at_95_unknown_recall([0, 1], [2, 3]) == 0.0


def test_the_two_conventions_of_fpr_at_95_differ():
    known, unknown = np.arange(100.0), np.concatenate([np.full(10, 1.0), np.full(90, 200.0)])
    assert fpr_at_95_unknown_recall(known, unknown) == 0.99
    assert fpr_at_95_known_recall(known, unknown) == 0.1


@pytest.mark.parametrize(("known", "unknown", "says"), [([], [1], "no scores of known"), ([0], [np.nan], "NaN")])
def test_bad_scores(known, unknown, says):
    with pytest.raises(InputError, match=says):
        auroc(known, unknown)


# ---- intervals ----


@given(st.integers(0, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_that_of_scipy(pair):
    count, n = pair
    if not n:
        assert wilson(0, 0) == (0, 1)
        return
    reference = binomtest(count, n).proportion_ci(0.95, method="wilson")
    assert wilson(count, n) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_wilson_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = [low <= 0.9 <= high for low, high in (wilson(int(k), 100) for k in rng.binomial(100, 0.9, 4000))]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02)
    with pytest.raises(InputError, match="5 of 3 images"):
        wilson(5, 3)


def test_paired_differences_cover_as_often_as_they_say():
    rng = np.random.default_rng(1)
    hits = []
    for better, worse, _ in rng.multinomial(400, [0.2, 0.1, 0.7], 3000):
        difference, low, high = paired_interval(int(better), int(worse), 400)
        assert difference == pytest.approx((better - worse) / 400)
        hits.append(low <= 0.1 <= high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02)
    assert paired_interval(10, 0, 10) == (1.0, 1.0, 1.0)
    for counts in ((8, 3, 10), (-1, 0, 10), (0, 0, 0)):
        with pytest.raises(InputError):
            paired_interval(*counts)


def test_the_interval_of_auroc_covers_as_often_as_it_says():
    rng = np.random.default_rng(2)
    truth = norm.cdf(1 / np.sqrt(2))  # P(N(1, 1) > N(0, 1))
    hits = []
    for _ in range(1000):
        known, unknown = rng.normal(0, 1, 120), rng.normal(1, 1, 60)
        area, low, high = auroc_interval(known, unknown)
        assert area == pytest.approx(auroc(known, unknown), abs=1e-12)
        hits.append(low <= truth <= high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.025)


def test_the_interval_of_auroc_equals_the_structural_components():
    """DeLong's variance written as in the paper: two loops over pairs."""
    known, unknown = np.array([0.0, 1, 1, 3, 2]), np.array([1.0, 2, 4, 0.5])
    psi = np.array([[float(u > k) + (u == k) / 2 for k in known] for u in unknown])
    variance = psi.mean(axis=1).var(ddof=1) / 4 + psi.mean(axis=0).var(ddof=1) / 5
    area, low, high = auroc_interval(known, unknown)
    assert area == pytest.approx(psi.mean())
    assert (high - area, area - low) == pytest.approx(
        (min(1 - area, 1.96 * variance**0.5), 1.96 * variance**0.5), rel=1e-4
    )
    assert auroc_interval(np.zeros(3), np.ones(1)) == (1, 1, 1)


def test_the_interval_of_a_mean():
    x = np.random.default_rng(3).normal(5, 2, 400)
    mean, low, high = mean_interval(x)
    assert (mean, high - mean, mean - low) == pytest.approx((x.mean(), 0.196, 0.196), abs=0.02)
    assert mean_interval(np.array([3.0])) == (3, 3, 3)
    assert np.isnan(mean_interval(np.empty(0))).all()


# ---- as sure as right ----


def slow_ece(confidence, right, edges):
    """Guo et al., equation 3, as a loop over bins (low, high]."""
    total = 0.0
    for low, high in pairwise(edges):
        inside = [i for i, p in enumerate(confidence) if low < p <= high or (p == 0 and low == 0)]
        if inside:
            accuracy = sum(right[i] for i in inside) / len(inside)
            sure = sum(confidence[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - sure)
    return total


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_ece_equals_its_equation(pairs):
    confidence, right = (np.array(x) for x in zip(*pairs, strict=True))
    bins = equal_width(confidence, right)
    assert calibration_error(bins) == pytest.approx(slow_ece(confidence, right, np.linspace(0, 1, 16)), abs=1e-12)
    assert sum(b.images for b in bins) == len(pairs)


def test_edges_belong_to_the_lower_bin_and_one_to_the_last():
    bins = equal_width([0.0, 0.2, 0.2000001, 1.0], [True, True, False, True], 5)
    assert [(round(b.low, 3), b.images) for b in bins] == [(0, 2), (0.2, 1), (0.8, 1)]


def test_bins_of_equal_count():
    rng = np.random.default_rng(4)
    confidence = rng.random(1500)
    right = rng.random(1500) < confidence
    bins = equal_count(confidence, right)
    assert [b.images for b in bins] == [100] * 15
    ordered = np.argsort(confidence)
    expected = np.mean([abs(right[part].mean() - confidence[part].mean()) for part in np.split(ordered, 15)])
    assert calibration_error(bins) == pytest.approx(expected)
    tied = equal_count(np.ones(50), np.arange(50) < 40)  # all alike: one bin, whatever the order
    assert [(b.images, b.right) for b in tied] == [(50, 40)]
    assert calibration_error(tied) == pytest.approx(0.2)
    assert calibration_error(equal_count([], [])) != calibration_error(equal_count([], []))  # NaN


def test_the_error_by_chance_is_that_of_a_calibrated_classifier():
    rng = np.random.default_rng(5)
    confidence = rng.uniform(0.5, 1, 400)
    mean, most = calibration_error_by_chance(confidence, seed=1)
    fresh = [calibration_error(equal_width(confidence, rng.random(400) < confidence)) for _ in range(400)]
    assert mean == pytest.approx(np.mean(fresh), abs=0.003)
    assert np.mean(np.array(fresh) <= most) == pytest.approx(0.95, abs=0.04)
    assert calibration_error_by_chance(confidence[:40], seed=1)[0] > 2 * mean  # fewer images, more by chance


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_is_found(true):
    rng = np.random.default_rng(6)
    logits = rng.normal(0, 2, (20_000, 5))
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) > rng.random((len(p), 1))).argmax(axis=1)
    shifted = true * logits + rng.normal(0, 5, (len(p), 1))  # a constant per image does not matter
    assert temperature(shifted, labels) == pytest.approx(true, rel=0.05)
    found = temperature(shifted, labels)
    assert log_loss(shifted / found, labels) <= min(log_loss(shifted / t, labels) for t in (0.9 * found, 1.1 * found))


def test_a_temperature_that_nothing_bounds_is_none():
    assert temperature(np.eye(3), np.arange(3)) is None
    assert temperature(np.eye(3), np.full(3, -1)) is None


def test_log_loss_equals_its_definition():
    logits, labels = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]]), np.array([1, 0])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert log_loss(logits, labels) == pytest.approx(-np.mean(np.log([p[0, 1], p[1, 0]])))
    assert np.isfinite(log_loss(np.array([[1e4, 0.0]]), np.array([1])))


@pytest.mark.parametrize("confidence", [[1.2, 0.1], [np.nan, 0.1], [0.5]])
def test_what_is_no_confidence(confidence):
    with pytest.raises(InputError):
        equal_width(confidence, [True, False])

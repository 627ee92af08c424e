"""Closed forms of the calibration rule, and its promises measured over many draws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from knownot.calibration import Calibration, allowed_rank, images_needed, images_needed_sentence, p_values
from knownot.errors import CalibrationError, OptionError


def test_p_values_count_calibration_scores_at_least_as_large():
    scores = np.array([0.5, 3.0, 3.5, -1.0, 1.0])
    calibration = np.array([3.0, 1.0, 2.0])
    expected = [(1 + sum(c >= s for c in calibration)) / 4 for s in scores]
    np.testing.assert_array_equal(p_values(calibration, scores), expected)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
    st.lists(st.integers(-1, 6), min_size=1, max_size=10),
)
def test_p_values_with_ties_equal_a_plain_count(calibration, scores):
    got = p_values(np.array(calibration, float), np.array(scores, float))
    expected = [(1 + sum(c >= s for c in calibration)) / (len(calibration) + 1) for s in scores]
    np.testing.assert_allclose(got, expected, rtol=1e-15)


@pytest.mark.parametrize("n", [89, 90, 500, 2500])
@pytest.mark.parametrize(("alpha", "delta"), [(0.05, 0.01), (0.1, 0.05), (0.01, 0.1)])
def test_pac_rank_is_the_largest_that_the_beta_law_allows(n, alpha, delta):
    k = allowed_rank(n, alpha, "pac", delta)
    if k:
        assert stats.beta.sf(alpha, k, n + 1 - k) <= delta
    assert stats.beta.sf(alpha, k + 1, n - k) > delta


def test_marginal_rank():
    assert [allowed_rank(n, 0.05, "marginal") for n in (18, 19, 38, 39, 99)] == [0, 1, 1, 2, 5]


def test_images_needed_closed_forms():
    assert images_needed(0.05, guarantee="marginal") == 19
    assert images_needed(0.01, guarantee="marginal") == 99
    assert images_needed(0.05, 0.01, "pac") == 90  # 0.95 ** 90 = 0.0099
    assert images_needed(0.5, 0.5, "pac") == 1
    for guarantee in ("pac", "marginal", "class-conditional"):
        assert f"{images_needed(0.02, 0.05, guarantee):,}" in images_needed_sentence(0.02, 0.05, guarantee)


def test_too_few_images_are_an_error_that_says_how_many():
    with pytest.raises(CalibrationError, match=r"89 calibration images are too few.*at least 90"):
        Calibration.of(np.arange(89.0), np.zeros(89), alpha=0.05)
    Calibration.of(np.arange(90.0), np.zeros(90), alpha=0.05)
    with pytest.raises(CalibrationError, match="at least 19"):
        Calibration.of(np.arange(18.0), np.zeros(18), alpha=0.05, guarantee="marginal")
    with pytest.raises(CalibrationError, match=r"\{1: 5\}"):
        Calibration.of(np.arange(30.0), np.repeat([0, 1], [25, 5]), guarantee="class-conditional")


@pytest.mark.parametrize("options", [{"alpha": 0}, {"alpha": 5}, {"delta": 1}, {"guarantee": "certain"}])
def test_wrong_options_are_named(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        Calibration.of(np.arange(99.0), np.zeros(99), **options)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_finite_is_never_silent(bad):
    scores = np.arange(99.0)
    scores[7] = bad
    with pytest.raises(CalibrationError, match="number 7"):
        Calibration.of(scores, np.zeros(99))
    with pytest.raises(CalibrationError, match="not finite"):
        Calibration.of(np.arange(99.0), np.zeros(99)).p_value(np.array([bad]), np.array([0]))


def test_score_threshold_and_p_threshold_are_one_rule():
    rng = np.random.default_rng(0)
    for guarantee in ("pac", "marginal"):
        rule = Calibration.of(rng.integers(0, 40, 300).astype(float), np.zeros(300), guarantee=guarantee)
        scores = np.arange(-1.0, 42.0, 0.5)
        by_p = rule.unknown(rule.p_value(scores, np.zeros(len(scores))), np.zeros(len(scores)))
        np.testing.assert_array_equal(by_p, scores > rule.score_threshold)


def test_the_guarantee_over_a_thousand_draws():
    """Marginal: mean rate at most alpha. PAC: above alpha in at most a delta share of calibration sets."""
    rng = np.random.default_rng(1)
    alpha, delta, draws = 0.05, 0.05, 1000
    rates = {"marginal": [], "pac": []}
    for _ in range(draws):
        calibration = rng.normal(size=300)
        for guarantee, seen in rates.items():
            rule = Calibration.of(calibration, np.zeros(300), alpha=alpha, guarantee=guarantee, delta=delta)
            seen.append(stats.norm.sf(rule.score_threshold))  # the exact realised rate
    error = np.std(rates["marginal"]) / np.sqrt(draws)
    assert 0.9 * alpha < np.mean(rates["marginal"]) < alpha + 4 * error
    exceeded = np.mean(np.array(rates["pac"]) > alpha)
    assert exceeded <= delta + 3 * np.sqrt(delta * (1 - delta) / draws)
    assert exceeded > delta / 5  # not vacuous: the largest rank allowed is used
    assert np.mean(np.array(rates["marginal"]) > alpha) > 0.3  # what the stronger promise is for


def test_class_conditional_holds_within_each_class_where_marginal_does_not():
    rng = np.random.default_rng(2)

    def draw(n):
        classes = rng.integers(0, 2, n)
        return rng.normal(size=n) + 2.0 * classes, classes

    calibration, predicted = draw(4000)
    scores, classes = draw(40000)
    rates = {}
    for guarantee in ("marginal", "class-conditional"):
        rule = Calibration.of(calibration, predicted, guarantee=guarantee)
        unknown = rule.unknown(rule.p_value(scores, classes), classes)
        rates[guarantee] = [unknown[classes == k].mean() for k in (0, 1)]
    assert max(rates["class-conditional"]) < 0.07
    assert min(rates["class-conditional"]) > 0.03
    assert max(rates["marginal"]) > 0.08


def test_a_class_never_predicted_in_calibration_is_not_waved_through():
    rule = Calibration.of(np.arange(40.0), np.zeros(40), guarantee="class-conditional")
    p = rule.p_value(np.array([100.0, 3.0]), np.array([1, 1]))
    np.testing.assert_array_equal(rule.unknown(p, np.array([1, 1])), [True, False])

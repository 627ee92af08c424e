"""The field's metrics against scikit-learn, OpenOOD's own results, definitions written as loops, and laws."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn import metrics as peer

from knownot import measure
from knownot.errors import InputError

CASES = json.loads((Path(__file__).parents[1] / "data" / "openood_metrics.json").read_text())["cases"]
few = st.lists(st.integers(0, 6), min_size=1, max_size=25)


def answers(n, seed=0):
    return np.random.default_rng(seed).random(n) < 0.7


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_openood_gives_the_same(case):
    known, unknown, right = (np.array(case[name]) for name in ("known", "unknown", "right"))
    exactly = lambda value: pytest.approx(value, abs=1e-12)  # noqa: E731
    assert measure.auroc(known, unknown) == exactly(case["auroc"])
    assert measure.fpr_at_95_unknown_recall(known, unknown) == exactly(case["fpr_at_95"])
    assert measure.aupr_known_trapezoid(known, unknown) == exactly(case["aupr_in"])
    assert measure.aupr_unknown_trapezoid(known, unknown) == exactly(case["aupr_out"])
    for fpr, value in case["ccr"].items():
        allowed = float(fpr) * len(unknown)
        fewer = (np.ceil(allowed) - 1) / len(unknown)  # the unknown images that OpenOOD accepts
        assert measure.ccr_at_fpr(known, right.astype(bool), unknown, fewer) == exactly(value)
        assert measure.ccr_at_fpr(known, right.astype(bool), unknown, float(fpr)) >= value - 1e-12


@given(few, few)
def test_scikit_learn_gives_the_same(known, unknown):
    truth, scores = np.repeat([0, 1], [len(known), len(unknown)]), np.array([*known, *unknown], float)
    assert measure.auroc(known, unknown) == pytest.approx(peer.roc_auc_score(truth, scores), abs=1e-12)
    for ours, trapezoids, positive, s in (
        (measure.aupr_unknown, measure.aupr_unknown_trapezoid, truth, scores),
        (measure.aupr_known, measure.aupr_known_trapezoid, 1 - truth, -scores),
    ):
        assert ours(known, unknown) == pytest.approx(peer.average_precision_score(positive, s), abs=1e-12)
        precision, recall, _ = peer.precision_recall_curve(positive, s)
        assert trapezoids(known, unknown) == pytest.approx(peer.auc(recall, precision), abs=1e-12)


@given(few, few, st.integers(0, 99))
def test_oscr_and_ccr_equal_their_definitions(known, unknown, seed):
    right = answers(len(known), seed)
    pairs = [(r * ((k < u) + (k == u) / 2)) for k, r in zip(known, right, strict=True) for u in unknown]
    assert measure.oscr(known, right, unknown) == pytest.approx(np.mean(pairs), abs=1e-12)
    for fpr in (0.0, 0.1, 0.5, 1.0):
        thresholds = [-1, *known, *unknown]
        fine = [t for t in thresholds if np.mean([u <= t for u in unknown]) <= fpr + 1e-12]
        best = max(np.mean([r and k <= t for k, r in zip(known, right, strict=True)]) for t in fine)
        assert measure.ccr_at_fpr(known, right, unknown, fpr) == pytest.approx(best)


def test_oscr_is_the_area_that_the_field_sums():
    """Without ties: the points of Vaze et al. (ICLR 2022), a step for each image, joined by trapezoids."""
    rng = np.random.default_rng(4)
    known, unknown, right = rng.normal(size=80), rng.normal(1, 1, 60), answers(80)
    steps = np.sort(np.concatenate([[-9], known, unknown]))
    ccr = [np.mean(right & (known <= t)) for t in steps]
    fpr = [np.mean(unknown <= t) for t in steps]
    assert measure.oscr(known, right, unknown) == pytest.approx(np.trapezoid(ccr, fpr), abs=1e-12)


@given(few, st.integers(0, 99))
def test_risk_coverage_is_what_random_orders_of_ties_have_on_average(scores, seed):
    right = answers(len(scores), seed)
    coverage, risk = measure.risk_coverage(scores, right)
    assert coverage[-1] == 1
    assert risk[-1] == pytest.approx(1 - right.mean())
    rng = np.random.default_rng(seed)
    orders = [np.lexsort((rng.random(len(scores)), scores)) for _ in range(400)]
    sampled = np.mean([np.cumsum(~right[o]) / np.arange(1, len(o) + 1) for o in orders], axis=0)
    assert np.abs(risk - sampled).max() < 0.2
    assert measure.aurc(scores, right) == pytest.approx(risk.mean())
    assert measure.excess_aurc(scores, right) >= -1e-12
    assert measure.excess_aurc(~right, right) == pytest.approx(0)


def test_risk_coverage_by_hand():
    _, risk = measure.risk_coverage([1, 2, 2, 3], [True, False, True, False])
    assert risk == pytest.approx([0, 0.25, 1 / 3, 0.5])  # of the two tied images half an image is wrong
    assert measure.aurc([1, 2, 3, 4], [True, True, True, False]) == pytest.approx(1 / 16)
    assert measure.excess_aurc([4, 3, 2, 1], [True, True, True, False]) == pytest.approx(
        (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4 - 1 / 16
    )


def test_delongs_paired_test_is_what_its_paper_defines():
    """By the kernel psi of eq. 1 and the covariance matrices S10, S01 of eqs. 4 and 5, with plain loops."""
    rng = np.random.default_rng(2)
    known, unknown = rng.integers(0, 9, (2, 23)), rng.integers(2, 11, (2, 17))
    psi = np.array([[[(u > k) + (u == k) / 2 for k in known[i]] for u in unknown[i]] for i in (0, 1)])
    v10, v01 = psi.mean(axis=2), psi.mean(axis=1)  # of each unknown, of each known image
    s = np.cov(v10) / 17 + np.cov(v01) / 23
    error = np.sqrt(s[0, 0] + s[1, 1] - 2 * s[0, 1])
    gap = psi[0].mean() - psi[1].mean()
    first, second = (measure.areas(known[i], [unknown[i]]) for i in (0, 1))
    value, low, high, p = measure.area_difference(first, second)
    assert value == pytest.approx(gap)
    assert (high - low) / 2 == pytest.approx(1.959963984540054 * error)
    assert p == pytest.approx(2 * norm.sf(abs(gap) / error))
    assert first.interval() == pytest.approx(measure.auroc_interval(known[0], unknown[0]))


def test_a_mean_over_sets_and_networks_has_the_variance_of_its_draws():
    rng = np.random.default_rng(3)

    def drawn():
        known, sets = rng.normal(size=60), [rng.normal(1, 1, 40), rng.normal(2, 1, 20)]
        return measure.areas(known, sets)

    many = [drawn() for _ in range(600)]
    assert np.std([one.area for one in many]) == pytest.approx(np.sqrt(np.mean([m.variance for m in many])), rel=0.1)
    one = many[0]
    twice = measure.mean_areas([one, one])
    assert (twice.area, twice.variance) == pytest.approx((one.area, one.variance))
    assert measure.area_difference(one, one)[3] == 1


def test_holm_by_hand_and_against_its_law():
    assert measure.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert np.isnan(measure.holm([0.01, np.nan])[1])
    assert measure.holm([0.01, np.nan])[0] == pytest.approx(0.01)
    assert len(measure.holm([])) == 0
    rng = np.random.default_rng(0)
    wrong = np.mean([(measure.holm(rng.random(10)) < 0.05).any() for _ in range(2000)])
    assert wrong < 0.065


@pytest.mark.parametrize(
    ("known", "unknown"), [([], [1.0]), ([1.0], []), ([np.nan, 1], [1.0]), ([1.0], [np.nan])], ids=str
)
def test_one_class_and_nan_are_errors(known, unknown):
    for metric in (measure.aupr_known, measure.aupr_known_trapezoid, measure.aupr_unknown_trapezoid):
        with pytest.raises(InputError, match=r"no scores|NaN"):
            metric(known, unknown)
    for metric in (measure.oscr, lambda *given: measure.ccr_at_fpr(*given, 0.1)):
        with pytest.raises(InputError, match=r"no scores|NaN"):
            metric(known, np.ones(len(known), bool), unknown)
    with pytest.raises(InputError, match=r"no scores|NaN"):
        measure.areas(np.array(known), [np.array(unknown)])


def test_lengths_that_differ_are_errors():
    with pytest.raises(InputError, match="one for each"):
        measure.oscr([1, 2], [True], [3])
    with pytest.raises(InputError, match="one of each"):
        measure.risk_coverage([1, 2], [True])
    with pytest.raises(InputError, match="same images"):
        measure.area_difference(measure.areas([1, 2], [[3]]), measure.areas([1, 2, 3], [[3]]))
    with pytest.raises(InputError, match="no set"):
        measure.areas([1, 2], [])


def test_all_equal_scores_are_a_coin_and_infinities_are_ends():
    right = np.array([True, True, False, True])
    assert measure.auroc([2] * 4, [2] * 3) == 0.5
    assert measure.oscr([2] * 4, right, [2] * 3) == pytest.approx(0.75 / 2)
    assert measure.ccr_at_fpr([2] * 4, right, [2] * 3, 0.5) == 0
    assert measure.aurc([2] * 4, right) == pytest.approx(0.25)
    assert measure.auroc([-np.inf, 0], [np.inf, 1]) == 1


@given(few, few, st.integers(0, 99))
def test_all_metrics_from_one_sort_are_those_of_their_functions(known, unknown, seed):
    right = answers(len(known), seed)
    found = measure.all_metrics(known, unknown, right)
    for name, value in found.items():
        one, _, fpr = name.partition("_0")
        if fpr:
            again = measure.ccr_at_fpr(known, right, unknown, float(f"0{fpr}"))
        elif name == "oscr":
            again = measure.oscr(known, right, unknown)
        else:
            again = getattr(measure, one)(known, unknown)
        assert value == pytest.approx(again, abs=1e-12), name
    assert np.isnan(measure.all_metrics(known, unknown)["oscr"])

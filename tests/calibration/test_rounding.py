"""Scores of one and the same image differ in the last bits between sizes of batches: ties stay ties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import knownot
from knownot.calibration import Calibration, p_values
from knownot.detectors.combined import Combined
from knownot.stats import raised

ULP = 2.0**-23
SIDE = 4


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40), st.integers(0, 300))
def test_raised_scores_keep_their_order_and_are_never_below_a_rounded_copy(values, ulps):
    scores = np.sort(np.array(values))
    up = raised(scores)
    assert (np.diff(up) >= 0).all()
    size = np.maximum(np.abs(scores), np.median(np.abs(scores)))
    assert (up >= scores + ulps * ULP * size).all()
    assert (up <= scores + 1e-4 * size).all()


@pytest.mark.parametrize("guarantee", ["pac", "marginal", "class-conditional"])
@pytest.mark.parametrize("ulps", [-150, -1, 1, 150])
def test_a_rounded_copy_of_a_calibration_image_ties_with_it(guarantee, ulps):
    rng = np.random.default_rng(0)
    scores, predicted = rng.gamma(2.0, size=400).astype(np.float32), rng.integers(0, 2, 400)
    rule = Calibration.of(scores, predicted, guarantee=guarantee)
    copies = scores.astype(np.float64) * (1 + ulps * ULP)
    p = rule.p_value(copies, predicted)
    for k in (0, 1):
        own = predicted == k if guarantee == "class-conditional" else np.ones(400, bool)
        some = predicted == k
        assert (p[some] >= p_values(scores[own], scores[some])).all()
        assert (p[some] <= p_values(scores[own], scores[some]) + 2 / own.sum()).all()  # and nothing is given away
    # of the images that calibrated, fewer are rejected than the rule allows of new ones
    assert rule.unknown(p, predicted).mean() < rule.alpha


def test_members_of_a_combination_count_rounded_copies_too():
    rng = np.random.default_rng(1)
    parts = rng.normal(size=(200, 3)).astype(np.float32)
    detector = Combined((), ("a", "b", "c")).fit_reference(parts)
    exact = detector.combine(parts.astype(np.float64))
    for ulps in (-40, 40):
        np.testing.assert_allclose(detector.combine(parts * (1 + ulps * ULP)), exact, atol=1e-4)


def test_another_rule_keeps_the_scores_as_they_are():
    rule = Calibration.of(np.arange(300.0), np.zeros(300))
    np.testing.assert_array_equal(rule.under(alpha=0.1, guarantee="marginal").scores, rule.scores)


def rounded_by_batch(batch: np.ndarray) -> np.ndarray:
    """Logits whose last bits depend on how many images are computed together, as a network's do."""
    n = len(batch)
    logits = batch.reshape(n, -1)[:, :4] * 8 + batch.reshape(n, -1)[:, 4:8]
    return (logits * (1 + 40 * ULP * np.sin(n))).astype(np.float32)


@pytest.mark.parametrize("detector", ["energy", ["energy", "maxlogit", "gen", "msp"]], ids=["one", "combined"])
def test_the_promise_holds_for_copies_whatever_the_size_of_the_batch(detector):
    """Of images that come back as copies no more are rejected than of new ones: the law, at three sizes."""
    rng = np.random.default_rng(2)
    known = rng.random((900, SIDE, SIDE, 3), dtype=np.float32)
    model = knownot.open_model(rounded_by_batch, size=(SIDE, SIDE), outputs="logits")
    calibration = np.concatenate([known[:600], known[:150]])  # some are there twice, as among photographs
    osc: knownot.OpenSetClassifier = knownot.fit(
        model, known[600:], calibration=calibration, detector=detector, alpha=0.1, thumbnails=0, progress=False
    )
    p = {size: osc.predict(calibration, batch_size=size, gallery=False).p_value for size in (1, 7, 256)}
    m = len(osc.calibration.scores)
    for size in (1, 7):
        assert np.abs(p[size] - p[256]).max() <= 3.5 / (m + 1)
        assert (p[size] <= osc.calibration.p_threshold).mean() <= 0.1

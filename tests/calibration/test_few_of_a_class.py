"""Class-conditional, and a class with too few calibration images: no promise, and said so."""

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot.calibration import Calibration
from knownot.errors import CalibrationError

FALLBACK = "class-conditional-or-marginal"


def test_a_class_without_images_is_an_error_as_one_with_too_few_is():
    for count in (0, 5, 18):
        predicted = np.repeat([0, 1], [40, count])
        with pytest.raises(CalibrationError, match=rf"\{{1: {count}\}}.*{FALLBACK}"):
            Calibration.of(np.arange(40.0 + count), predicted, guarantee="class-conditional").among(2)
    Calibration.of(np.arange(59.0), np.repeat([0, 1], [40, 19]), guarantee="class-conditional").among(2)


def test_five_images_are_enough_where_alpha_allows():
    rule = Calibration.of(np.arange(30.0), np.repeat([0, 1], [25, 5]), guarantee="class-conditional", alpha=0.2)
    assert rule.among(2).few == {}
    with pytest.raises(CalibrationError, match=r"\{1: 5\}"):
        rule.under(alpha=0.1)


def test_the_fallback_compares_such_classes_with_all_images():
    scores = np.concatenate([np.arange(40.0), [100.0, 101, 102, 103, 104]])
    rule = Calibration.of(scores, np.repeat([0, 1], [40, 5]), guarantee=FALLBACK).among(3)
    assert rule.few == {1: 5, 2: 0}
    asked = np.array([0, 1, 2])
    p = rule.p_value(np.full(3, 39.5), asked)
    np.testing.assert_allclose(p, [1 / 41, 6 / 46, 6 / 46])
    np.testing.assert_array_equal(rule.unknown(p, asked), [True, False, False])
    assert "but for 2 classes with too few" in rule.sentence
    with pytest.raises(CalibrationError, match="18 calibration images are too few"):
        Calibration.of(np.arange(18.0), np.zeros(18), guarantee=FALLBACK)


def test_each_class_with_enough_keeps_its_promise_and_one_without_has_none():
    """The law: over 300 calibration sets, the mean rate per class. The third class was never seen."""
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(300):
        predicted = np.repeat([0, 1], [60, 60])
        scores = rng.normal(size=120) + predicted
        rule = Calibration.of(scores, predicted, guarantee=FALLBACK, alpha=0.1).among(3)
        asked = np.repeat([0, 1, 2], 200)
        p = rule.p_value(rng.normal(size=600) + asked, asked)
        rates.append(rule.unknown(p, asked).reshape(3, 200).mean(axis=1))
    mean = np.mean(rates, axis=0)
    error = 4 * np.std(rates, axis=0) / np.sqrt(len(rates))
    assert (mean[:2] <= 0.1 + error[:2]).all()
    assert (mean[:2] > 0.08).all()
    assert mean[2] > 0.2  # why nothing is promised of it
    assert rule.few == {2: 0}


def test_fit_says_which_classes_and_load_keeps_it(tmp_path):
    images, labels = toy.known(900, 3)
    some = labels != 2
    sets = {"calibration": images[some], "calibration_labels": labels[some], "detector": "msp", "progress": False}
    with pytest.raises(CalibrationError, match=r"predicted classes \{2: \d"):
        knownot.fit(toy.graph(), *toy.known(600, 2), guarantee="class-conditional", **sets)
    osc = knownot.fit(
        toy.graph(), *toy.known(600, 2), guarantee=FALLBACK, class_names=toy.CLASSES, thumbnails=0, **sets
    )
    assert any("predicted as 'red' (" in note for note in osc.record.notes)
    assert "but for 1 class with too few" in osc.promise
    again = knownot.load(osc.save(tmp_path / "osc"))
    assert again.calibration.few == osc.calibration.few
    assert again.predict(images[:20]).promise == osc.promise

"""Labels that say nothing, and a classifier that is wrong on its own classes."""

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot import Preprocess
from knownot.errors import LabelsError, OptionError
from knownot.fitting.labels import Confusion
from knownot.images import open_images

WAY = Preprocess(scale=1 / 255, name="[0, 1]")


@pytest.mark.parametrize("nothing", [-1, None], ids=str)
@pytest.mark.parametrize("form", ["array", "stream"])
def test_no_preprocessing_is_found_by_accuracy_on_nothing(nothing, form):
    images, _ = toy.known(600, 2)
    labels = [nothing] * len(images)
    given = (images, labels) if form == "array" else ([(images[:60], labels[:60]), (images[60:], labels[60:])], None)
    with pytest.raises(OptionError, match=r"labels|has a label"):
        knownot.fit(toy.graph(), *given, detector="msp", progress=False)


def test_labels_of_nothing_are_no_labels():
    images, _ = toy.known(8, 2)
    assert not open_images(images, np.full(8, -1)).labelled
    assert not open_images(images, [None] * 8).labelled
    assert open_images(images, [None] * 7 + [3]).labelled


def test_with_a_preprocessing_they_are_as_none_at_all():
    images, _ = toy.known(300, 2)
    with_nothing, without = (
        knownot.fit(toy.graph(), images, given, detector="msp", preprocess=WAY, progress=False, thumbnails=0)
        for given in (np.full(300, -1), None)
    )
    assert with_nothing.record.accuracy is None
    assert with_nothing.calibration.scores.tolist() == without.calibration.scores.tolist()


@pytest.mark.parametrize("detector", ["knn", "mahalanobis", "default"])
def test_a_stream_whose_labels_say_nothing_is_fitted_as_one_without(detector):
    images, _ = toy.known(300, 2)
    fitted = [
        knownot.fit(
            toy.graph(),
            [(images[i : i + 50], given) for i in range(0, 300, 50)],
            detector=detector,
            preprocess=WAY,
            calibration=toy.known(100, 3)[0],
            alpha=0.2,
            progress=False,
            thumbnails=0,
        )
        for given in (np.full(50, -1), None)
    ]
    assert [osc.record.accuracy for osc in fitted] == [None, None]
    np.testing.assert_array_equal(*(osc.calibration.scores for osc in fitted))


def wrong_on(labels, share, seed=0):
    """The labels, right on `share` of them."""
    rng = np.random.default_rng(seed)
    return np.where(np.arange(len(labels)) % 100 < 100 * share, labels, (labels + rng.integers(1, 4, len(labels))) % 4)


@pytest.mark.parametrize("where", ["known", "calibration"])
def test_a_classifier_that_is_wrong_on_its_own_classes_is_an_error_unless_allowed(where):
    images, labels = toy.known(900, 2)
    new, truth = toy.known(900, 3)
    sets = {"known": labels, "calibration": truth}
    sets[where] = wrong_on(sets[where], 0.31)  # above chance, clearly: 0.25 + 3 standard errors is 0.29
    options = {"calibration": new, "calibration_labels": sets["calibration"], "detector": "msp", "preprocess": WAY}
    with pytest.raises(LabelsError, match=r"hardly better than chance.*allow_low_accuracy=True"):
        knownot.fit(toy.graph(), images, sets["known"], progress=False, **options)
    osc = knownot.fit(
        toy.graph(), images, sets["known"], progress=False, thumbnails=0, allow_low_accuracy=True, **options
    )
    assert osc.record.low_accuracy_allowed
    if where == "calibration":
        assert osc.record.accuracy < 0.35
        assert any("right on only" in note for note in osc.record.notes)
    assert osc.recalibrated(new, sets["calibration"]).record.low_accuracy_allowed


def test_what_is_hardly_better_than_chance():
    def of(classes, right, wrong):
        confusion = Confusion(classes)
        confusion.counts[0, 0], confusion.counts[0, 1] = right, wrong
        return confusion

    assert of(10, 148, 852).hardly_better  # the case of the issue
    assert not of(10, 148, 852).near_chance
    assert not of(10, 250, 750).hardly_better  # weak, but it knows something
    assert not of(1000, 300, 700).hardly_better
    assert of(2, 5200, 4800).hardly_better
    assert not of(10, 1, 18).hardly_better  # too few to say

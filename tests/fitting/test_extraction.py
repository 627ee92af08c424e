"""One pass over images and its observers; several detectors fitted and calibrated from it."""

from __future__ import annotations

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot import Preprocess
from knownot.benchmark import compare
from knownot.errors import ImagesError, LabelsError
from knownot.fitting.extraction import Extracted, Extractor, Observer, forward
from knownot.fitting.many import fit_known, score_calibration
from knownot.fitting.options import CalibrationOptions
from knownot.fitting.sampling import HoldOut, Subsample
from knownot.fitting.setup import PassOptions, open_sources, set_up
from knownot.fitting.thumbnails import Thumbnails

HALF = Preprocess(scale=1 / 255, name="[0, 1]")


@pytest.fixture(scope="module")
def model():
    return knownot.open_model(toy.graph())


class Odd(Observer):
    """Keeps what it sees; lets every other image pass."""

    side = 16

    def __init__(self) -> None:
        self.seen: list[Extracted] = []

    def see(self, images: Extracted) -> Extracted:
        self.seen.append(images)
        return images.take(np.flatnonzero(images.numbers % 2))


def test_observers_see_in_their_order_what_the_ones_before_let_pass(model):
    x, y = toy.known(70, 1)
    first, second = Odd(), Odd()
    walk = Extractor(model, HALF, 16)
    given = list(walk.run(knownot.open_images(x, y), "known", (first, second)))
    numbers = np.concatenate([s.numbers for s in first.seen])
    np.testing.assert_array_equal(numbers, np.arange(70))
    np.testing.assert_array_equal(np.concatenate([s.numbers for s in second.seen]), numbers[1::2])
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in given]), y[1::2])
    np.testing.assert_array_equal(np.concatenate([s.x for s in second.seen]), (x[1::2] / 255).astype(np.float32))
    assert [i for s in second.seen for i in s.ids] == [f"#{i}" for i in range(1, 70, 2)]
    assert {max(t.shape) for s in first.seen for t in s.thumbs} == {16}
    assert walk.images == 35
    assert walk.confusion.images == 70  # whoever lets images pass or not
    expected = np.concatenate([a.logits for a in forward(model, [(x / 255).astype(np.float32)])])
    got = np.concatenate([a.logits for a, _ in given])
    np.testing.assert_allclose(got, expected[1::2], rtol=1e-5, atol=1e-5)


def test_no_image_that_could_be_used_is_an_error_that_names_the_set(model):
    bad = np.full((3, *toy.known(1, 1)[0].shape[1:]), np.nan, np.float32)
    with pytest.raises(ImagesError, match=r"None of the 3 images \(mine\) could be used: #0: not finite"):
        list(Extractor(model, None, 16).run(knownot.open_images(bad), "mine"))


def test_thumbnails_are_of_all_known_images(model):
    x, y = toy.known(200, 3)
    hold, shown = HoldOut(200, 20, CalibrationOptions(guarantee="marginal")), Thumbnails(500, 0)
    walk = Extractor(model, HALF, 32)
    stayed = sum(len(labels) for _, labels in walk.run(knownot.open_images(x, y), "known", (shown, hold)))
    assert stayed == 160
    assert len(shown.bank().labels) == 200
    assert len(hold.activations()) == 40


def job(model, detectors, calibration=None):
    known = toy.known(300, 2)
    sources = open_sources(model, known, (None, None) if calibration is None else calibration)
    recipes = {name: knownot.detectors.configure(name) for name in detectors}
    return set_up(sources, recipes, CalibrationOptions(), HALF, None, PassOptions(64, False))


def test_many_detectors_are_fitted_in_one_pass_as_each_alone(model):
    calibration = toy.known(150, 3)
    seen = Subsample(5, 50, 0)
    many = score_calibration(fit_known(job(model, ("energy", "knn"), calibration)), (seen,))
    for name in ("energy", "knn"):
        alone = score_calibration(fit_known(job(model, (name,), calibration)))
        np.testing.assert_array_equal(many.member_scores[name], alone.member_scores[name])
        np.testing.assert_array_equal(many.numbers, alone.numbers)  # with a sample or without
    assert (np.diff(many.numbers.astype(np.float64)) > 0).all()
    np.testing.assert_array_equal(seen.rows(50)[0].keys, many.keys[:50])
    assert many.calibration.images == 150
    assert many.known.images == 300


def test_comparing_is_as_strict_about_labels_as_fitting(model):
    x, y = toy.known(300, 2)
    wrong = (y + 1) % 4
    with pytest.raises(LabelsError, match="in another order"):
        knownot.fit(model, x, wrong, detector="msp", preprocess=HALF, progress=False)
    with pytest.raises(LabelsError, match="in another order"):
        compare(
            model, x, wrong, calibration=toy.known(100, 3), test={"t": toy.known(50, 4)},
            unknown={"u": toy.unknown(50)}, detectors=["msp"], preprocess=HALF, progress=False,
        )  # fmt: skip


def test_the_audit_takes_detectors_that_read_maps(model):
    x, y = toy.known(300, 2)
    made = knownot.audit(model, x, y, preprocess=HALF, detectors=("msp", "gram"), fooling=0, each=4, progress=False)
    assert "gram" in {row.detector for row in made.record.help.lines}

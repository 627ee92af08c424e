"""What can be known before the pass over the known images is said before it."""

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot.errors import CalibrationError, LabelsError, OptionError
from knownot.models import open_model


@pytest.fixture
def counted(monkeypatch):
    """A classifier that counts the images it is asked for."""
    opened = open_model(toy.graph())
    opened.asked = 0
    real = type(opened).forward

    def forward(self, batch, maps=()):
        self.asked += len(batch)
        return real(self, batch, maps)

    monkeypatch.setattr(type(opened), "forward", forward)
    return opened


def few(n, seed=4):
    return toy.known(n, seed)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"calibration": few(12), "detector": "msp"}, CalibrationError),
        ({"calibration": few(95)}, CalibrationError),  # enough for the threshold, not for ranking the members
        ({"calibration": few(12), "detector": "msp", "guarantee": "marginal"}, CalibrationError),
        ({"detector": "msp", "alpha": 0.001}, CalibrationError),  # none given: too few to hold out
        ({"calibration": few(200), "alpha": "500%"}, OptionError),
        ({"calibration": few(200), "preprocess": "imagnet"}, OptionError),
        ({"calibration": few(200), "detector": "mahalonobis"}, OptionError),
    ],
)
def test_no_image_is_looked_at_before(counted, options, error):
    with pytest.raises(error):
        knownot.fit(counted, few(300, 3), progress=False, **options)
    assert counted.asked == 0


def test_calibration_classes_that_are_none_of_the_classifiers(counted, tmp_path):
    x, y = few(100)
    toy.written(tmp_path, x, y)
    (tmp_path / "red").rename(tmp_path / "crimson")
    with pytest.raises(LabelsError, match="'crimson' of the calibration images"):
        knownot.fit(counted, few(300, 3), calibration=tmp_path, class_names=toy.CLASSES, progress=False)
    assert counted.asked == 0


def test_copies_are_told_before(counted):
    known = few(300, 3)
    order = []
    real = counted.forward
    counted.forward = lambda *given: order.append("looked") or real(*given)
    with pytest.warns(UserWarning, match="the same content again") as seen:
        knownot.fit(
            counted, known, calibration=(np.array(known[0]), known[1]), detector="msp", progress=False,
            preprocess={"scale": 1 / 255},
        )  # fmt: skip
    assert len(seen) >= 1

"""none_classes=: classes of the user's own that mean "nothing"."""

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot.errors import OptionError
from knownot.models import open_model
from knownot.models.none_classes import NoneClasses

OPTIONS = {"detector": "msp", "guarantee": "marginal", "progress": False, "class_names": toy.CLASSES}


@pytest.mark.parametrize("asked", [["red"], ["Red"], [2]])
def test_its_images_are_unknown(asked, tmp_path):
    known, held, new = (toy.known(n, seed) for n, seed in ((200, 3), (200, 4), (120, 5)))
    osc = knownot.fit(toy.graph(), known, calibration=held, none_classes=asked, **OPTIONS)
    assert osc.class_names == ("stripes", "columns", "blue")
    assert osc.record.none_classes == ("red",)
    assert osc.record.known == (known[1] != 2).sum()
    assert osc.record.calibration == (held[1] != 2).sum()
    verdicts = osc.predict(new[0])
    is_red = new[1] == 2
    assert (verdicts.label[is_red] == -1).mean() > 0.95
    assert (verdicts.label[~is_red] == -1).mean() < 0.15
    right = [osc.class_names[k] == toy.CLASSES[y] for k, y in zip(verdicts.closed_label, new[1], strict=True) if y != 2]
    assert np.mean(right) > 0.95
    again = knownot.load(osc.save(tmp_path / "osc"))
    assert (again.predict(new[0]).label == verdicts.label).all()
    assert any("'red' means nothing" in note for note in osc.record.notes)


def test_from_folders_and_several(tmp_path):
    x, y = toy.known(240, 3)
    toy.written(tmp_path, x, y)
    osc = knownot.fit(toy.graph(), tmp_path, none_classes=["stripes", "blue"], **OPTIONS)
    assert osc.class_names == ("columns", "red")
    assert osc.record.known + osc.record.held_out == np.isin(y, (1, 2)).sum()
    labels = osc.predict(x).label
    assert (labels[np.isin(y, (0, 3))] == -1).mean() > 0.9


def test_a_class_that_there_is_not():
    with pytest.raises(OptionError, match="no class 'sky'"):
        knownot.fit(toy.graph(), toy.known(140, 3), none_classes=["sky"], **OPTIONS)
    with pytest.raises(OptionError, match="two or more classes have to be left"):
        knownot.fit(toy.graph(), toy.known(140, 3), none_classes=["red", "blue", "stripes"], **OPTIONS)


def test_outputs_anywhere_may_be_none_classes():
    inner = open_model(toy.graph())
    x = (toy.known(6, 3)[0] / 255).astype(np.float32)
    z = inner.activations(x).logits
    last, second = NoneClasses(inner, 1), NoneClasses(inner, (1, 2))
    assert last.kept == (0, 1, 2)
    assert (last.activations(x).logits == z[:, :3]).all()
    seen = second.activations(x)
    assert (seen.logits == z[:, [0, 3]]).all()
    assert (seen.extra["none/logits"] == z[:, [1, 2]]).all()
    assert second.head.weight.shape == (2, 24)
    assert len({last.fingerprint, second.fingerprint, inner.fingerprint, NoneClasses(inner, (3,)).fingerprint}) == 4
    for wrong in ((4,), (0, 0), (), (True,), "red"):
        with pytest.raises(OptionError, match="none_classes"):
            NoneClasses(inner, wrong)

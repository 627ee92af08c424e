"""Folders that were saved before classes and modules were renamed still load, and give the verdicts that they gave."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import knownot
from helpers import toy

SAVED = Path(__file__).parents[1] / "data" / "saved"
KINDS = ("default", "remedy", "second", "auto")


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_before_gives_the_same_verdicts(kind, tmp_path):
    osc = knownot.load(SAVED / kind)
    images = np.concatenate([toy.known(60, 4)[0], toy.unknown(20)])
    given = osc.predict(images)
    with np.load(SAVED / "verdicts.npz") as then:
        np.testing.assert_allclose(given.score, then[f"{kind}_score"], rtol=1e-3, atol=1e-3)
        step = 1 / (len(osc.calibration.scores) + 1)  # rounding may move an image past one of the calibration images
        np.testing.assert_allclose(given.p_value, then[f"{kind}_p"], atol=1.01 * step)
        assert (given.label != then[f"{kind}_label"]).sum() <= 1
    again = knownot.load(osc.save(tmp_path / "again")).predict(images)
    np.testing.assert_array_equal(again.p_value, given.p_value)


def test_one_of_another_network_is_not_taken_for_it(tmp_path):
    shutil.copytree(SAVED / "default", tmp_path / "osc")
    (tmp_path / "osc" / "model.onnx").write_bytes((SAVED / "auto" / "model.onnx").read_bytes())
    with pytest.raises(knownot.KnownotError):
        knownot.load(tmp_path / "osc")


def test_a_classifier_opened_without_stages_is_saved_and_loaded(tmp_path):
    model = knownot.open_model(toy.graph(), stages=[])
    osc = knownot.fit(model, *toy.known(200, 2), calibration=toy.known(240, 3)[0], progress=False)
    again = knownot.load(osc.save(tmp_path / "osc"))
    assert again.model.capabilities.stages == ()

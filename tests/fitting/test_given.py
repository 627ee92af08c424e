"""A detector that is fitted already, given to `fit`."""

from __future__ import annotations

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot.arrays import Capabilities
from knownot.detectors import KNN, given, resolve
from knownot.errors import OptionError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return knownot.open_model(toy.saved(tmp_path_factory.mktemp("toy")))


def fit(model, detector, **options):
    settings = {"calibration": toy.known(200, 2)[0], "guarantee": "marginal", "progress": False, **options}
    return knownot.fit(model, *toy.known(300, 1), detector=detector, **settings)


@pytest.fixture(scope="module")
def knn(model):
    """Fitted on other images than what follows."""
    return knownot.fit(
        model, *toy.known(80, 7), calibration=toy.known(200, 2)[0], detector="knn", progress=False
    ).detector


def test_it_stays_as_it_is(model, knn):
    osc = fit(model, knn)
    assert osc.detector is knn
    assert osc.detector.members == ("KNN",)
    other = fit(model, "knn")
    x = toy.unknown(20)
    assert not np.allclose(osc.predict(x).score, other.predict(x).score)  # that one was fitted on more images


@pytest.mark.parametrize("form", ["list", "mapping", "recipe"])
def test_it_is_combined_like_any_other(model, knn, form, tmp_path):
    asked = {
        "list": ["default", knn],
        "mapping": {"default": "default", "mine": knn},
        "recipe": ["default", given(knn)],
    }
    osc = fit(model, asked[form])
    name = {"list": "KNN", "mapping": "mine", "recipe": "Prefit(detector=KNN)"}[form]
    assert osc.detector.members == (*fit(model, "default").detector.members, name)
    x = toy.unknown(30)
    activations = model.forward(model.input.to_layout(np.float32(x / 255)))
    np.testing.assert_allclose(osc.scores(activations)[1][:, -1], knn.score(activations), rtol=1e-5)
    assert (osc.predict(toy.known(300, 9)[0]).label == -1).mean() < 0.1
    again = knownot.load(osc.save(tmp_path / "osc"))
    np.testing.assert_array_equal(again.predict(x).score, osc.predict(x).score)


def test_a_ranked_combination_is_one_member(model, tmp_path):
    """What the automatic choice became, beside something else."""
    auto = fit(model, "auto", calibration=toy.known(400, 5)[0])
    osc = fit(model, {"auto": auto.detector, "msp": "msp"})
    assert osc.detector.members == ("auto", "msp")
    x = toy.unknown(30)
    activations = model.forward(model.input.to_layout(np.float32(x / 255)))
    np.testing.assert_allclose(osc.scores(activations)[1][:, 0], auto.scores(activations)[0], rtol=1e-5)
    again = knownot.load(osc.save(tmp_path / "osc"))
    np.testing.assert_array_equal(again.predict(x).score, osc.predict(x).score)


@pytest.mark.parametrize("held_out", [True, False])
def test_what_it_reads_of_maps_is_made(model, held_out):
    """Gram matrices of maps: nobody else asks for these maps."""
    gram = fit(model, "gram").detector
    assert gram.map_reductions
    osc = fit(model, gram, **({} if held_out else {"calibration": None}))
    assert osc.detector is gram
    assert np.isfinite(osc.predict(toy.unknown(10)).score).all()


def test_what_is_no_detector_is_told(model, knn):
    capabilities = Capabilities(frozenset({"probabilities", "features"}), 4)
    with pytest.raises(OptionError, match="is no detector"):
        resolve(object(), capabilities)
    with pytest.raises(OptionError, match="expected a fitted detector"):
        resolve(given(KNN), capabilities)
    with pytest.raises(OptionError, match="'KNN' is there twice"):
        resolve([knn, knn], capabilities)

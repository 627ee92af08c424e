"""Images made to fool a classifier, and the detector in front of it."""

from __future__ import annotations

import json
import os
import sys
from functools import cache

import numpy as np
import pytest

if "keras" not in sys.modules:
    os.environ.setdefault("KERAS_BACKEND", "torch")

import knownot
from helpers import toy
from helpers.gradient_nets import keras_net, torch_net
from knownot.arrays import InputSpec, softmax
from knownot.calibration import p_values
from knownot.cli import main
from knownot.detectors.base import to_namespace
from knownot.errors import ActivationsError, MissingExtraError, ModelError, OptionError, SavedError, UnsoundError
from knownot.fooling import pixels, slopes
from knownot.fooling.cppn import Cppn
from knownot.fooling.guard import DetectorConstraint
from knownot.fooling.objective import AttackObjective, log_odds
from knownot.fooling.prior import Prior

WAY = knownot.Preprocess(16, 16, scale=1 / 255, name="[0, 1]")
DATA = toy.known(400, 2), toy.known(600, 3)


def fitted(model, detector="default", **more):
    (known, labels), (images, classes) = DATA
    return knownot.fit(
        model,
        known,
        labels,
        calibration=images,
        calibration_labels=classes,
        detector=detector,
        class_names=toy.CLASSES,
        preprocess=WAY,
        thumbnails=0,
        progress=False,
        **more,
    )


def other_net():
    """Another network: its filters answer otherwise."""
    import torch

    net = torch_net()
    with torch.no_grad():
        net[0].weight.mul_(0.7)
        net[2].bias.add_(0.1)
    return net


@cache
def torch_model():
    return knownot.open_model(torch_net(), size=(16, 16))


@cache
def torch_osc(detector: str = "default"):
    return fitted(torch_model(), detector)


@cache
def onnx_osc(detector: str = "default"):
    return fitted(toy.graph(), detector)


# Pixels to input, and back


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("channels", ["rgb", "bgr", "grey"])
@pytest.mark.parametrize("share", [1.0, 0.75])
def test_a_gradient_goes_back_through_the_preprocessing(layout, channels, share):
    """The preprocessing is linear (but for the rounding of grey), so its adjoint is exact."""
    k = 1 if channels == "grey" else 3
    mean, std = ((0.4,), (0.3,)) if k == 1 else ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    way = knownot.Preprocess(12, 9, channels, 1 / 255, mean, std, crop_share=share)
    link = pixels.PixelPipeline(way, InputSpec(12, 9, k, layout))
    assert link.size == (round(12 / share), round(9 / share))
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 256, (2, 4, *link.size, 3), dtype=np.uint8)
    inputs = link.input(one), link.input(other)
    assert inputs[0].shape == (4, 12, 9, k)
    g = rng.normal(size=inputs[0].shape)
    back = link.back(g if layout == "NHWC" else g.transpose(0, 3, 1, 2))
    want = np.sum(g * (inputs[0] - inputs[1].astype(np.float64)), axis=(1, 2, 3))
    got = np.sum(back * (one.astype(np.float64) - other), axis=(1, 2, 3))
    # Grey is rounded to whole numbers: 5 standard deviations of the sum of such errors.
    spread = np.sqrt(2 / 12 * np.sum(g**2, axis=(1, 2, 3))) / 255 / 0.3
    np.testing.assert_allclose(got, want, atol=5 * spread.max() if k == 1 else 1e-3)
    assert np.abs(want).min() > 2 * spread.max()


def test_the_image_of_an_attack_is_not_resampled_by_the_preprocessing():
    """Crop, stretch, any size: an image made here is used pixel by pixel."""
    for fit, share in (("crop", 1.0), ("crop", 0.875), ("crop", 0.9), ("stretch", 0.875)):
        for size in ((224, 224), (33, 50), (32, 32)):
            way = knownot.Preprocess(*size, fit=fit, crop_share=share)
            link = pixels.PixelPipeline(way, InputSpec(*size, 3, "NHWC"))
            image = np.random.default_rng(0).integers(0, 256, (1, *link.size, 3), dtype=np.uint8)
            top, left = (round((a - b) / 2) for a, b in zip(link.size, size, strict=True))
            want = image[:, top : top + size[0], left : left + size[1]]
            np.testing.assert_array_equal(link.input(image), want.astype(np.float32))


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (9, 5)])
@pytest.mark.parametrize("smoothness", [0.0, 1.0, 2.0])
def test_a_gradient_goes_back_through_the_prior(size, smoothness):
    prior = Prior(*size, smoothness)
    rng = np.random.default_rng(0)
    z, g = rng.normal(size=(2, *size, 3)), rng.normal(size=(2, *size, 3))
    pixels = prior.pixels(z)
    back = prior.back(pixels, g)
    move = rng.normal(size=z.shape)
    step = 1e-5
    change = (prior.pixels(z + step * move) - prior.pixels(z - step * move)) / (2 * step)
    np.testing.assert_allclose(np.sum(back * move), np.sum(g * change), rtol=1e-6)
    assert ((pixels >= 0) & (pixels <= 255)).all()
    np.testing.assert_array_equal(np.rint(prior.pixels(1e6 * np.sign(z))) % 255, 0)  # black and white: no overflow


@pytest.mark.parametrize("size", [(32, 32), (31, 33), (16, 24)])
def test_the_prior_keeps_the_strength_of_noise_and_smooths_it(size):
    z = np.random.default_rng(0).normal(size=(400, *size, 3))
    rough, smooth = (Prior(*size, s)._filtered(z) for s in (0.0, 1.0))
    np.testing.assert_allclose(rough, z, atol=1e-12)
    assert smooth.var() == pytest.approx(1, rel=0.05)
    assert np.abs(np.diff(smooth, axis=1)).mean() < 0.7 * np.abs(np.diff(rough, axis=1)).mean()


def test_cppn_paints_smooth_images_of_any_size():
    genomes = np.random.default_rng(0).normal(size=(20, Cppn(32, 32).length))
    images = Cppn(32, 32).images(genomes)
    assert images.dtype == np.uint8
    assert images.shape == (20, 32, 32, 3)
    assert Cppn(10, 17).images(genomes).shape == (20, 10, 17, 3)
    assert apart(Cppn(32, 32).images(genomes[3:4]), images[3:4]) < 0.01  # but for rounding: alone or among others
    steps = np.abs(np.diff(images.astype(float), axis=2))
    assert 1 < np.median(steps.mean(axis=(1, 2, 3))) < 40  # something is painted, and uniform noise has 85
    assert len(np.unique(images.reshape(20, -1), axis=0)) == 20
    extreme = Cppn(8, 8).images(1e4 * genomes)  # no overflow, which would warn
    assert set(np.unique(extreme)) <= set(range(256))


def test_log_odds_where_the_probability_rounds_to_one():
    z = np.array([[200.0, 0, 0], [0, 0, 0], [-3, 5, 1]], np.float32)
    got = log_odds(z, np.array([0, 1, 2]))
    p = softmax(z.astype(np.float64))[1:, [1, 2]].diagonal()
    np.testing.assert_allclose(got[1:], np.log(p) - np.log1p(-p))
    assert got[0] == pytest.approx(200 - np.log(2))


# The detector, smooth


@pytest.mark.parametrize("detector", ["default", "msp", "knn"])
def test_suspicion_is_minus_log_p_made_smooth(detector):
    osc = torch_osc(detector)
    guard = DetectorConstraint(osc)
    batch = torch_model().activations(toy.known(200, 7)[0] / np.float32(255))
    parts = osc.scores(batch)[1]
    nats, _ = guard._smooth(parts)
    for i, reference in enumerate(osc.references):
        p = p_values(reference, parts[:, i])
        inside = (p > 0.06) & (p < 0.9)
        assert inside.sum() > 50
        np.testing.assert_allclose(nats[inside, i], -np.log(p[inside]), atol=0.2)
        beyond = reference[-1] + np.array([0.0, 1.0, 2.0, 50.0]) * reference.std()
        scores = np.repeat(parts[:1], 4, axis=0).astype(np.float64)
        scores[:, i] = beyond
        further = guard._smooth(scores)[0][:, i]
        assert (np.diff(further) > 0).all(), "beyond the last calibration score it goes on rising"
        assert further[0] == pytest.approx(np.log(len(reference) + 1), abs=1e-9)


def test_suspicion_and_its_slope_agree():
    osc = torch_osc()
    guard = DetectorConstraint(osc)
    spread = np.array([r.std() for r in osc.references])
    middle = np.array([np.median(r) for r in osc.references])
    parts = middle + spread * np.random.default_rng(0).uniform(0, 5, (300, len(spread)))
    nats, slope = guard._smooth(parts)
    step = 1e-7 * spread
    change = (guard._smooth(parts + step)[0] - nats) / step
    assert (np.isclose(change, slope, rtol=1e-3, atol=1e-6).mean(axis=0) > 0.98).all()  # but for steps across a knot


def test_what_is_accepted_is_what_the_verdict_says():
    osc = torch_osc()
    images = np.concatenate([toy.known(200, 8)[0], toy.unknown(100)])
    accepted, easy, suspicion = DetectorConstraint(osc).judge(torch_model().activations(images / np.float32(255)))
    verdicts = osc.predict(images)
    np.testing.assert_array_equal(accepted, verdicts.label >= 0)
    assert (accepted | ~easy).all()
    assert 0 < easy.sum() < accepted.sum() < 300
    assert suspicion[accepted].mean() < suspicion[~accepted].mean()


@pytest.mark.parametrize(
    ("way", "detector"),
    [("jax", "knn"), *(("torch", d) for d in ("default", "msp", "energy", "vim", "knn", "mahalanobis++"))],
)
def test_slopes_of_a_detector_against_differences_in_float64(way, detector):
    osc = torch_osc(detector)
    batch = torch_model().activations(np.concatenate([toy.known(3, 9)[0], toy.unknown(3)]) / np.float32(255))
    paths = ("logits", "features", "stages/stage1")
    weight = np.random.default_rng(0).uniform(0.5, 1.5, (6, len(osc.detector.members)))
    found = {"torch": slopes._torch, "jax": slopes._jax}[way](osc.detector)(batch, weight, paths)
    named = {path: np.asarray(x, np.float64) for path, x in batch.named().items()}
    exact = to_namespace(osc.detector, np, np.float64)

    def total(arrays):
        return np.sum(weight * exact.member_scores(knownot.Activations.of(arrays)), axis=1)

    for path in paths:
        want = np.empty(named[path].shape)
        for j in range(want.shape[1]):
            step = np.zeros(want.shape[1])
            step[j] = 1e-6
            up, down = (total(named | {path: named[path] + sign * step}) for sign in (1, -1))
            want[:, j] = (up - down) / 2e-6
        if path not in found:
            np.testing.assert_allclose(want, 0, atol=1e-6)
            continue
        np.testing.assert_allclose(found[path], want, atol=2e-3 * np.abs(want).max())
    assert found


def test_slopes_name_what_is_missing(monkeypatch):
    monkeypatch.setattr(slopes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"torch or jax is needed.*method='evolution'"):
        slopes.slopes_of(torch_osc().detector)


# Gradient


@pytest.mark.parametrize("net", [torch_net, keras_net])
def test_gradient_fools_the_classifier(net):
    model = knownot.open_model(net(), size=(16, 16))
    result = knownot.fool(model, count=12, preprocess=WAY)
    assert result.method == "gradient"
    assert result.images.dtype == np.uint8
    assert result.images.shape == (12, 16, 16, 3)
    np.testing.assert_array_equal(result.wanted, np.arange(12) % 4)
    assert result.fooled.all()
    p = softmax(toy.reference(result.images / 255.0, toy.weights())["logits"])
    np.testing.assert_allclose(result.probability, p[np.arange(12), result.wanted], atol=1e-5)
    assert (result.probability >= 0.99).all()
    assert result.accepted is None
    assert result.p_value is None
    assert (result.queries >= 1).all()


def apart(one, other):
    """The mean difference of pixels."""
    return np.abs(one.astype(int) - other.astype(int)).mean()


def test_the_same_seed_gives_the_same_images_whatever_their_number():
    few, many, other = (
        knownot.fool(torch_model(), [0, 1, 2, 3], n, preprocess=WAY, seed=s) for n, s in ((3, 0), (7, 0), (3, 1))
    )
    # A batch of another size is summed in another order: a pixel may round to its neighbour.
    assert apart(few.images, many.images[:3]) < 0.5 < 5 < apart(few.images, other.images)
    three = knownot.fool(torch_model(), 3, 3, preprocess=WAY)
    assert len(np.unique(three.images.reshape(3, -1), axis=0)) == 3, "images of one class differ"


def test_smoothness_decides_how_rough_they_are():
    rough, smooth = (
        np.abs(np.diff(knownot.fool(torch_model(), 3, 6, preprocess=WAY, smoothness=s).images.astype(float), axis=1))
        for s in (0, 2)
    )
    assert smooth.mean() < 0.6 * rough.mean()


def test_queries_bound_the_work_and_what_failed_is_told():
    result = knownot.fool(torch_model(), count=4, preprocess=WAY, queries=1)
    np.testing.assert_array_equal(result.queries, 1)
    assert not result.fooled.all()
    assert (result.fooled == (result.probability >= 0.99)).all()
    assert "of 4 images" in result.sentence


def test_classes_by_name_number_and_spread():
    osc = torch_osc("msp")
    result = knownot.fool(osc, ["red", 0, "3"], 5)
    np.testing.assert_array_equal(result.wanted, [2, 0, 3, 2, 0])
    assert knownot.fool(osc, "blue", 1).wanted.tolist() == [3]
    for count, wanted in ((1, [0]), (2, [0, 3]), (3, [0, 2, 3]), (4, [0, 1, 2, 3]), (6, [0, 1, 2, 3, 0, 1])):
        assert knownot.fool(osc, count=count, queries=1).wanted.tolist() == wanted
    assert repr(result).startswith("Fooling(5 of 5 images made by gradient fool the classifier")


def test_a_classifier_that_computes_nan_is_an_error_not_an_image():
    import torch

    class Overflowing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch_net()

        def forward(self, x):
            bright = x.mean(dim=(1, 2, 3), keepdim=True)[:, :, 0, 0] > 0.6
            return self.net(x) + torch.where(bright, torch.nan, 0.0)

    model = knownot.open_model(Overflowing().eval(), size=(16, 16))
    with pytest.raises(ActivationsError, match=r"not finite|NaN or infinity"):
        knownot.fool(model, count=3, preprocess=WAY, method="evolution")


# With a detector


def test_verdicts_of_an_open_set_classifier_are_those_of_predict(tmp_path):
    osc = torch_osc()
    result = knownot.fool(osc, count=8)
    result.save(tmp_path / "out")
    verdicts = osc.predict(sorted((tmp_path / "out").glob("0*.png")))
    np.testing.assert_array_equal(result.accepted, verdicts.label == result.wanted)
    np.testing.assert_allclose(result.p_value, verdicts.p_value)
    np.testing.assert_allclose(result.probability, verdicts.confidence, atol=1e-6)
    assert result.fooled.all()
    assert f"rejects {int((~result.accepted).sum())} of these 8" in result.sentence


@pytest.mark.parametrize("detector", ["default", "msp", "knn", "mahalanobis++"])
def test_an_adaptive_attack_gets_past_the_detector(detector):
    osc = torch_osc(detector)
    rough = {"count": 8, "smoothness": 0}
    plain, both = knownot.fool(osc, **rough), knownot.fool(osc, **rough, adaptive=True)
    assert both.method == "gradient"
    assert both.fooled.sum() >= 6
    assert (both.fooled == (both.accepted & (both.probability >= 0.99))).all()
    np.testing.assert_array_equal(both.accepted, osc.predict(both.images).label == both.wanted)
    assert both.accepted.sum() >= plain.accepted.sum()
    assert both.queries.sum() >= plain.queries.sum()


def test_an_adaptive_attack_looks_through_both_networks():
    """The slope of the suspicion with respect to pixels, against what happens when they move by one grey level."""
    osc = fitted(torch_model(), features=knownot.open_model(other_net(), size=(16, 16)))
    assert any(name.startswith("second") for name in osc.detector.members)
    objective = AttackObjective(osc.model, osc.preprocess, 0.99, osc)
    images = np.clip(toy.known(15, 5)[0], 2, 253)
    nobody = np.zeros(15, np.int64)
    seen = objective.look(images, nobody)
    slope = -objective._back(seen, objective.guard.pull(seen.activations, objective._paths))
    move = np.sign(slope) * (np.random.default_rng(0).random(slope.shape) < 0.1)
    up, down = (
        objective.guard.judge(objective.look((images + m).astype(np.uint8), nobody).activations)[2]
        for m in (move, -move)
    )
    share = (up - down) / (2 * np.sum(slope * move, axis=(1, 2, 3)))
    assert np.median(share) == pytest.approx(1, abs=0.15), "but for kinks of the suspicion"
    result = knownot.fool(osc, count=8, adaptive=True, smoothness=0)
    assert result.fooled.sum() >= 6
    np.testing.assert_array_equal(result.accepted, osc.predict(result.images).label == result.wanted)


def test_a_second_network_that_wants_other_sizes_is_looked_at_but_not_differentiated():
    large = knownot.open_model(other_net(), size=(24, 24))
    both = fitted(
        torch_model(),
        {"knn": {}, "far": knownot.detectors.KNN.recipe(of="second/features")},
        features=large,
        features_preprocess=knownot.Preprocess(24, 24, scale=1 / 255),
    )
    result = knownot.fool(both, count=4, adaptive=True, queries=60)
    assert result.method == "gradient"
    np.testing.assert_array_equal(result.accepted, both.predict(result.images).label == result.wanted)
    only = fitted(
        torch_model(), knownot.detectors.KNN.recipe(of="second/features"), features=large,
        features_preprocess=knownot.Preprocess(24, 24, scale=1 / 255),
    )  # fmt: skip
    with pytest.raises(UnsoundError, match="score cannot be differentiated"):
        knownot.fool(only, count=1, adaptive=True, method="gradient")


def test_detectors_that_gradients_do_not_reach_are_attacked_by_evolution():
    osc = torch_osc("odin")
    with pytest.raises(UnsoundError, match=r"score cannot be differentiated.*method='evolution'"):
        knownot.fool(osc, count=2, adaptive=True, method="gradient")
    result = knownot.fool(osc, count=1, adaptive=True, queries=200)
    assert result.method == "evolution"
    assert knownot.fool(osc, count=2).method == "gradient"  # of the classifier alone they are there


def test_float_arrays_as_known_images_need_a_preprocessing():
    (known, labels), (images, classes) = DATA
    osc = knownot.fit(
        torch_model(), known / np.float32(255), labels, calibration=images / np.float32(255),
        calibration_labels=classes, detector="msp", thumbnails=0, progress=False,
    )  # fmt: skip
    with pytest.raises(OptionError, match=r"How images become this classifier's input is not known"):
        knownot.fool(osc, count=1)
    result = knownot.fool(osc, count=4, preprocess=WAY)
    assert result.fooled.all()
    verdicts = osc.predict(result.images / np.float32(255))
    np.testing.assert_allclose(result.p_value, verdicts.p_value)


# Evolution


def test_evolution_fools_an_onnx_classifier_and_leaves_the_random_state_alone():
    osc = onnx_osc("msp")
    np.random.seed(5)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    result = knownot.fool(osc, count=8)
    assert result.method == "evolution"
    assert result.fooled.sum() >= 7
    p = softmax(toy.reference(result.images / 255.0, toy.weights())["logits"])
    np.testing.assert_allclose(result.probability, p[np.arange(8), result.wanted], atol=1e-5)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert (
        sorted(apart(x, y) for x, y in zip(knownot.fool(osc, [0, 1, 2], 3).images, result.images[:3], strict=True))[1]
        < 0.5
    )
    assert len(np.unique(result.images.reshape(8, -1), axis=0)) == 8


def test_evolution_asks_a_function_no_more_than_it_says():
    asked = [0]

    def probabilities(x):
        asked[0] += len(x)
        return softmax(toy.reference(x, toy.weights())["logits"] / 3)

    model = knownot.open_model(probabilities, size=(16, 16))
    asked[0] = 0
    result = knownot.fool(model, count=3, preprocess=WAY, queries=150, target=0.999999)
    assert (result.queries <= 150).all()
    assert result.queries.sum() <= asked[0] - 3, "three more, to measure what came out"
    unlucky = ~result.fooled
    assert unlucky.any()
    np.testing.assert_array_equal(result.queries[unlucky], 150)
    assert asked[0] <= 150 * 3 + 3


def test_evolution_gets_past_a_detector_too():
    osc = onnx_osc()
    result = knownot.fool(osc, count=4, adaptive=True, queries=3000)
    np.testing.assert_array_equal(result.accepted, osc.predict(result.images).label == result.wanted)
    assert (result.fooled == (result.accepted & (result.probability >= 0.99))).all()
    assert result.fooled.sum() >= 2


def test_evolution_without_its_package_names_the_extra(monkeypatch):
    from knownot.fooling import evolution

    monkeypatch.setattr(evolution.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"package 'cma'.*knownot\[audit\]"):
        knownot.fool(onnx_osc("msp"), count=1)


# What is refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"count": 0}, "count=0: expected a whole number of at least 1"),
        ({"count": 2.5}, "count=2.5"),
        ({"target": 0.4}, r"target=0.4: expected a number from 0.5 to"),
        ({"target": 1.0}, "target=1.0"),
        ({"method": "magic"}, "method='magic': expected one of 'auto', 'gradient', 'evolution'"),
        ({"queries": 0}, "queries=0"),
        ({"smoothness": -1}, "smoothness=-1"),
        ({"classes": ["rde"]}, r"no class 'rde'. Did you mean 'red'\?"),
        ({"classes": [4]}, "classes=4: expected a whole number from 0 to 3"),
        ({"classes": [-1]}, "classes=-1"),
        ({"classes": []}, "expected at least one class"),
        ({"preprocess": knownot.Preprocess(16, 16)}, "has one of its own"),
        ({"adaptive": 1.5}, "adaptive=1.5"),
    ],
)
def test_options_out_of_range(options, says):
    with pytest.raises(OptionError, match=says):
        knownot.fool(torch_osc("msp"), **options)


def test_what_cannot_be_attacked_says_why():
    model = torch_model()
    with pytest.raises(OptionError, match="give an open-set classifier"):
        knownot.fool(model, preprocess=WAY, adaptive=True)
    with pytest.raises(OptionError, match=r"preprocess=knownot.Preprocess"):
        knownot.fool(model)
    with pytest.raises(UnsoundError, match=r"onnx classifier shows no gradient.*method='evolution'"):
        knownot.fool(onnx_osc("msp"), method="gradient")
    function = knownot.open_model(lambda x: np.full((len(x), 4), 0.25), size=(16, 16))
    with pytest.raises(UnsoundError, match="function classifier shows no gradient"):
        knownot.fool(function, method="gradient", preprocess=WAY)
    anything = knownot.open_model(torch_net())
    with pytest.raises(OptionError, match="images of any size"):
        knownot.fool(anything, preprocess=knownot.Preprocess(scale=1 / 255))
    with pytest.raises(OptionError, match=r"makes 1 channel, the classifier takes 3"):
        knownot.fool(model, preprocess=knownot.Preprocess(16, 16, "grey"))
    with pytest.raises(ModelError, match="embedding=True"):
        knownot.fool(knownot.open_model(torch_net(), size=(16, 16), embedding=True), preprocess=WAY)


# Saving


def test_saved_images_are_those_made(tmp_path):
    from PIL import Image

    result = knownot.fool(torch_osc(), count=5)
    folder = result.save(tmp_path / "new" / "out")
    said = json.loads((folder / "fooling.json").read_text(encoding="utf-8"))
    assert said["format"] == 1
    assert said["fooled"] == int(result.fooled.sum())
    assert [row["file"] for row in said["images"]] == sorted(p.name for p in folder.glob("0*.png"))
    for i, row in enumerate(said["images"]):
        np.testing.assert_array_equal(np.asarray(Image.open(folder / row["file"])), result.images[i])
        assert row["class"] == toy.CLASSES[result.wanted[i]]
        assert row["probability"] == result.probability[i]
        assert row["accepted"] == result.accepted[i]
        assert row["p_value"] == result.p_value[i]
        assert row["queries"] == result.queries[i]
    assert np.asarray(Image.open(folder / "sheet.png")).shape == (96 + 8, 5 * 100 + 4, 3)
    knownot.fool(torch_osc(), count=2).save(folder)  # replaced, nothing of the earlier one is left
    assert len(list(folder.iterdir())) == 4


def test_saving_leaves_other_folders_alone(tmp_path):
    result = knownot.fool(torch_osc("msp"), count=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(SavedError, match="is a file"):
        result.save(tmp_path / "file")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_bytes(b"x")
    with pytest.raises(SavedError, match="is not empty"):
        result.save(tmp_path / "mine")
    lying = tmp_path / "lying"
    lying.mkdir()
    (tmp_path / "precious").write_text("")
    (lying / "fooling.json").write_text('{"images": [{"file": "../precious"}]}')
    result.save(lying)
    assert (tmp_path / "precious").exists(), "a manifest names files in its own folder only"


# The command


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in args])
    return stop.value.code or 0


def test_the_command(tmp_path, capsys):
    import onnx

    torch_osc("msp").save(tmp_path / "osc")
    assert run("fool", tmp_path / "osc", "-o", tmp_path / "out", "--count", "3", "--class", "red", "--quiet") == 0
    said = capsys.readouterr().out
    assert "3 of 3 images made by gradient fool the classifier" in said
    assert len(list((tmp_path / "out").glob("*-red.png"))) == 3
    onnx.save(toy.graph(), tmp_path / "m.onnx")
    assert (
        run("fool", tmp_path / "m.onnx", "-o", tmp_path / "two", "--count", "2", "--preprocess", "[0, 1]", "--json")
        == 0
    )
    facts = json.loads(capsys.readouterr().out)
    assert facts["method"] == "evolution"
    assert len(facts["images"]) == 2
    assert run("fool", tmp_path / "m.onnx", "-o", tmp_path / "x", "--adaptive", "--preprocess", "[0, 1]") == 1
    assert "give an open-set classifier" in capsys.readouterr().err
    assert run("fool", tmp_path / "osc", "-o", tmp_path / "x", "--size", "16") == 1
    assert run("fool", tmp_path / "m.onnx", "-o", tmp_path / "x", "--features", "a.onnx") == 1


def test_preprocessing_by_its_name_is_that_preprocessing():
    by_name, by_fields = (knownot.fool(torch_model(), 3, 2, preprocess=way) for way in ("[0, 1]", WAY))
    np.testing.assert_array_equal(by_name.images, by_fields.images)

"""Detectors that look at changed images: their equations in plain float64, and how extra passes reach them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import knownot
from helpers import toy
from helpers.gradient_nets import torch_net
from knownot.arrays import Activations, InputSpec, Preprocess
from knownot.benchmark import compare
from knownot.checks.detectors import Problem, fitted, problem
from knownot.checks.toy import Toy
from knownot.detectors import Detector, configure, resolve
from knownot.detectors.methods.mahalanobis_odin import slope
from knownot.detectors.methods.odin import Confirmed
from knownot.detectors.passes import direction, extend_with_passes, span, with_extra_passes
from knownot.errors import InputError, OptionError, UnsoundError

EPS = 0.02  # large, so that what it does shows


@cache
def on() -> Problem:
    return problem()


def ready(name: str, **options) -> tuple[Detector, Activations, np.ndarray]:
    """(fitted, activations of unknown and known images with what its passes give, their inputs)."""
    recipe, _ = resolve(configure(name, **options), on().capabilities)
    detector = fitted(recipe, on())
    x = np.concatenate([on().inputs["unknown"][:20], on().inputs["known"][:20]])
    return detector, extend_with_passes(on().model, x, on().model.forward(x), detector.passes), x


def sign_of_slope(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Of f [n], by differences, pixel by pixel; x [n, 1, p, 1]."""
    return np.sign(slopes(f, x, step))


def slopes(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    found = np.empty(x.shape)
    for j in range(x.shape[2]):
        move = np.zeros(x.shape)
        move[:, :, j] = step
        found[:, 0, j, 0] = (f(x + move) - f(x - move)) / (2 * step)
    return found


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# Equations


@pytest.mark.parametrize("temperature", [1.0, 1000.0])
def test_odin(temperature: float) -> None:
    detector, batch, x = ready("odin", temperature=temperature, eps=EPS)
    model = on().model
    winner = model.forward(x).logits.argmax(axis=1)

    def confidence(x: np.ndarray) -> np.ndarray:
        z = model.forward(x).logits / temperature
        return np.log(softmax(z)[np.arange(len(x)), winner]) * temperature  # a factor: differences of 1e-9 are noise

    moved = x + EPS * sign_of_slope(confidence, x, 1e-5)
    want = -np.log(softmax(model.forward(moved).logits / temperature).max(axis=1))
    np.testing.assert_allclose(detector.score(batch) + np.log(5), want, rtol=1e-6, atol=1e-9)
    assert (confidence(moved) > confidence(x)).mean() > 0.9, "the step has to raise the confidence"


def test_odin_ranks_as_the_softmax_where_the_temperature_hides_differences() -> None:
    """In float32 a softmax at T = 1000 is the same number for many images; its logarithm here is not."""
    z = np.random.default_rng(0).normal(size=(400, 10)) * 3
    detector, _, _ = ready("odin", eps=0.0)
    path = detector.passes[0].name + "/logits"
    got = detector.score(Activations(z.astype(np.float32), extra={path: z.astype(np.float32)}))
    want = -np.log(softmax(z / 1000).max(axis=1))
    assert got.dtype == np.float32
    assert (np.argsort(got) == np.argsort(want)).mean() > 0.95
    np.testing.assert_allclose(got, want - np.log(10), rtol=1e-4)


@pytest.mark.parametrize("surer", [50.0, 1e4, 1e8])
def test_odin_moves_images_of_which_the_classifier_is_sure_just_as_well(surer: float) -> None:
    """There 1 - p_max is 0 in float64, and the other probabilities are, or are too small to divide by."""
    sure = replace(on().model.own, weight=on().model.own.weight * surer, bias=on().model.own.bias * surer)
    model = Toy(on().model.first, on().model.second, sure, on().capabilities, np.float64)
    x = on().inputs["known"][:20]
    got = extend_with_passes(model, x, model.forward(x), [Confirmed(1.0, EPS)]).extra[
        f"{Confirmed(1.0, EPS).name}/logits"
    ]
    z = model.forward(x).logits
    two = np.sort(z, axis=1)[:, -2:]
    assert (two[:, 1] - two[:, 0] > 40).sum() > 10

    def lead(images: np.ndarray) -> np.ndarray:  # -log sum of the others against the winner, of the same sign as log p
        logits = model.forward(images).logits
        best = z.argmax(axis=1)[:, None]
        others = np.where(np.arange(z.shape[1]) == best, -np.inf, logits - np.take_along_axis(logits, best, axis=1))
        return -(others.max(axis=1) + np.log(np.exp(others - others.max(axis=1, keepdims=True)).sum(axis=1)))

    expected = model.forward(x + EPS * sign_of_slope(lead, x, 1e-5)).logits
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_odin_without_a_step_is_the_softmax_at_its_temperature() -> None:
    detector, batch, _ = ready("odin", temperature=2.0, eps=0.0)
    want = -np.log(softmax(batch.logits / 2).max(axis=1)) - np.log(5)
    np.testing.assert_allclose(detector.score(batch), want, rtol=1e-9)


@pytest.mark.parametrize("unit", [False, True])
def test_mahalanobis_odin(unit: bool) -> None:
    detector, batch, x = ready("mahalanobis-odin", eps=EPS, unit=unit)
    model, problem_ = on().model, on()
    f, labels = problem_.train.features, problem_.labels
    f = f / np.linalg.norm(f, axis=1, keepdims=True) if unit else f
    means = np.stack([f[labels == c].mean(axis=0) for c in range(5)])
    inverse = np.linalg.pinv(np.cov((f - means[labels]).T, bias=True), rcond=1e-10, hermitian=True)

    def distance(x: np.ndarray) -> np.ndarray:
        h = model.forward(x).features
        h = h / np.linalg.norm(h, axis=1, keepdims=True) if unit else h
        gap = h[:, None] - means
        return np.einsum("ncd,de,nce->nc", gap, inverse, gap).min(axis=1)

    moved = x - EPS * sign_of_slope(distance, x)
    np.testing.assert_allclose(detector.score(batch), distance(moved), rtol=1e-5)
    assert (distance(moved) < distance(x)).mean() > 0.9, "the step has to go towards the class"
    h = batch.features
    np.testing.assert_allclose(
        slope(detector.distance, h)[:, 3],  # of one feature
        (_distance(detector, h, 1e-5) - _distance(detector, h, -1e-5)) / 2e-5,
        rtol=1e-4,
        atol=1e-4 * np.abs(slope(detector.distance, h)).max(),
    )


def _distance(detector, features: np.ndarray, step: float) -> np.ndarray:
    changed = features.copy()
    changed[:, 3] += step
    return detector.distance.score(Activations(np.zeros((len(features), 5)), changed))


def test_adascale() -> None:
    """Algorithm 1 of the paper, image by image; k1 is the shift's share, k2 the correction's."""
    detector, batch, x = ready("adascale", size=0.3)
    model, d = on().model, 40

    def shift(x: np.ndarray) -> np.ndarray:
        winner = model.forward(x).logits.argmax(axis=1)
        g = slopes(lambda x: model.forward(x).logits[np.arange(len(x)), winner], x)
        found = []
        for i in range(len(x)):
            few = np.argsort(np.abs(g[i].ravel()), kind="stable")[: max(1, int(0.05 * g[i].size))]
            changed = x[i].ravel().copy()
            changed[few] += 0.3 * np.sign(g[i].ravel()[few])
            f, h = model.forward(x[i : i + 1]).features[0], model.forward(changed.reshape(1, 1, -1, 1)).features[0]
            top = np.argsort(-f)
            q = np.abs(f - h)[top[: max(1, int(0.01 * d))]].sum()
            found.append(10 * q + np.maximum(h, 0)[top[: int(0.05 * d)]].sum())
        return np.array(found)

    known, mine = shift(on().inputs["train"]), shift(x)
    want = []
    for q, f in zip(mine, batch.features, strict=True):
        p = 75 + (1 - (known <= q * (1 + 1e-6)).mean()) * 10
        top = np.sort(f)[::-1][: d - round(d * p / 100)]
        z = on().head((f * np.exp(f.sum() / top.sum()))[None])[0]
        want.append(-np.log(np.exp(z - z.max()).sum()) - z.max())
    np.testing.assert_allclose(batch.extra[detector.passes[0].name + "/shift"][:, 0], mine, rtol=1e-5)
    np.testing.assert_allclose(detector.score(batch), want, rtol=1e-6)
    assert int(0.05 * d) == 2, "k1 and k2 count differently here: swapping them would show"


def test_adascale_counts_a_known_image_as_no_stranger_than_itself() -> None:
    detector, batch, _ = ready("adascale", low=0, high=95)
    at = replace(detector, reference=np.array([1.0, 2.0]))
    path = detector.passes[0].name + "/shift"
    seen = replace(batch, extra={path: np.full((len(batch), 1), 2.0)})  # F = 1, so p = low: everything is kept
    energy = ready("energy")[0]
    scaled = replace(seen, logits=at.head(batch.features * np.e))
    np.testing.assert_allclose(at.score(seen), energy.score(scaled), rtol=1e-9)


def test_grad_uncertainty_is_the_gradient_of_the_head() -> None:
    import torch

    detector, batch, _ = ready("grad-uncertainty")
    want = []
    for f in torch.from_numpy(batch.features):
        weight = torch.from_numpy(on().head.weight).requires_grad_()
        bias = torch.from_numpy(on().head.bias).requires_grad_()
        p = torch.softmax(weight @ f + bias, dim=0)
        torch.nn.functional.binary_cross_entropy(p, torch.ones_like(p), reduction="sum").backward()
        want.append(-float((weight.grad**2).sum() + (bias.grad**2).sum()))
    np.testing.assert_allclose(detector.score(batch), want, rtol=1e-6)
    assert not detector.passes


@pytest.mark.parametrize("of", ["entropy", "variance"])
def test_mc_dropout(of: str) -> None:
    detector, batch, x = ready("mc-dropout", count=6, seed=3, of=of)
    p = np.stack([softmax(on().model.dropped(x, 3 * 1_000_003 + i)) for i in range(6)])
    mean = p.mean(axis=0)
    want = -(mean * np.log(mean)).sum(axis=1) if of == "entropy" else p.var(axis=0).mean(axis=1)
    np.testing.assert_allclose(detector.score(batch), want, rtol=1e-4, atol=1e-7)


def test_mc_dropout_is_finite_where_every_pass_is_sure() -> None:
    detector, _, _ = ready("mc-dropout")
    sure = np.eye(3, dtype=np.float32)
    score = detector.score(Activations(sure, extra={detector.passes[0].name + "/mean": sure}))
    np.testing.assert_allclose(score, 0, atol=1e-6)


# Units and signs


@pytest.mark.parametrize(
    ("way", "layout", "want"),
    [
        (None, "NHWC", [1.0]),
        (Preprocess(scale=1 / 255), "NHWC", [1.0]),
        (Preprocess(scale=1.0), "NCHW", [[[255.0]]]),
        (Preprocess(scale=1 / 255, mean=(0.5,) * 3, std=(0.2, 0.25, 0.5)), "NHWC", [5.0, 4.0, 2.0]),
        (Preprocess(scale=1 / 255, mean=(0.5,) * 3, std=(0.2, 0.25, 0.5)), "NCHW", [[[5.0]], [[4.0]], [[2.0]]]),
    ],
)
def test_eps_is_of_the_range_of_pixel_values(way: Preprocess | None, layout: str, want: list) -> None:
    """As in ODIN's own code, which divides by the deviation that the input was normalised by."""

    class Silent:
        preprocess, input = None, InputSpec(4, 4, 3, layout)

    np.testing.assert_allclose(span(Silent(), way), want, rtol=1e-6)
    Silent.preprocess = way
    np.testing.assert_allclose(span(Silent(), None), want, rtol=1e-6)  # what the model says


def test_small_derivatives_do_not_vanish() -> None:
    x = on().inputs["known"][:5]
    logits = np.random.default_rng(0).normal(size=(5, 5))
    np.testing.assert_array_equal(
        direction(on().model, x, {"logits": logits * 1e-60}), direction(on().model, x, {"logits": logits})
    )
    assert not direction(on().model, x, {"logits": 0 * logits}).any()
    with np.errstate(all="raise"):  # one over the largest would be infinite
        least = direction(on().model, x, {"logits": np.sign(logits) * 1e-310})
    np.testing.assert_array_equal(least, direction(on().model, x, {"logits": np.sign(logits)}))


# From images to verdicts


@pytest.fixture(scope="module")
def data():
    return toy.known(300, 10), toy.known(150, 11), toy.unknown(40)


FIT = {"guarantee": "marginal", "progress": False}


@pytest.mark.parametrize("name", ["odin", "mahalanobis-odin", "adascale", "mc-dropout", "grad-uncertainty"])
def test_fit_predict_save_load(name: str, data, tmp_path) -> None:
    (x, y), held, unknown = data
    net = torch_net()
    osc = knownot.fit(knownot.open_model(net, size=(16, 16)), x, y, calibration=held[0], detector=name, **FIT)
    found = osc.predict(unknown)
    assert np.isfinite(found.score).all()
    one_by_one = osc.predict(unknown[::-1], batch_size=7)
    np.testing.assert_allclose(one_by_one.score[::-1], found.score, rtol=1e-3, atol=1e-5 + 1e-3 * np.ptp(found.score))
    osc.save(tmp_path / "osc")
    np.testing.assert_array_equal(knownot.load(tmp_path / "osc").predict(unknown).score, found.score)


def test_preprocessing_decides_the_step(data) -> None:
    """The same pixels move by the same share, whatever the classifier's own input is."""
    (x, y), held, unknown = data
    scores = []
    for scale in (1 / 255, 1.0):
        net = torch_net()
        with __import__("torch").no_grad():
            net[0].weight *= 1 / 255 / scale
        way = Preprocess(16, 16, scale=scale)
        model = knownot.open_model(net, size=(16, 16))
        osc = knownot.fit(model, x, y, calibration=held[0], detector=configure("odin", eps=0.02), preprocess=way, **FIT)
        scores.append(osc.predict(unknown).score)
        still = configure("odin", eps=0.0)
        plain = knownot.fit(model, x, y, calibration=held[0], detector=still, preprocess=way, **FIT)
        assert np.abs(plain.predict(unknown).score - scores[-1]).max() > 1e-4
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3, atol=1e-6)


def test_held_out_images_get_their_passes_too(data) -> None:
    (x, y), _, unknown = data
    model = knownot.open_model(torch_net(), size=(16, 16))
    for name in ("odin", "adascale"):
        assert np.isfinite(knownot.fit(model, x, y, detector=[name, "gen"], **FIT).predict(unknown).score).all()
    with pytest.raises(OptionError, match="Give calibration= images"):
        knownot.fit(model, x, y, detector="mahalanobis-odin", **FIT)


def test_in_a_combination_and_side_by_side(data) -> None:
    (x, y), held, unknown = data
    model = knownot.open_model(torch_net(), size=(16, 16))
    names = ["energy", "odin", "mahalanobis-odin", "adascale"]
    found = compare(
        model, x, y, calibration=held, test={"new": toy.known(60, 12)}, unknown={"u": unknown}, detectors=names, **FIT
    )
    assert not found.left_out
    alone = knownot.fit(model, x, y, calibration=held[0], calibration_labels=held[1], detector="odin", **FIT)
    np.testing.assert_allclose(found.scores["u"]["odin"], alone.predict(unknown).score, rtol=1e-4, atol=1e-6)
    both = knownot.fit(model, x, y, calibration=held[0], detector=names, **FIT).predict(unknown)
    assert both.member_p_values.shape == (40, 4)


def test_onnx_says_what_works(data) -> None:
    (x, y), held, unknown = data
    model = knownot.open_model(toy.graph())
    with pytest.raises(
        UnsoundError, match=r"needs the classifier's gradient.*PyTorch classifiers.*Keras.*work here: default"
    ):
        knownot.fit(model, x, y, calibration=held[0], detector="odin", **FIT)
    with pytest.raises(UnsoundError, match="that have dropout layers"):
        knownot.fit(model, x, y, calibration=held[0], detector="mc-dropout", **FIT)
    found = compare(
        model, x, y, calibration=held, test={"new": held}, unknown={"u": unknown}, detectors=["odin", "gen"], **FIT
    )
    assert "PyTorch" in found.left_out["odin"]


class Counting(Toy):
    def forward(self, batch, maps=()):
        self.there = getattr(self, "there", 0) + 1
        return super().forward(batch, maps)

    def gradient(self, batch, toward):
        self.back = getattr(self, "back", 0) + 1
        return super().gradient(batch, toward)


def test_passes_are_made_once_and_only_for_those_who_ask() -> None:
    own = on().model
    model = Counting(own.first, own.second, own.head, own.capabilities, own.dtype)
    x = on().inputs["known"][:4]
    energy, odin, again = (ready(name)[0] for name in ("energy", "odin", "odin"))
    assert with_extra_passes(model, energy.passes, None) is model
    seen = with_extra_passes(model, (*odin.passes, *again.passes), None).forward(x)
    assert (model.there, model.back) == (2, 1)
    assert np.isfinite(odin.score(seen)).all()


def test_an_image_of_nan_spoils_no_other() -> None:
    x = on().inputs["known"][:4].copy()
    x[1] = np.nan
    odin = ready("odin")[0]
    seen = with_extra_passes(on().model, odin.passes, None).forward(x)
    assert seen.finite().tolist() == [True, False, True, True]
    whole = with_extra_passes(on().model, odin.passes, None).forward(np.delete(x, 1, axis=0))
    np.testing.assert_allclose(odin.score(seen.take(seen.finite())), odin.score(whole), rtol=1e-9)  # another batch


def test_activations_without_the_pass_are_refused() -> None:
    odin, batch, _ = ready("odin")
    with pytest.raises(InputError, match="lack what the extra pass"):
        odin.score(replace(batch, extra={}))
    other = ready("odin", eps=0.5)[1]  # another step's results are not taken for these
    with pytest.raises(InputError, match="lack what the extra pass"):
        odin.score(other)


def test_what_is_not_shaped_is_not_said_to_be() -> None:
    from knownot.detectors import ODIN, ReAct, Shaped

    with pytest.raises(OptionError, match="changed images"):
        Shaped.recipe(shaper=ReAct.recipe(), detector=ODIN.recipe()).required_statistics(on().capabilities)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("odin", {"temperature": 0}),
        ("odin", {"eps": -0.1}),
        ("mahalanobis-odin", {"eps": 2}),
        ("adascale", {"low": 90, "high": 80}),
        ("adascale", {"high": 100}),
        ("mc-dropout", {"count": 1}),
        ("mc-dropout", {"of": "mean"}),
    ],
)
def test_options_out_of_range(name: str, options: dict) -> None:
    with pytest.raises(OptionError):
        configure(name, **options).required_statistics(on().capabilities)

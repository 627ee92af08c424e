"""Learning from the stream, from virtual outliers, and against a generator."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp, softmax

import knownot
from helpers import toy
from helpers.networks import of, torch_of
from knownot import remedies
from knownot.arrays import Activations
from knownot.checks.detectors import CHECKS, check_detector, problem
from knownot.detectors import WeightedEnergy, given
from knownot.errors import ImagesError, OptionError, UnsoundError
from knownot.measure import auroc
from knownot.remedies.methods import discriminator as adversarial
from knownot.remedies.methods import stream as wild
from knownot.remedies.methods import vos as virtual
from knownot.remedies.training import mlp as core
from knownot.remedies.training.activations import look, places_of
from knownot.remedies.training.gradients import LastLayer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return knownot.open_model(toy.saved(tmp_path_factory.mktemp("toy")))


@pytest.fixture(scope="module")
def images():
    return {"known": toy.known(400, 1), "validation": toy.known(200, 2), "test": toy.known(300, 3)}


def green(n, seed=0):
    """Pictures that are near to the known ones: the same noise, another colour."""
    return np.clip(np.random.default_rng(seed).normal((110, 150, 110), 12, (n, 16, 16, 3)), 0, 255).astype(np.uint8)


def mixture(share, n=400, seed=7):
    """A stream: known images and green ones."""
    unknown = round(share * n)
    both = np.concatenate([toy.known(n - unknown, seed)[0], green(unknown, seed)])
    return both[np.random.default_rng(seed).permutation(n)]


def streamed(model, images, stream, **options):
    x, y = images["validation"]
    settings = {"epochs": 10, "progress": False, "batch_size": 32, **options}
    return remedies.from_stream(model, *images["known"], wild=stream, validation=x, validation_labels=y, **settings)


def scores(got, x):
    return np.asarray(got.detector.score(got.opened.forward(got.opened.input.to_layout(np.float32(x / 255)))))


# Gradients of the last layer


def case(n=30, c=4, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(n, c)) * 2, rng.integers(0, c, n)


def test_gradients_are_those_of_torch():
    import torch

    f, _, y = case()
    rng = np.random.default_rng(1)
    w, b = rng.normal(size=(4, 6)), rng.normal(size=4)
    whole = []
    for row, label in zip(f, y, strict=True):
        tw, tb = torch.tensor(w, requires_grad=True), torch.tensor(b, requires_grad=True)
        torch.nn.functional.cross_entropy((tw @ torch.tensor(row) + tb)[None], torch.tensor([label])).backward()
        whole.append(np.concatenate([tw.grad.numpy(), tb.grad.numpy()[:, None]], axis=1))
    whole = np.stack(whole)  # [n, c, d + 1]
    got = LastLayer.of(f, f @ w.T + b, y)
    v, u = rng.normal(size=(4, 7)), rng.normal(size=30)
    np.testing.assert_allclose(got.mean(), whole.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(got.times(v), np.einsum("ncd,cd->n", whole, v), atol=1e-12)
    np.testing.assert_allclose(got.back(u), np.einsum("ncd,n->cd", whole, u), atol=1e-12)


@pytest.mark.parametrize("reference", [False, True])
def test_the_direction_is_the_top_singular_vector(reference):
    f, logits, y = case(n=50)
    less = LastLayer.of(*case(seed=3)).mean() if reference else None
    got = LastLayer.of(f, logits, y, less)
    rows = np.stack([got.times(e.reshape(4, 7)) for e in np.eye(28)], axis=1)
    top = np.linalg.svd(rows)[2][0]
    v = got.direction().ravel()
    assert abs(v @ top) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(v) == pytest.approx(1)


def test_chunks_do_not_change_gradients(monkeypatch):
    got = LastLayer.of(*case())
    v = np.random.default_rng(0).normal(size=(4, 7))
    whole = got.times(v)
    monkeypatch.setattr("knownot.remedies.training.gradients.CHUNK", 9)
    np.testing.assert_allclose(got.times(v), whole, rtol=1e-12)


def test_no_gradient_at_all():
    """Rows that are all alike, less themselves: nothing to iterate on, and no NaN."""
    f, logits, y = (np.repeat(x[:1], 5, axis=0) for x in case())
    alone = LastLayer.of(f, logits, y)
    assert np.isfinite(LastLayer.of(f, logits, y, alone.mean()).direction()).all()


# The stream


@pytest.mark.parametrize("filter_", ["default", "gradient"])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_it_learns_the_unknown_of_the_mixture_and_known_images_are_not_hurt(filter_, share, model, images):
    """The law: over draws, new images like the unknown ones are rejected, and known images as promised."""
    found = []
    for seed in (7, 8):
        got = streamed(model, images, mixture(share, seed=seed), filter=filter_, seed=seed)
        assert got.opened is model
        assert got.accuracy_before == got.accuracy_after
        osc = knownot.fit(
            got.opened, *images["known"], calibration=toy.known(300, 11)[0], detector=got.recipe, progress=False,
            guarantee="marginal",
        )  # fmt: skip
        test, unknown = osc.predict(images["test"][0]), osc.predict(green(100, 5))
        found.append(((unknown.label == -1).mean(), (test.label == -1).mean()))
    caught, alarms = np.mean(found, axis=0)
    assert caught > 0.95
    assert alarms < 0.05 + 2 * np.sqrt(0.05 * 0.95 * (1 / 600 + 1 / 300))


def test_a_stream_without_labels_of_known_images_only(model, images):
    with pytest.raises(ImagesError, match=r"of 100 images of the stream were taken.*nothing to learn"):
        streamed(model, images, toy.known(100, 5)[0])


def test_the_whole_stream_is_looked_at_once(model, images, monkeypatch):
    """Twice as many images cost as many passes more, whatever the number of known images."""
    passed = []
    forward = type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda self, x, maps=(): (passed.append(len(x)), forward(self, x))[1])
    stream, sums = mixture(0.5, n=900), []
    for n in (450, 900):
        passed.clear()
        assert f"of {n} images" in streamed(model, images, stream[:n], epochs=1).notes[-1]
        sums.append(sum(passed))
    assert sums[1] - sums[0] == 450


def test_the_filter_takes_what_validation_images_stay_below(model, images):
    tau = {"default": wild.by_default, "gradient": wild.by_gradient}
    for name, function in tau.items():
        seen_ = {}

        def spy(task, seen, name=name, function=function, seen_=seen_):
            seen_[name] = function(task, seen)
            return seen_[name]

        wild.FILTERS[name] = spy
        try:
            got = streamed(model, images, mixture(0.5), filter=name, epochs=1, kept=0.9)
        finally:
            wild.FILTERS[name] = function
        validation, stream = seen_[name]
        assert len(validation) == 200
        over = (stream > np.sort(validation)[int(np.ceil(0.9 * 199))]).sum()
        assert f"{over} of 400" in got.notes[-1]


def test_the_default_filter_is_the_default_detector(model, images):
    """Fitted on the same known images and ranked on the validation images by hand, it gives the same scores."""
    task = of(model, images, outliers=mixture(0.5))
    validation, stream = wild.by_default(task, look(task, (*places_of(model), "logits")))
    osc = knownot.fit(
        model, *images["known"], calibration=images["validation"][0], progress=False, guarantee="marginal"
    )

    def parts(x):
        return osc.scores(model.forward(model.input.to_layout(np.float32(x / 255))))[1]

    ranked = osc.detector.fit_reference(parts(images["validation"][0]))
    for mine, x in (
        (validation, images["validation"][0]),
        (stream, mixture(0.5)),
    ):  # the stream is drawn in its own order
        np.testing.assert_allclose(np.sort(mine), np.sort(ranked.combine(parts(x))), rtol=0.02, atol=0.05)


def test_options_of_the_stream(model, images):
    for options, message in (
        ({"filter": "x"}, "filter='x'"),
        ({"kept": 0.2}, "kept=0.2"),
        ({"hidden": -1}, "hidden=-1"),
    ):
        with pytest.raises(OptionError, match=message):
            streamed(model, images, mixture(0.5), **options)


# Virtual outliers


def test_the_loss_of_virtual_outliers_and_its_gradients():
    rng = np.random.default_rng(0)
    logits, unknown = rng.normal(size=(9, 3)) * 2, np.arange(9) >= 6
    arrays = [rng.normal(size=3), np.array([0.3]), np.array([-0.4])]

    def value(flat):
        u, log_a, b = flat[:3], flat[3], flat[4]
        s = 1 / (1 + np.exp(-(np.exp(log_a) * -logsumexp(logits + u, axis=1) + b)))
        return -0.5 * np.log(1 - s[~unknown]).mean() - 0.5 * np.log(s[unknown]).mean()

    got, gradients = virtual.loss(arrays, logits, unknown)
    flat = np.concatenate(arrays)
    assert got == pytest.approx(value(flat))
    numeric = [(value(flat + e) - value(flat - e)) / 2e-6 for e in np.eye(5) * 1e-6]
    np.testing.assert_allclose(np.concatenate(gradients), numeric, atol=1e-8)


def test_a_class_that_virtual_outliers_resemble_loses_its_weight():
    """Closed form of the case: outliers have a large logit of class 2, which no known image has."""
    rng = np.random.default_rng(0)
    known = rng.normal(size=(400, 3)) + 8 * np.eye(3)[rng.integers(0, 2, 400)]
    made = rng.normal(size=(400, 3)) + 8 * np.eye(3)[np.full(400, 2)]
    u, history = virtual.learnt(known, made)
    assert u.mean() == pytest.approx(0)
    assert u[2] < u[0] - 3
    assert history[-1]["loss"] < history[0]["loss"]
    plain, weighted = (WeightedEnergy(w) for w in (np.zeros(3), u))
    before, after = (auroc(d.score(Activations(known)), d.score(Activations(made))) for d in (plain, weighted))
    assert before < 0.6
    assert after > 0.95
    np.testing.assert_allclose(plain.score(Activations(known)), -logsumexp(known, axis=1))


@pytest.mark.usefixtures("quick_graphs")
@pytest.mark.parametrize("name", CHECKS)
def test_weighted_energy_keeps_the_promises_of_a_detector(name):
    on = problem()
    check_detector(given(WeightedEnergy(np.linspace(-0.2, 0.2, 5))), on=on, only=name)


def test_vos_needs_what_it_reads(model, images):
    """An energy of probabilities means nothing, and this is told, not computed."""
    x, y = images["validation"]
    less = copy.copy(model)
    less.capabilities = replace(model.capabilities, outputs=model.capabilities.outputs - {"logits"})
    with pytest.raises(UnsoundError, match="probabilities only"):
        remedies.vos(less, *images["known"], validation=x, validation_labels=y, progress=False)
    with pytest.raises(OptionError, match="learns without outliers"):
        remedies.vos(model, *images["known"], outliers="made:all", progress=False)


def test_vos_through_the_door(images, tmp_path):
    import onnx

    graph = toy.graph()
    del graph.graph.node[-1]  # the softmax
    graph.graph.output[0].name = "z"
    onnx.save(graph, tmp_path / "logits.onnx")
    x, y = images["validation"]
    got = remedies.vos(tmp_path / "logits.onnx", *images["known"], validation=x, validation_labels=y, progress=False)
    assert isinstance(got.detector, WeightedEnergy)
    assert got.detector.weights.shape == (4,)
    osc = got.fit(*images["known"], calibration=x, progress=False, guarantee="marginal")
    again = knownot.load(osc.save(tmp_path / "osc"))
    np.testing.assert_array_equal(again.predict(green(9)).score, osc.predict(green(9)).score)


# Against a generator


def gan(model, images, **options):
    x, y = images["validation"]
    settings = {"outliers": "made:noise", "epochs": 6, "batch_size": 64, "progress": False, "hidden": (32,), **options}
    return remedies.opengan(model, *images["known"], validation=x, validation_labels=y, **settings)


@pytest.mark.parametrize("learn", [True, False])
def test_opengan_learns_and_takes_the_best_epoch(learn, model, images):
    got = gan(model, images, learn=learn, epochs=12)
    best = int(np.argmax([line["auroc"] for line in got.history]))
    assert f"Epoch {best + 1} of 12" in got.notes[-1]
    unknown = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    if learn:
        assert auroc(scores(got, images["test"][0]), scores(got, unknown)) > 0.95
    fewer = gan(model, images, learn=learn, epochs=12, seed=0)
    np.testing.assert_array_equal(fewer.detector.weights[0], got.detector.weights[0])


def test_the_epoch_that_is_chosen_is_the_one_whose_weights_come_back(model, images, monkeypatch):
    """With an AUROC that is best at the third epoch, the outcome is what the third epoch left."""
    values = iter([0.2, 0.4, 0.9, 0.5, 0.6, 0.7])
    monkeypatch.setattr(adversarial, "auroc", lambda *_: next(values))
    snapshots = []
    step = adversarial.Game.step

    def stepping(self, *args):
        found = step(self, *args)
        snapshots.append(self.discriminator.weights[0].copy())
        return found

    monkeypatch.setattr(adversarial.Game, "step", stepping)
    got = gan(model, images)
    per = len(snapshots) // 6
    np.testing.assert_array_equal(got.detector.weights[0], snapshots[3 * per - 1].astype(np.float64))
    assert got.notes[-1].startswith("Epoch 3 of 6")


def test_one_step_of_both_is_that_of_torch():
    import torch

    rng = np.random.default_rng(0)
    known, unknown = rng.normal(size=(2, 8, 5))
    game = adversarial.Game(known, unknown, (7,), remedies.Settings(batch_size=8, learning_rate=0.01))
    game.discriminator, game.generator = (
        net.with_arrays([a.astype(np.float64) + rng.normal(size=a.shape) * 0.3 for a in net.arrays])
        for net in (game.discriminator, game.generator)
    )
    game.adams = [core.Adam(net.arrays, betas=adversarial.BETAS) for net in (game.discriminator, game.generator)]
    d, g = torch_of(game.discriminator), torch_of(game.generator)
    noise = rng.normal(size=(2, 8, adversarial.NOISE))
    loss = game.step(known, unknown, noise)

    bce = torch.nn.functional.binary_cross_entropy_with_logits
    opts = [torch.optim.Adam(net.parameters(), lr=0.01, betas=(0.5, 0.999)) for net in (d, g)]
    fake = g(torch.tensor(noise[0])).detach()
    other = torch.cat([torch.tensor(unknown), fake])
    value = bce(d(torch.tensor(known)), torch.zeros(8, 1).double()) / 2 + bce(d(other), torch.ones(16, 1).double()) / 2
    value.backward()
    opts[0].step()
    made = d(g(torch.tensor(noise[1])))
    opts[1].zero_grad()
    bce(made, torch.zeros(8, 1).double()).backward()
    opts[1].step()
    assert loss == pytest.approx(float(value.detach()))
    for mine, theirs in ((game.discriminator, d), (game.generator, g)):
        np.testing.assert_allclose(mine.weights[0], next(iter(theirs.parameters())).detach().numpy().T, rtol=1e-7)


def test_opengan_interrupted_and_resumed(model, images, tmp_path, monkeypatch):
    whole = gan(model, images, folder=tmp_path / "whole")
    step, count = adversarial.Game.step, [0]

    def stopping(self, *args):
        count[0] += 1
        if count[0] == 20:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(adversarial.Game, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        gan(model, images, folder=tmp_path / "cut")
    monkeypatch.setattr(adversarial.Game, "step", step)
    resumed = gan(model, images, folder=tmp_path / "cut")
    assert resumed.history == whole.history
    np.testing.assert_array_equal(resumed.detector.weights[0], whole.detector.weights[0])


def test_outliers_that_choose_the_epoch_are_not_trained_on():
    rows = np.repeat(np.arange(40.0)[:, None], 3, axis=0)  # each drawn three times
    chosen, rest = adversarial.held_out(rows, 0)
    assert not set(chosen.ravel()) & set(rest.ravel())
    assert len(chosen) == 24
    assert len(chosen) + len(rest) == 120


def test_too_few_outliers(model, images):
    with pytest.raises(ImagesError, match="outliers are too few"):
        gan(model, images, outliers=green(20))


def test_softmax_of_a_shifted_logit_is_what_the_gradient_reads():
    f, logits, y = case()
    np.testing.assert_allclose(LastLayer.of(f, logits + 100.0, y).error, LastLayer.of(f, logits, y).error, atol=1e-12)
    np.testing.assert_allclose(LastLayer.of(f, logits, y).error, softmax(logits, axis=1) - np.eye(4)[y], atol=1e-12)
    assert replace(Activations(logits), features=f).features is f

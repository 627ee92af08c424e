"""Classifier, generator and discriminator trained together (Lee et al. 2018), in PyTorch and in Keras."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import helpers.remedies  # noqa: F401  (it chooses Keras' backend)
import knownot
from helpers import toy
from helpers.joint import Small, joint, keras_small, opened_of, weights
from knownot import remedies
from knownot.errors import ModelError, OptionError
from knownot.measure import auroc
from knownot.remedies import retraining
from knownot.remedies.keras import joint as keras_joint
from knownot.remedies.torch import joint as torch_joint
from knownot.remedies.training import adversary as against
from knownot.remedies.training.batches import Plan
from knownot.remedies.training.data import Pool

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


MODELS = {"torch": lambda: Small().eval(), "keras": keras_small}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.fixture(scope="module")
def images():
    return {"known": toy.known(192, 1), "validation": toy.known(200, 2)}


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """A quick generator."""
    monkeypatch.setattr(against, "CHANNELS", 16)


def head_of(model):
    return np.array(model.get_layer("head").kernel if hasattr(model, "get_weights") else model.head.weight.detach())


class Kept:
    """The trainers that are made, whatever the framework. changed: what is done to each, before it trains."""

    def __init__(self, monkeypatch, changed=lambda trainer: None):
        self.trainers = []
        for module in (torch_joint, keras_joint):
            monkeypatch.setattr(module, "joint_trainer", self._keeping(module.joint_trainer, changed))

    def _keeping(self, make, changed):
        def kept(*args):
            trainer = make(*args)
            changed(trainer)
            self.trainers.append(trainer)
            return trainer

        return kept

    def made(self, n=100):
        """What its generator makes in the end, in the classifier's layout."""
        z = np.random.default_rng(0).standard_normal((n, against.NOISE), dtype=np.float32)
        if hasattr(self.trainers[0], "adversaries"):
            with torch.no_grad():
                return self.trainers[0].adversaries["generator"](torch.tensor(z)).numpy()
        return np.array(self.trainers[0].generator.predict(z, verbose=0))


def makers(pool, channels, layout):
    """The generator of either framework, as a function of noise."""
    one = torch_joint.Generator(pool, channels, layout)
    other = keras_joint.build_generator(pool, channels, layout)
    return {
        "torch": lambda z: one(torch.tensor(z)).detach().numpy(),
        "keras": lambda z: np.array(other.predict(z, verbose=0)),
    }


@pytest.mark.parametrize("framework", MODELS)
@pytest.mark.parametrize("side", [16, 12])
def test_the_generator_makes_images_as_the_classifier_takes_them(framework, side):
    x, y = np.zeros((2, side, side, 3), np.uint8), np.zeros(2, int)
    pool = Pool(x, y, knownot.Preprocess(side, side, scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 0.5)))
    z = np.random.default_rng(0).standard_normal((7, against.NOISE), dtype=np.float32)
    black, white = ([(v - m) / s for m, s in ((0.5, 0.25), (0.4, 0.5), (0.3, 0.5))] for v in (0, 1))
    for layout, shape in (("NCHW", (7, 3, side, side)), ("NHWC", (7, side, side, 3))):
        made = makers(pool, 3, layout)[framework](z)
        assert made.shape == shape
        made = made if layout == "NHWC" else made.transpose(0, 2, 3, 1)
        assert (made >= np.array(black) - 1e-5).all()
        assert (made <= np.array(white) + 1e-5).all()
    low, span = against.pixel_range(pool, 3)
    np.testing.assert_allclose([low, low + span], [black, white])
    floats = Pool(np.linspace(-2, 3, 2 * 16 * 16 * 3, dtype=np.float32).reshape(2, 16, 16, 3), y, None)
    low, span = against.pixel_range(floats, 3)
    assert low.min() == -2
    assert (low + span).max() == 3


def test_it_becomes_unsure_of_what_is_made_and_stays_right(model, images, monkeypatch, tmp_path):
    kept = Kept(monkeypatch)
    before = weights(model)
    got = joint(model, images, epochs=10, learning_rate=5e-4, tolerance=0.1)
    assert got.accuracy_after > 0.9
    for a, b in zip(weights(model), before, strict=True):
        np.testing.assert_array_equal(a, b)  # the user's is as it was
    assert not np.array_equal(head_of(got.model), head_of(model))
    x = kept.made()
    logits = [opened.activations(x).logits for opened in (opened_of(model), got.opened)]
    sure = [np.exp(z - np.logaddexp.reduce(z, axis=1, keepdims=True)).max(axis=1).mean() for z in logits]
    assert sure[1] < 0.8 * sure[0]
    assert type(got.model) is type(model)
    acts = got.opened.activations(x)
    osc = got.fit(*images["known"], calibration=toy.known(200, 8)[0], progress=False, guarantee="marginal")
    assert osc.detector.members[-1] == "joint"
    folder = got.save(tmp_path / "saved")
    loaded = remedies.load(folder)
    np.testing.assert_allclose(loaded.detector.score(acts), got.detector.score(acts))
    again = knownot.fit(folder, *images["known"], calibration=toy.known(200, 8)[0], progress=False)
    assert again.detector.members[-1] == "joint"
    np.testing.assert_allclose(again.model.activations(x).logits, acts.logits, rtol=1e-4, atol=1e-4)


def test_a_generator_that_does_not_learn_is_recognised(model, images, monkeypatch):
    """So the sign is right: what is made scores higher."""
    moved = keras_joint.JointTrainer._moved
    monkeypatch.setattr(torch_joint.JointTrainer, "_generator_step", lambda self, noise: None)
    monkeypatch.setattr(
        keras_joint.JointTrainer, "_moved",
        lambda self, slopes, player, loss: None if player == 2 else moved(self, slopes, player, loss),
    )  # fmt: skip
    monkeypatch.setattr(against, "RATE", 5e-3)  # 32 steps are few
    kept = Kept(monkeypatch)
    got = joint(model, images, epochs=8, beta=0.0)
    x = kept.made()
    known = np.float32(toy.known(100, 5)[0] / 255)
    scores = [np.asarray(got.detector.score(got.opened.activations(a))) for a in (known, x)]
    assert auroc(*scores) > 0.95


@pytest.mark.parametrize("after", [0, 4])
def test_interrupted_and_resumed_is_as_if_nothing_had_been(after, model, images, tmp_path, monkeypatch):
    whole = joint(model, images)
    drawn = Plan.images

    def stopping(self, step):
        if step == after and len(self.known) == len(images["known"][0]):
            raise KeyboardInterrupt
        return drawn(self, step)

    monkeypatch.setattr(Plan, "images", stopping)
    with pytest.raises(KeyboardInterrupt):
        joint(model, images, folder=tmp_path, save_every=2)
    monkeypatch.setattr(Plan, "images", drawn)
    resumed = joint(model, images, folder=tmp_path, save_every=2)
    for a, b in zip(weights(whole.model), weights(resumed.model), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(whole.detector.weights, resumed.detector.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.history == resumed.history


def test_the_discriminator_does_not_move_the_classifier(model, images):
    """Without the divergence, the classifier is trained as it would be alone."""
    alone = joint(model, images, beta=0.0, hidden=(8,))
    other = joint(model, images, beta=0.0, hidden=(32, 16))
    for a, b in zip(weights(alone.model), weights(other.model), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5)
    with_it = joint(model, images, beta=1.0, hidden=(8,))
    assert not np.allclose(head_of(with_it.model), head_of(alone.model), atol=1e-6)


def adversaries_of(trainer):
    """[(weights, biases)] of the layers of discriminator and generator."""
    if isinstance(trainer, keras_joint.JointTrainer):
        nets = (trainer.discriminator, trainer.generator)
        return [(layer.kernel, layer.bias) for net in nets for layer in net.layers if hasattr(layer, "kernel")]
    nets = [trainer.adversaries[name] for name in ("discriminator", "generator")]
    return [(m.weight, m.bias) for net in nets for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]


def same_values(trainer, start):
    """Give a torch trainer the weights of a Keras one, [(kernel, bias)]."""
    for (weight, bias), (kernel, other) in zip(adversaries_of(trainer), start, strict=True):
        turned = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        if kernel.shape[0] == against.NOISE:  # its outputs are maps: channels are last there, first here
            form = (against.FIRST, against.FIRST, against.CHANNELS)
            turned = turned.reshape(*form, -1).transpose(2, 0, 1, 3).reshape(len(turned), -1)
            other = other.reshape(form).transpose(2, 0, 1).ravel()
        with torch.no_grad():
            weight.copy_(torch.tensor(turned.copy()))
            bias.copy_(torch.tensor(other.copy()))


def test_both_frameworks_take_the_same_steps(images, monkeypatch):
    """A second source for either: from the same weights, by the same noise, three steps lead to the same."""
    monkeypatch.setattr(against, "RATE", 5e-3)
    noise = torch.randn(3, 2, 64, against.NOISE, generator=torch.Generator().manual_seed(1))
    drawn = iter(noise)
    monkeypatch.setattr(torch_joint.torch, "randn", lambda *shape: next(drawn))
    monkeypatch.setattr(
        keras_joint.JointTrainer, "_noise",
        lambda self, step, n: {f"noise{i}": noise[step, i].numpy() for i in range(2)},
    )  # fmt: skip
    start = []

    def changed(trainer):
        if start:
            same_values(trainer, start)
        else:
            start.extend((np.array(w), np.array(b)) for w, b in adversaries_of(trainer))

    Kept(monkeypatch, changed)
    theirs = joint(keras_small(), images, epochs=1)
    mine = joint(Small().eval(), images, epochs=1)
    for line, other in zip(mine.history, theirs.history, strict=True):
        assert line == pytest.approx(other, rel=1e-4, abs=1e-6)
    for a, b, (w, _) in zip(mine.detector.weights, theirs.detector.weights, start[:2], strict=True):
        moved = np.abs(b - w).mean()
        assert moved > 1e-3
        assert np.abs(a - b).mean() < 0.02 * moved  # Adam takes whole steps where the gradient is nearly zero
    np.testing.assert_allclose(head_of(mine.model).T, head_of(theirs.model), rtol=2e-6, atol=5e-5)


def test_what_costs_accuracy_goes_back_and_the_discriminator_stays(model, images, monkeypatch):
    whole = joint(model, images, tolerance=None)
    shares = iter([0.9, 0.5, 0.85, 0.895])
    monkeypatch.setattr(retraining, "rights", lambda *_: np.arange(1000) < 1000 * next(shares))
    done = joint(model, images)
    assert (done.share, done.accuracy_after) == (0.6, 0.895)
    for own, learnt, got in zip(weights(model), weights(whole.model), weights(done.model), strict=True):
        np.testing.assert_allclose(got, 0.4 * own + 0.6 * learnt, rtol=1e-5, atol=1e-6)
    for a, b in zip(whole.detector.weights, done.detector.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_it_cannot_train_is_told(model, images, tmp_path):
    x, y = images["validation"]
    with pytest.raises(ModelError, match=r"onnx classifier cannot be trained.*'opengan'"):
        remedies.joint(toy.saved(tmp_path), *images["known"], validation=x, validation_labels=y, progress=False)
    with pytest.raises(OptionError, match="beta=-1"):
        joint(model, images, beta=-1)
    with pytest.raises(OptionError, match="mode='head'"):
        joint(model, images, mode="head")

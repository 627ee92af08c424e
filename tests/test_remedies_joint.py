"""Classifier, generator and discriminator trained together (Lee et al. 2018)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import helpers_toy as toy
import knownot
from knownot import remedies
from knownot.errors import ModelError, OptionError
from knownot.measure import auroc
from knownot.remedies import torch_joint


class Small(nn.Module):
    """The toy classifier as a torch module."""

    def __init__(self):
        super().__init__()
        w = {name: torch.tensor(np.asarray(x).copy()) for name, x in toy.weights().items()}
        self.one, self.two = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 24, 3, 2, 1)
        self.head = nn.Linear(24, 4)
        names = {"one": ("w1", "b1"), "two": ("w2", "b2"), "head": ("w", "b")}
        self.load_state_dict(
            {f"{m}.{k}": w[x] for m, pair in names.items() for k, x in zip(("weight", "bias"), pair, strict=True)}
        )

    def forward(self, x):
        return self.head(torch.relu(self.two(torch.relu(self.one(x)))).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def module():
    return Small().eval()


@pytest.fixture(scope="module")
def images():
    return {"known": toy.known(192, 1), "validation": toy.known(200, 2)}


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """A quick generator."""
    monkeypatch.setattr(torch_joint, "CHANNELS", 16)


def joint(module, images, **options):
    x, y = images["validation"]
    settings = {"epochs": 2, "batch_size": 64, "progress": False, "augment": "none", **options}
    return remedies.joint(
        knownot.open_model(module, size=(16, 16)), *images["known"], validation=x, validation_labels=y,
        **{"tolerance": 0.02, **settings},
    )  # fmt: skip


def test_divergence_from_uniform_is_that_of_a_reference():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 4)) * 3
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.mean(np.sum(0.25 * (np.log(0.25) - np.log(p)), axis=1))
    given = torch.tensor(logits, requires_grad=True)
    value = torch_joint.from_uniform(given)
    assert float(value.detach()) == pytest.approx(expected)
    value.backward()
    np.testing.assert_allclose(given.grad, (p - 0.25) / 5, atol=1e-12)  # the closed form of its gradient
    assert float(torch_joint.from_uniform(torch.full((3, 4), 2.0))) == pytest.approx(0, abs=1e-6)


def test_the_generator_makes_images_as_the_classifier_takes_them(images):
    from knownot.arrays import Preprocess
    from knownot.remedies.data import Pool

    x, y = images["known"]
    pool = Pool(x, y, Preprocess(16, 16, scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 0.5)))
    for layout, shape in (("NCHW", (7, 3, 16, 16)), ("NHWC", (7, 16, 16, 3))):
        maker = torch_joint.Maker(pool, 3, layout)
        made = maker(torch.randn(7, torch_joint.NOISE)).detach().numpy()
        assert made.shape == shape
        made = made if layout == "NHWC" else made.transpose(0, 2, 3, 1)
        black, white = ([(v - m) / s for m, s in ((0.5, 0.25), (0.4, 0.5), (0.3, 0.5))] for v in (0, 1))
        assert (made >= np.array(black) - 1e-5).all()
        assert (made <= np.array(white) + 1e-5).all()
    low, span = torch_joint._range(pool, 3)
    np.testing.assert_allclose([low, low + span], [black, white])
    floats = Pool(np.linspace(-2, 3, 2 * 16 * 16 * 3, dtype=np.float32).reshape(2, 16, 16, 3), y[:2], None)
    low, span = torch_joint._range(floats, 3)
    assert low.min() == -2
    assert (low + span).max() == 3


def test_it_becomes_unsure_of_what_is_made_and_stays_right(module, images, monkeypatch, tmp_path):
    kept = []
    made = torch_joint.JointTrainer.__init__
    monkeypatch.setattr(
        torch_joint.JointTrainer, "__init__", lambda self, *args: (kept.append(self), made(self, *args))[1]
    )
    before = {name: x.clone() for name, x in module.state_dict().items()}
    got = joint(module, images, epochs=10, learning_rate=5e-4, tolerance=0.1)
    assert got.accuracy_after > 0.9
    for name, x in module.state_dict().items():
        assert torch.equal(x, before[name])  # the user's is as it was
    assert not torch.equal(got.model.head.weight, before["head.weight"])
    with torch.no_grad():
        x = kept[0].adversaries["maker"](torch.randn(100, torch_joint.NOISE))
        sure = [torch.softmax(m(x), dim=1).max(dim=1).values.mean() for m in (module, got.model)]
    assert sure[1] < sure[0]
    assert sure[1] < 0.8 * sure[0]
    acts = [got.opened.forward(x.numpy())]
    osc = got.fit(*images["known"], calibration=toy.known(200, 8)[0], progress=False, guarantee="marginal")
    assert osc.detector.members[-1] == "joint"
    loaded = remedies.load(got.save(tmp_path / "saved"))
    np.testing.assert_allclose(loaded.detector.score(acts[0]), got.detector.score(acts[0]))


def test_a_generator_that_does_not_learn_is_recognised(module, images, monkeypatch):
    """So the sign is right: what is made scores higher."""
    kept = []
    made = torch_joint.JointTrainer.__init__
    monkeypatch.setattr(
        torch_joint.JointTrainer, "__init__", lambda self, *args: (kept.append(self), made(self, *args))[1]
    )
    monkeypatch.setattr(torch_joint.JointTrainer, "_maker", lambda self, noise: None)
    monkeypatch.setattr(torch_joint, "RATE", 5e-3)  # 32 steps are few
    got = joint(module, images, epochs=8, beta=0.0)
    with torch.no_grad():
        x = kept[0].adversaries["maker"](torch.randn(100, torch_joint.NOISE)).numpy()
    known = np.float32(toy.known(100, 5)[0] / 255).transpose(0, 3, 1, 2)
    scores = [np.asarray(got.detector.score(got.opened.forward(np.ascontiguousarray(a)))) for a in (known, x)]
    assert auroc(*scores) > 0.95


@pytest.mark.parametrize("after", [5])
def test_interrupted_and_resumed_is_as_if_nothing_had_been(after, module, images, tmp_path, monkeypatch):
    whole = joint(module, images)
    step, count = torch_joint.JointTrainer._maker, [0]

    def stopping(self, noise):
        count[0] += 1
        if count[0] == after:
            raise KeyboardInterrupt
        step(self, noise)

    monkeypatch.setattr(torch_joint.JointTrainer, "_maker", stopping)
    with pytest.raises(KeyboardInterrupt):
        joint(module, images, folder=tmp_path, save_every=2)
    monkeypatch.setattr(torch_joint.JointTrainer, "_maker", step)
    resumed = joint(module, images, folder=tmp_path, save_every=2)
    for name, x in whole.model.state_dict().items():
        assert torch.equal(x, resumed.model.state_dict()[name])
    for a, b in zip(whole.detector.weights, resumed.detector.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.history == resumed.history


def test_the_discriminator_does_not_move_the_classifier(module, images, monkeypatch):
    """Without the divergence, the classifier is trained as it would be alone."""
    alone = joint(module, images, beta=0.0, hidden=(8,))
    other = joint(module, images, beta=0.0, hidden=(32, 16))
    for name, x in alone.model.state_dict().items():
        torch.testing.assert_close(x, other.model.state_dict()[name], atol=1e-6, rtol=1e-5)
    with_it = joint(module, images, beta=1.0, hidden=(8,))
    assert not torch.allclose(with_it.model.head.weight, alone.model.head.weight, atol=1e-6)


def test_what_it_cannot_train_is_told(module, images, tmp_path):
    x, y = images["validation"]
    with pytest.raises(ModelError, match=r"trains PyTorch classifiers; this one is of onnx. 'opengan'"):
        remedies.joint(toy.saved(tmp_path), *images["known"], validation=x, validation_labels=y, progress=False)
    with pytest.raises(OptionError, match="beta=-1"):
        joint(module, images, beta=-1)
    with pytest.raises(OptionError, match="mode='head'"):
        joint(module, images, mode="head")

"""Gradients and dropout at work, of torch networks and of Keras on each of its backends, against NumPy in float64."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

if "keras" not in sys.modules:
    os.environ.setdefault("KERAS_BACKEND", "torch")

from helpers import toy
from helpers.gradient_nets import P, keras_net, torch_net
from knownot.errors import OptionError, UnsoundError
from knownot.models import Model, open_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]


def images(n: int = 3) -> np.ndarray:
    return (toy.known(n, 3)[0] / 255).astype(np.float32)  # [n, h, w, k]


def pulls(n: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "logits": rng.normal(size=(n, 4)),
        "features": rng.normal(size=(n, 24)),
        "stages/stage1": rng.normal(size=(n, 24)),
    }


def by_differences(x: np.ndarray, toward: dict[str, np.ndarray], step: float = 1e-6) -> np.ndarray:
    """Of the NumPy network, one pixel at a time, in float64."""
    x = x.astype(np.float64)
    found = np.empty(x.shape)
    moves = step * np.eye(x[0].size).reshape(-1, *x[0].shape)
    for i, image in enumerate(x):
        up, down = (toy.reference(image + sign * moves, _exact()) for sign in (1, -1))
        total = sum(
            (up[name.removeprefix("stages/")] - down[name.removeprefix("stages/")]) @ pull[i]
            for name, pull in toward.items()
        )
        found[i] = total.reshape(x[0].shape) / (2 * step)
    return found


def _exact() -> dict[str, np.ndarray]:
    return {name: w.astype(np.float64) for name, w in toy.weights().items()}


def thinned(x: np.ndarray, seed: int) -> np.ndarray:
    """Logits of the NumPy network whose features are dropped by the mask of this seed."""
    w = _exact()
    keep = np.random.default_rng([seed, 5]).random((1, 24)) >= P
    return toy.reference(x, w)["features"] * keep / (1 - P) @ w["w"].T + w["b"]


# torch


def torch_forms():
    import torch

    example = torch.from_numpy(images(2).transpose(0, 3, 1, 2).copy())
    return {
        "module": torch_net,
        "softmax": lambda: torch_net("softmax"),
        "log-softmax": lambda: torch_net("log-softmax"),
        "script": lambda: torch.jit.script(torch_net()),
        "trace": lambda: torch.jit.trace(torch_net(), example),
        "program": lambda: torch.export.export(torch_net(), (example,)),  # of a fixed batch of two
    }


def check_gradient(model: Model, tolerance: float = 1e-4) -> None:
    x = images()
    batch, toward = model.input.to_layout(x), pulls()
    assert model.gradients == ("logits", "features", *(f"stages/{name}" for name in model.stage_layers))
    for names in (("logits",), ("features",), ("stages/stage1",), tuple(toward)):
        some = {name: toward[name] for name in names}
        got = model.gradient(batch, some)
        assert got.dtype == np.float32
        assert got.shape == batch.shape
        want = model.input.to_layout(by_differences(x, some))
        np.testing.assert_allclose(got, want, atol=tolerance * np.abs(want).max(), rtol=0)
    alone = model.gradient(batch[1:2], {name: v[1:2] for name, v in toward.items()})
    np.testing.assert_allclose(alone, got[1:2], atol=1e-5 * np.abs(got).max(), rtol=0)


def check_dropout(model: Model) -> None:
    x = images()
    batch = model.input.to_layout(x)
    np.testing.assert_allclose(_rows(model.dropped(batch, 0)), _rows(thinned(x, 0)), atol=1e-4)
    np.testing.assert_array_equal(model.dropped(batch, 7), model.dropped(batch, 7))
    np.testing.assert_allclose(model.dropped(batch[::-1], 7)[::-1], model.dropped(batch, 7), atol=1e-5)
    assert np.abs(model.dropped(batch, 7) - model.dropped(batch, 8)).max() > 0.01
    assert np.abs(model.dropped(batch, 7) - model.activations(x).logits).max() > 0.01


def _rows(z: np.ndarray) -> np.ndarray:
    """Up to a constant per row."""
    return z - z.max(axis=1, keepdims=True)


@pytest.mark.parametrize("form", ["module", "softmax", "log-softmax", "script", "trace", "program"])
def test_torch(form: str) -> None:
    model = open_model(torch_forms()[form](), size=(16, 16))
    assert {"gradient", "dropout"} <= model.capabilities.outputs
    check_gradient(model)
    check_dropout(model)


def test_torch_leaves_the_network_as_it_was() -> None:
    import torch

    net = torch_net().train()
    net[0].weight.requires_grad_(False)
    before = {name: x.clone() for name, x in net.state_dict().items()}
    model = open_model(net, size=(16, 16))
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    batch = model.input.to_layout(images())
    with torch.inference_mode():  # wherever it is called from
        model.gradient(batch, pulls())
    with torch.no_grad():
        model.gradient(batch, pulls())
    model.dropped(batch, 0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(module.training for module in net.modules())
    assert [p.requires_grad for p in net.parameters()] == [False] + [True] * 5
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
    assert not any(m._forward_hooks or m._backward_hooks for m in net.modules())


def test_torch_channels_are_dropped_as_one() -> None:
    import torch
    from torch import nn

    net = torch_net(dropout=False)
    net.insert(4, nn.Dropout2d(P))
    model = open_model(net.eval(), size=(16, 16))
    x = images()
    maps = torch.nn.Sequential(*list(net)[:4])(torch.from_numpy(model.input.to_layout(x))).detach().double()
    keep = np.random.default_rng([2, 5]).random((1, 24, 1, 1)) >= P
    pooled = (maps.numpy() * keep / (1 - P)).mean(axis=(2, 3))
    w = _exact()
    np.testing.assert_allclose(model.dropped(model.input.to_layout(x), 2), pooled @ w["w"].T + w["b"], atol=1e-4)


def test_torch_without_gradient_or_dropout_says_so() -> None:
    from torch import nn

    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch_net(dropout=False)

        def forward(self, x):
            return self.net(x.detach())

    model = open_model(Cut().eval(), size=(16, 16))
    assert not {"gradient", "dropout"} & model.capabilities.outputs
    assert any(note.startswith("No gradients:") for note in model.notes)
    with pytest.raises(UnsoundError, match=r"torch classifier shows no gradient.*not for ONNX files and functions"):
        model.gradient(model.input.to_layout(images()), pulls())
    with pytest.raises(UnsoundError, match="shows no dropout"):
        model.dropped(model.input.to_layout(images()), 0)


def test_a_path_without_a_gradient_is_named() -> None:
    model = open_model(torch_net(), size=(16, 16))
    with pytest.raises(
        OptionError, match=r"gradient of this classifier with respect to 'stages/stage9'.*stages/stage1"
    ):
        model.gradient(model.input.to_layout(images()), {"stages/stage9": np.zeros((3, 24))})


@pytest.mark.parametrize("kind", ["torch", "keras"])
def test_the_deviation_of_a_constant_channel_has_no_slope(kind: str) -> None:
    """Its root is infinitely steep at zero: 0 * inf would make every pixel NaN."""
    net = torch_net() if kind == "torch" else keras_net()
    if kind == "torch":
        net[0].weight.data[0] = 0.0
        net[0].bias.data[0] = 0.5
    else:
        kernel, bias = (np.array(w) for w in net.layers[1].get_weights())
        kernel[..., 0], bias[0] = 0.0, 0.5
        net.layers[1].set_weights([kernel, bias])
    model = open_model(net, size=(16, 16))
    batch = model.input.to_layout(images())
    pull = pulls()["stages/stage1"]
    got = model.gradient(batch, {"stages/stage1": pull})
    assert np.isfinite(got).all()
    without = pull.copy()
    without[:, [0, 12]] = 0  # its mean and its deviation
    np.testing.assert_allclose(got, model.gradient(batch, {"stages/stage1": without}), atol=1e-6)
    assert got.any()


def test_torch_named_stages_too_but_not_what_is_overwritten() -> None:
    from torch import nn

    net = torch_net()
    x = images()
    model = open_model(net, size=(16, 16), stages=["1", "3"])  # the outputs of the two in-place ReLUs
    assert model.gradients == ("logits", "features", "stages/1", "stages/3")
    batch, pull = model.input.to_layout(x), pulls()["stages/stage1"]
    want = model.input.to_layout(by_differences(x, {"stages/stage1": pull}))
    np.testing.assert_allclose(model.gradient(batch, {"stages/1": pull}), want, atol=1e-4 * np.abs(want).max())
    before = open_model(net, size=(16, 16), stages=["0", "3"])  # the ReLU writes over what the convolution gave
    assert "stages/0" not in before.gradients
    assert any("No gradients of stages/0" in note for note in before.notes)
    assert "gradient" in before.capabilities.outputs
    net[1] = nn.ReLU()
    assert "stages/0" in open_model(net, size=(16, 16), stages=["0", "3"]).gradients


def test_ensembles_and_embeddings_hand_gradients_on() -> None:
    first, other = open_model(torch_net(), size=(16, 16)), open_model(keras_net(), size=(16, 16))
    both = open_model([first, other])
    x, toward = images(), pulls()
    features = np.random.default_rng(2).normal(size=(3, 48))
    given = {
        "logits": toward["logits"],
        "features": features,
        "stages/member2-stage1": toward["stages/stage1"],
    }
    assert set(given) | {"stages/member1-stage1"} <= set(both.gradients)
    own = {"logits": toward["logits"] / 2, "features": features[:, :24]}
    want = first.gradient(first.input.to_layout(x), own).transpose(0, 2, 3, 1)
    own = {"logits": toward["logits"] / 2, "features": features[:, 24:], "stages/stage1": toward["stages/stage1"]}
    want = want + other.gradient(x, own)
    got = both.gradient(both.input.to_layout(x), given).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
    alone = both.gradient(both.input.to_layout(x), {"stages/member2-stage1": toward["stages/stage1"]})
    want = other.gradient(x, {"stages/stage1": toward["stages/stage1"]})
    np.testing.assert_allclose(alone.transpose(0, 2, 3, 1), want, atol=1e-5 * np.abs(want).max())

    embedding = open_model(torch_net(), size=(16, 16), embedding=True, stages=["1"])
    assert embedding.gradients == ("features", "stages/1")
    got = embedding.gradient(first.input.to_layout(x), {"features": toward["logits"]})
    np.testing.assert_allclose(got, first.gradient(first.input.to_layout(x), {"logits": toward["logits"]}), atol=1e-5)
    ends = open_model(torch_net("softmax"), size=(16, 16), embedding=True)  # its output, not what the softmax reads
    p, pull = ends.activations(x).features, toward["logits"]
    got = ends.gradient(first.input.to_layout(x), {"features": pull})
    through = p * (pull - np.sum(p * pull, axis=1, keepdims=True))
    want = first.gradient(first.input.to_layout(x), {"logits": through})
    np.testing.assert_allclose(got, want, atol=5e-3 * np.abs(want).max())  # the softmax is nearly one-hot
    with pytest.raises(OptionError, match="'logits'"):
        embedding.gradient(first.input.to_layout(x), {"logits": toward["logits"]})


def test_none_classes_have_gradients_too() -> None:
    model = open_model(torch_net(), size=(16, 16), none_classes=2)
    plain = open_model(torch_net(), size=(16, 16))
    batch, pull = plain.input.to_layout(images()), pulls()["logits"]
    assert set(model.gradients) == {*plain.gradients, "extra/none/logits"}
    got = model.gradient(batch, {"logits": pull[:, :2], "extra/none/logits": pull[:, 2:]})
    np.testing.assert_allclose(got, plain.gradient(batch, {"logits": pull}), atol=1e-6)


def test_onnx_and_functions_offer_none() -> None:
    for thing in (toy.graph(), lambda x: np.full((len(x), 4), 0.25)):
        model = open_model(thing, size=(16, 16))
        assert not {"gradient", "dropout"} & model.capabilities.outputs
        with pytest.raises(UnsoundError, match="PyTorch classifiers"):
            model.gradient(model.input.to_layout(images()), pulls())


# Keras


def check_keras() -> None:
    """Everything, on the backend that runs."""
    from keras import ops

    net = keras_net()
    before = [np.array(ops.convert_to_numpy(v)) for v in net.variables]  # seeds of dropout layers among them
    model = open_model(net)
    assert {"gradient", "dropout"} <= model.capabilities.outputs
    check_gradient(model)
    check_dropout(model)
    after = [np.array(ops.convert_to_numpy(v)) for v in net.variables]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)), "a variable was changed"

    spatial = open_model(keras_net("SpatialDropout2D"))
    x = images()
    np.testing.assert_allclose(_rows(spatial.dropped(x, 0)), _rows(_by_channels(x)), atol=1e-4)
    without = open_model(keras_net(""))
    assert "dropout" not in without.capabilities.outputs


def _by_channels(x: np.ndarray) -> np.ndarray:
    """Dropping whole channels before the mean is dropping features."""
    w = _exact()
    keep = (np.random.default_rng([0, 5]).random((1, 1, 1, 24)) >= P)[:, 0, 0]
    return toy.reference(x, w)["features"] * keep / (1 - P) @ w["w"].T + w["b"]


def test_keras_here() -> None:
    check_keras()


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_keras_elsewhere(backend: str, elsewhere) -> None:
    code = "import keras; from models import test_gradient; test_gradient.check_keras(); print(keras.backend.backend())"
    assert elsewhere(backend).run(code).split() == [backend]


def test_keras_subclassed_networks_too() -> None:
    import keras
    from keras import layers as L

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.body = keras.Sequential(keras_net().layers[:-2])
            self.drop, self.last = L.Dropout(P), L.Dense(4, activation="softmax")

        def call(self, x, training=False):
            return self.last(self.drop(self.body(x), training=training))

    net = Net()
    net(images())
    w = toy.weights()
    net.last.kernel.assign(w["w"].T)
    net.last.bias.assign(w["b"])
    model = open_model(net, size=(16, 16))
    check_gradient(model)
    check_dropout(model)

"""Several classifiers as one: their mean, what it offers, and the way to a saved folder and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

import knownot
from helpers import toy
from helpers.gradient_nets import torch_net
from knownot.checks.models import check_model
from knownot.errors import ModelError, OptionError

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


def nets():
    import torch

    first, second = torch_net(), torch_net("softmax")
    with torch.no_grad():
        second[7].weight *= 0.5
        second[0].bias += 0.05
    return first, second


def images(n: int = 4) -> np.ndarray:
    return (toy.known(n, 3)[0] / 255).astype(np.float32)


def test_logits_are_the_mean_and_the_head_gives_them() -> None:
    first, second = (knownot.open_model(net, size=(16, 16)) for net in nets())
    both = knownot.open_model([first, second])
    a, b, seen = (m.activations(images()) for m in (first, second, both))
    np.testing.assert_allclose(seen.logits, (a.logits + b.logits) / 2, rtol=1e-6)
    np.testing.assert_array_equal(seen.features, np.hstack([a.features, b.features]))
    np.testing.assert_allclose(both.head(seen.features), seen.logits, atol=1e-4)
    np.testing.assert_array_equal(seen.stages["member2-stage1"], b.stages["stage1"])
    assert {"logits", "features", "head", "stages", "gradient"} <= both.capabilities.outputs
    assert not {"maps", "dropout"} & both.capabilities.outputs
    check_model(both, images())


def test_gradient_is_that_of_the_mean() -> None:
    both = knownot.open_model(list(nets()), size=(16, 16))
    x = images(2)
    rng = np.random.default_rng(0)
    toward = {"logits": rng.normal(size=(2, 4)), "features": rng.normal(size=(2, 48))}
    batch = both.input.to_layout(x)
    got = both.gradient(batch, toward)
    step, move = 1e-3, rng.choice([-1, 1], size=batch.shape).astype(np.float32)
    up, down = (both.forward(batch + s * step * move) for s in (1, -1))
    want = sum(((getattr(up, n) - getattr(down, n)) * v).sum(axis=1) for n, v in toward.items()) / (2 * step)
    np.testing.assert_allclose((got * move).sum(axis=(1, 2, 3)), want, rtol=0.02, atol=0.02 * np.abs(want).max())


def test_members_of_other_frameworks_see_the_same_images() -> None:
    """ONNX has the images in NCHW, the function in NHWC; of probabilities the logits are not exact."""
    onnx = knownot.open_model(toy.graph())

    def function(x: np.ndarray) -> np.ndarray:
        z = toy.reference(x, toy.weights())["logits"]
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    both = knownot.open_model([knownot.open_model(function, size=(16, 16)), onnx])
    assert both.capabilities.outputs == {"probabilities", "stages"}
    a, b = onnx.activations(images()).logits, both.activations(images()).logits
    np.testing.assert_allclose(b - b.max(axis=1, keepdims=True), a - a.max(axis=1, keepdims=True), atol=1e-3)


@pytest.mark.parametrize("detector", ["msp", "odin", "default"])
def test_fit_predict_save_load(detector: str, tmp_path) -> None:
    (x, y), held, unknown = toy.known(300, 10), toy.known(150, 11), toy.unknown(40)
    both = knownot.open_model([*nets(), toy.graph()] if detector == "msp" else list(nets()), size=(16, 16))
    osc = knownot.fit(both, x, y, calibration=held[0], detector=detector, guarantee="marginal", progress=False)
    found = osc.predict(unknown)
    osc.save(tmp_path / "osc")
    again = knownot.load(tmp_path / "osc")
    assert again.model.framework == "ensemble"
    np.testing.assert_array_equal(again.predict(unknown).score, found.score)


def test_what_does_not_fit_together_is_refused(tmp_path) -> None:
    onnx, net = toy.graph(), nets()[0]
    with pytest.raises(ModelError, match="two members or more"):
        knownot.open_model([onnx])
    with pytest.raises(ModelError, match="differ in height"):
        knownot.open_model([onnx, knownot.open_model(net, size=(32, 32))])
    with pytest.raises(OptionError, match="belong to one member"):
        knownot.open_model([onnx, net], head="7")
    with pytest.raises(ModelError, match="have the same classes"):
        knownot.open_model([onnx, knownot.open_model(lambda x: np.full((len(x), 3), 1 / 3), size=(16, 16))])
    path = tmp_path / "ensemble.json"
    for wrong in ("{", "{}", json.dumps({"members": [{"file": "../../x/y.onnx", "opened_with": {}}] * 2})):
        path.write_text(wrong)
        with pytest.raises(ModelError, match=r"does not name the members|outside its folder"):
            knownot.open_model(path)

"""What is offered as logits is compared with the file's own output."""

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from helpers.onnx import C, K, body, images, model, node, weights
from knownot.errors import ModelError
from knownot.models import open_model

HEAD = weights(7, w=(C, 6), b=(C,))
GEMM = node("Gemm", "f w b", "z", transB=1)
EXACT = {"logits", "probabilities", "features", "head", "maps"}


def built(*nodes, constants=None, **options):
    trunk, w = body()
    w["k"] = w["k"] * 2
    return model([*trunk, GEMM, *nodes], w | HEAD | (constants or {}), **options)


def own(proto, x):
    return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def f32(x):
    return np.float32(x)


def test_a_softmax_of_a_softmax_keeps_the_files_own_confidence():
    proto, x = built(node("Softmax", "z", "s"), node("Softmax", "s", "y")), images(6)
    opened = open_model(proto)
    seen = opened.activations(x)
    np.testing.assert_allclose(softmax(seen.logits), own(proto, x), atol=1e-6)
    assert opened.head is None
    assert "features" in opened.capabilities.outputs
    assert "logits" not in opened.capabilities.outputs
    assert any("two softmaxes" in note and "47.5%" in note for note in opened.notes)  # e / (e + 3)


@pytest.mark.parametrize(
    ("name", "nodes", "constants"),
    [
        ("percent", [node("Softmax", "z", "s"), node("Mul", "s unit", "y")], {"unit": f32(100)}),
        ("percent, rounded", [node("Softmax", "z", "s"), node("Div", "s unit", "y")], {"unit": f32(0.01)}),
        ("clipped", [node("Softmax", "z", "s"), node("Clip", "s lo hi", "y")], {"lo": f32(1e-7), "hi": f32(1)}),
        (
            "log of clipped",
            [node("Softmax", "z", "s"), node("Add", "s e", "t"), node("Log", "t", "y")],
            {"e": f32(1e-9)},
        ),
        ("log softmax", [node("LogSoftmax", "z", "y")], {}),
    ],
)
def test_probabilities_of_another_unit_lead_to_the_logits(name, nodes, constants):
    proto, x = built(*nodes, constants=constants), images(6)
    opened = open_model(proto)
    assert opened.capabilities.outputs == EXACT
    given = own(proto, x)
    given = np.exp(given) if given.max() <= 0 else given
    shares = given / given.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax(opened.activations(x).logits), shares, atol=1e-5)


def test_probabilities_that_are_no_softmax_are_never_called_logits():
    half = [node("Softmax", "z", "s"), node("Add", "s s", "a"), node("Mul", "a half", "y")]
    spread = [node("Softmax", "z", "s"), node("Mul", "s most", "a"), node("Add", "a rest", "y")]
    for nodes in (half, spread):
        proto, x = built(*nodes, constants={"half": f32(0.5), "most": f32(0.8), "rest": f32(0.05)}), images(6)
        opened = open_model(proto)
        assert "logits" not in opened.capabilities.outputs
        assert opened.head is None
        np.testing.assert_allclose(softmax(opened.activations(x).logits), own(proto, x), atol=1e-6)
        assert any("No logits" in note for note in opened.notes)


@pytest.mark.parametrize("batch", ["n", 1, 3])
def test_a_softmax_over_the_batch_is_refused(batch):
    proto = built(node("Softmax", "z", "y", axis=0), shape=(batch, K, 8, 8))
    with pytest.raises(ModelError, match=r"over the images of a batch|over the wrong axis|is not that of what comes"):
        open_model(proto)
    opened = open_model(proto, head="n_z")
    np.testing.assert_allclose(opened.activations(images(3)).logits, open_model(built(
        node("Softmax", "z", "y"))).activations(images(3)).logits, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("op", ["Neg", "Reciprocal", "Sqrt"])
def test_what_is_made_of_probabilities_is_no_logits(op):
    with pytest.raises(ModelError, match=f"ends in {op} of a softmax"):
        open_model(built(node("Softmax", "z", "s"), node(op, "s", "y")))


@pytest.mark.parametrize("zero", [0, 128])
@pytest.mark.parametrize("with_softmax", [True, False])
def test_codes_of_integer_operators_are_made_numbers(zero, with_softmax):
    scale, small = f32(0.05), f32(1 / 256)
    kind = np.uint8
    constants = {"s": scale, "o": kind(zero), "ps": small, "po": kind(0), "ys": scale, "yo": kind(zero)}
    nodes = [
        node("QuantizeLinear", "z s o", "q"),
        helper.make_node("QLinearAdd", ["q", "s", "o", "none", "s", "o", "ys", "yo"], ["a"], domain="com.microsoft"),
    ]
    constants["none"] = kind(zero)
    if with_softmax:
        options = {"domain": "com.microsoft", "axis": 1, "opset": 13}
        nodes += [helper.make_node("QLinearSoftmax", ["a", "ys", "yo", "ps", "po"], ["pq"], **options)]
        nodes += [node("DequantizeLinear", "pq ps po", "y")]
    else:
        nodes += [node("DequantizeLinear", "a ys yo", "y")]
    proto = built(*nodes, constants=constants, domains={"com.microsoft": 1})
    opened, x = open_model(proto), images(6)
    z = open_model(built(node("Softmax", "z", "y"))).activations(x).logits
    steps = np.clip(np.round(z / scale) + zero, 0, 255) - zero
    np.testing.assert_allclose(opened.activations(x).logits, steps * scale, atol=0.051)


def test_real_images_are_compared_too(monkeypatch):
    from knownot.models.onnx import proof

    opened, x = open_model(built(node("Softmax", "z", "y"))), images(4)
    opened.confirm(x)
    real = proof.agrees
    monkeypatch.setattr(proof, "agrees", lambda z, own, within: real(z[::-1], own, within))
    with pytest.raises(ModelError, match="is not the softmax of what was found"):
        opened.confirm(x)

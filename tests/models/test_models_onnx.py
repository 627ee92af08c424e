"""The ONNX adapter: heads of every shape, stages, quantised, half-precision and external-data files, fixed batches."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from helpers import onnx as ho
from helpers.onnx import C, D, K, body, body_reference, images, model, node, weights
from knownot.checks.models import check_model
from knownot.errors import ActivationsError, InputError, ModelError, OptionError
from knownot.models import open_model

HEAD = weights(9, w=(C, D), b=(C,))
W, B = (HEAD[name].astype(np.float64) for name in "wb")


def i64(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def quantised(w: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int8 codes, scale, zero point."""
    scale = np.abs(w).max(axis=None if axis is None else tuple(i for i in range(w.ndim) if i != axis)) / 127
    shaped = scale if axis is None else np.expand_dims(scale, tuple(i for i in range(w.ndim) if i != axis))
    return np.rint(w / shaped).astype(np.int8), np.asarray(scale, np.float32), np.zeros_like(scale, dtype=np.int8)


def dequantised(w: np.ndarray, axis: int | None) -> np.ndarray:
    codes, scale, _ = quantised(w, axis)
    shaped = scale if axis is None else np.expand_dims(scale, tuple(i for i in range(w.ndim) if i != axis))
    return codes.astype(np.float64) * shaped


Q_TENSOR, Q_CHANNEL = quantised(HEAD["w"], None), quantised(HEAD["w"], 0)

# {name: (nodes from f to y, further constants, weight [c, d], bias [c])}; all end where the walk back begins
HEADS = {
    "gemm, logits": ([node("Gemm", "f w b", "y", transB=1)], HEAD, W, B),
    "gemm, softmax": ([node("Gemm", "f w b", "z", transB=1), node("Softmax", "z", "y")], HEAD, W, B),
    "gemm, not transposed": ([node("Gemm", "f wt b", "y")], {"wt": HEAD["w"].T.copy(), **HEAD}, W, B),
    "gemm, alpha and beta": (
        [node("Gemm", "f w b", "z", transB=1, alpha=0.5, beta=3.0), node("Softmax", "z", "y")],
        HEAD,
        0.5 * W,
        3 * B,
    ),
    "gemm, one bias for all": (
        [node("Gemm", "f w b1", "y", transB=1)],
        HEAD | {"b1": np.float32([0.25])},
        W,
        np.full(C, 0.25),
    ),
    "gemm, no bias": ([node("Gemm", "f w", "y", transB=1)], HEAD, W, 0 * B),
    "matmul and bias": (
        [node("MatMul", "f wt", "a"), node("Add", "a b", "y")],
        {"wt": HEAD["w"].T.copy()} | HEAD,
        W,
        B,
    ),
    "bias first": ([node("MatMul", "f wt", "a"), node("Add", "b a", "y")], {"wt": HEAD["w"].T.copy()} | HEAD, W, B),
    "matmul alone": ([node("MatMul", "f wt", "y")], {"wt": HEAD["w"].T.copy()}, W, 0 * B),
    "weight through a transpose": (
        [node("Transpose", "w", "wt", perm=[1, 0]), node("MatMul", "f wt", "a"), node("Add", "a b", "y")],
        HEAD,
        W,
        B,
    ),
    "weight through cast, identity and reshape": (
        [
            node("Identity", "w64", "w1"),
            node("Cast", "w1", "w2", to=TensorProto.FLOAT),
            node("Reshape", "w2 wshape", "w3"),
            node("Gemm", "f w3 b", "y", transB=1),
        ],
        {"w64": W.reshape(-1), "wshape": i64(C, D), "b": HEAD["b"]},
        W,
        B,
    ),
    "weights as constant nodes": (
        [
            helper.make_node("Constant", [], ["cw"], value=onnx.numpy_helper.from_array(HEAD["w"])),
            helper.make_node("Constant", [], ["cb"], value=onnx.numpy_helper.from_array(HEAD["b"])),
            node("Gemm", "f cw cb", "y", transB=1),
        ],
        {},
        W,
        B,
    ),
    "convolution after the pooling": (
        [node("Conv", "p wc b", "z"), node("Flatten", "z", "z2"), node("Softmax", "z2", "y")],
        {"wc": HEAD["w"][:, :, None, None].copy(), "b": HEAD["b"]},
        W,
        B,
    ),
    "softmax over four axes, then squeeze": (
        [node("Conv", "p wc b", "z"), node("Softmax", "z", "s", axis=1), node("Squeeze", "s axes", "y")],
        {"wc": HEAD["w"][:, :, None, None].copy(), "b": HEAD["b"], "axes": i64(2, 3)},
        W,
        B,
    ),
    "identity, reshape and dropout around": (
        [
            node("Gemm", "f w b", "z", transB=1),
            node("Identity", "z", "i"),
            node("Reshape", "i ishape", "j"),
            node("Dropout", "j", "k2"),
            node("LogSoftmax", "k2", "y"),
        ],
        {"ishape": i64(-1, C)} | HEAD,
        W,
        B,
    ),
    "log of a softmax": (
        [node("Gemm", "f w b", "z", transB=1), node("Softmax", "z", "s"), node("Log", "s", "y")],
        HEAD,
        W,
        B,
    ),
    "softmax spelt out": (
        [
            node("Gemm", "f w b", "z", transB=1),
            node("ReduceMax", "z", "top", axes=[1], keepdims=1),
            node("Sub", "z top", "d"),
            node("Exp", "d", "e"),
            node("ReduceSum", "e one", "sum", keepdims=1),
            node("Div", "e sum", "y"),
        ],
        {"one": i64(1)} | HEAD,
        W,
        B,
    ),
    "temperature": (
        [node("Gemm", "f w b", "z", transB=1), node("Div", "z t", "zt"), node("Softmax", "zt", "y")],
        {"t": np.float32(2.0)} | HEAD,
        W / 2,
        B / 2,
    ),
    "scaled and shifted per class": (
        [node("MatMul", "f wt", "a"), node("Mul", "b a", "a2"), node("Sub", "a2 b", "y")],
        {"wt": HEAD["w"].T.copy()} | HEAD,
        W * B[:, None],
        -B,
    ),
    "int8 weight, per tensor": (
        [node("DequantizeLinear", "q s o", "w"), node("Gemm", "f w b", "y", transB=1)],
        dict(zip("qso", Q_TENSOR, strict=True)) | {"b": HEAD["b"]},
        dequantised(HEAD["w"], None),
        B,
    ),
    "int8 weight, per channel": (
        [
            node("DequantizeLinear", "q s o", "w", axis=0),
            node("Transpose", "w", "wt"),
            node("MatMul", "f wt", "a"),
            node("Add", "a b", "y"),
        ],
        dict(zip("qso", Q_CHANNEL, strict=True)) | {"b": HEAD["b"]},
        dequantised(HEAD["w"], 0),
        B,
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_found_whatever_its_shape(name: str) -> None:
    nodes, constants, weight, bias = HEADS[name]
    trunk, trunk_weights = body()
    opened = open_model(model([*trunk, *nodes], trunk_weights | constants))
    x = images()
    check_model(opened, x)
    seen = opened.activations(x)
    features = body_reference(x, trunk_weights)
    np.testing.assert_allclose(opened.head.weight, weight, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(opened.head.bias, bias, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen.features, features, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(seen.logits, features @ weight.T + bias, rtol=1e-4, atol=1e-5)
    assert {"probabilities", "logits", "features", "head"} <= opened.capabilities.outputs


@pytest.mark.parametrize("opset", [11, 13, 18, 20])
@pytest.mark.parametrize("pool", ["GlobalAveragePool", "ReduceMean", "AveragePool"])
def test_a_convolution_that_is_pooled_is_a_head_on_pooled_features(pool: str, opset: int) -> None:
    w = weights(1, k=(D, K, 1, 1), kb=(D,), w=(C, D, 1, 1), b=(C,)) | {"axes": i64(2, 3)}
    if pool == "ReduceMean":
        pooling = node(pool, "z", "p", axes=[2, 3], keepdims=1) if opset < 18 else node(pool, "z axes", "p", keepdims=1)
    else:
        pooling = node(pool, "z", "p", **({"kernel_shape": [8, 8]} if pool == "AveragePool" else {}))
    nodes = [node("Conv", "x k kb", "m"), node("Relu", "m", "r"), node("Conv", "r w b", "z"), pooling]
    nodes += [node("Flatten", "p", "f"), node("Softmax", "f", "y")]
    opened = open_model(model(nodes, w, opset=opset))
    x = images()
    check_model(opened, x)
    seen, features = opened.activations(x), body_reference(x, w)
    np.testing.assert_allclose(seen.features, features, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(seen.logits, features @ w["w"][:, :, 0, 0].T + w["b"], rtol=1e-4, atol=1e-5)
    assert "head" in opened.capabilities.outputs


def squeezenet(activation: str | None = "Relu", kernel: int = 1) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    w = weights(1, k=(D, K, 1, 1), kb=(D,), w=(C, D, kernel, kernel), b=(C,))
    nodes = [node("Conv", "x k kb", "m"), node("Relu", "m", "r"), node("Conv", "r w b", "z", pads=[kernel // 2] * 4)]
    nodes += [node(activation, "z", "a")] if activation else [node("Identity", "z", "a")]
    nodes += [node("GlobalAveragePool", "a", "p"), node("Flatten", "p", "f"), node("Softmax", "f", "y")]
    return model(nodes, w), w


@pytest.mark.parametrize(("activation", "kernel"), [("Relu", 1), (None, 3)])
def test_a_head_that_is_not_linear_is_not_offered(activation: str | None, kernel: int) -> None:
    proto, w = squeezenet(activation, kernel)
    opened = open_model(proto)
    x = images()
    check_model(opened, x)
    seen = opened.activations(x)
    assert opened.head is None
    assert opened.capabilities.outputs == {"probabilities", "logits", "features", "maps"}
    assert any("No head" in note for note in opened.notes)
    np.testing.assert_allclose(seen.features, body_reference(x, w), rtol=1e-5, atol=1e-5)
    if kernel == 1:
        maps = np.einsum("nkhw,dk->ndhw", x, w["k"][:, :, 0, 0]) + w["kb"][:, None, None]
        scores = np.einsum("ndhw,cd->nchw", np.maximum(maps, 0), w["w"][:, :, 0, 0]) + w["b"][:, None, None]
        np.testing.assert_allclose(seen.logits, np.maximum(scores, 0).mean(axis=(2, 3)), rtol=1e-4, atol=1e-5)


def test_logits_are_offered_when_no_linear_layer_precedes_the_softmax() -> None:
    trunk, w = body()
    nodes = [*trunk, node("Gemm", "f w b", "z", transB=1), node("Mul", "z z", "zz"), node("Softmax", "zz", "y")]
    opened = open_model(model(nodes, w | HEAD))
    x = images()
    check_model(opened, x)
    assert opened.capabilities.outputs == {"probabilities", "logits", "maps"}
    np.testing.assert_allclose(
        opened.activations(x).logits, (body_reference(x, w) @ W.T + B) ** 2, rtol=1e-4, atol=1e-5
    )


# -- stages -----------------------------------------------------------------------------------------------------------


def staged(
    opset: int = 17, shape: tuple[int | str, ...] = ("n", K, 16, 16), extra: bool = False
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """16x16x4 -> 8x8x5 -> 4x4x6, with a padding and a pooling after the second that are no computation."""
    w = weights(2, a=(4, K, 1, 1), b=(5, 4, 1, 1), c=(D, 5, 1, 1), w=(C, D), bias=(C,), mean=(1, K, 1, 1))
    nodes = [
        node("Sub", "x mean", "x0"),
        node("Conv", "x0 a", "a1"),
        node("Relu", "a1", "a2"),
        node("Conv", "a2 b", "b1", strides=[2, 2]),
        node("Tanh", "b1", "b2"),
        node("MaxPool", "b2", "b3", kernel_shape=[1, 1], strides=[1, 1]),
        node("Conv", "b3 c", "c1", strides=[2, 2]),
        node("Relu", "c1", "c2"),
        node("GlobalAveragePool", "c2", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f w bias", "y", transB=1),
    ]
    return model(nodes, w, shape=shape, opset=opset), w


def staged_reference(x: np.ndarray, w: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    def conv(maps: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        return np.einsum("nkhw,dk->ndhw", maps, kernel[:, :, 0, 0].astype(np.float64))

    one = np.maximum(conv(x.astype(np.float64) - w["mean"], w["a"]), 0)
    two = np.tanh(conv(one[:, :, ::2, ::2], w["b"]))
    three = np.maximum(conv(two[:, :, ::2, ::2], w["c"]), 0)
    maps = {"stage1": one, "stage2": two, "stage3": three}
    return {name: np.concatenate([m.mean((2, 3)), m.std((2, 3))], axis=1) for name, m in maps.items()}


@pytest.mark.parametrize("opset", [11, 13, 18, 21])
def test_stages_are_the_last_computation_at_each_resolution(opset: int) -> None:
    proto, w = staged(opset)
    opened = open_model(proto)
    x = images(shape=(K, 16, 16))
    check_model(opened, x)
    assert opened.stage_layers == {"stage1": "a2", "stage2": "b2", "stage3": "c2"}
    assert opened.capabilities.stages == ("stage1", "stage2")
    seen, expected = opened.activations(x).stages, staged_reference(x, w)
    assert seen.keys() == expected.keys()
    for name in seen:
        np.testing.assert_allclose(seen[name], expected[name], rtol=1e-5, atol=1e-5)


def test_the_standard_deviation_does_not_cancel() -> None:
    proto, w = staged()
    x = images(shape=(K, 16, 16)) * np.float32(1e-2) + np.float32(1000)  # mean 10^5 times the deviation
    w["mean"][:] = 0
    zero = next(t for t in proto.graph.initializer if t.name == "mean")
    zero.CopyFrom(onnx.numpy_helper.from_array(w["mean"], "mean"))
    seen = open_model(proto).activations(x).stages["stage1"]
    expected = staged_reference(x, w)["stage1"]
    np.testing.assert_allclose(seen[:, 4:], expected[:, 4:], rtol=0.05, atol=2e-4)


def test_scaling_before_the_first_weight_is_no_stage() -> None:
    w = weights(2, a=(4, K, 1, 1), b=(5, 4, 1, 1), w=(C, 5), bias=(C,))
    nodes = [
        node("Div", "x two", "x1"),
        node("Conv", "x1 a", "a1", strides=[2, 2]),
        node("Conv", "a1 b", "b1", strides=[2, 2]),
        node("GlobalAveragePool", "b1", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f w bias", "y", transB=1),
    ]
    opened = open_model(model(nodes, w | {"two": np.float32(2)}))
    assert opened.stage_layers == {"stage1": "a1", "stage2": "b1"}


def test_what_an_auxiliary_head_computes_is_no_stage() -> None:
    proto, _ = staged()
    side = weights(8, sk=(2, 4, 1, 1), sw=(C, 2))
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in side.items())
    proto.graph.node.extend([node("Conv", "a2 sk", "s1"), node("GlobalAveragePool", "s1", "s2")])
    proto.graph.node.extend([node("Flatten", "s2", "s3"), node("Gemm", "s3 sw", "aux", transB=1)])
    proto.graph.output.append(helper.make_tensor_value_info("aux", TensorProto.FLOAT, None))
    assert open_model(proto).stage_layers == {"stage1": "a2", "stage2": "b2", "stage3": "c2"}
    assert open_model(proto, head="aux").stage_layers == {"stage1": "s1"}


@pytest.mark.parametrize("attributes", [{"strides": [2, 2]}, {"pads": [1, 1, 1, 1]}])
def test_a_pooled_convolution_that_does_not_read_each_pixel_once_is_no_head(attributes: dict[str, list[int]]) -> None:
    w = weights(1, k=(D, K, 1, 1), kb=(D,), w=(C, D, 1, 1), b=(C,))
    nodes = [node("Conv", "x k kb", "r"), node("Conv", "r w b", "z", **attributes), node("GlobalAveragePool", "z", "p")]
    opened = open_model(model([*nodes, node("Flatten", "p", "y")], w))
    check_model(opened, images())
    assert opened.head is None


def test_stages_and_head_can_be_named() -> None:
    proto, _ = staged()
    x = images(shape=(K, 16, 16))
    opened = open_model(proto, stages=["n_a1", "b2"], head="n_y")
    check_model(opened, x)
    assert opened.stage_layers == {"stage1": "a1", "stage2": "b2"}
    assert opened.capabilities.stages == ("stage1", "stage2")
    with pytest.raises(OptionError, match="Did you mean 'n_a2'"):
        open_model(proto, stages=["n_a2x"])
    with pytest.raises(OptionError, match="Did you mean 'n_y'"):
        open_model(proto, head="n_yy")
    with pytest.raises(ModelError, match="no linear layer"):
        open_model(proto, head="n_c2")
    with pytest.raises(OptionError, match="has shape"):
        open_model(proto, stages=["f"])
    with pytest.raises(OptionError, match=r"option of ONNX models 'provider'\. Did you mean 'providers'"):
        open_model(proto, provider=["x"])
    with pytest.raises(OptionError, match="onnxruntime provider"):
        open_model(proto, providers=["NoExecutionProvider"])


def test_a_matmul_named_as_head_brings_its_bias() -> None:
    nodes, constants, weight, bias = HEADS["matmul and bias"]
    trunk, trunk_weights = body()
    opened = open_model(
        model([*trunk, *nodes, node("Softmax", "y", "s")], trunk_weights | constants, outputs=["s"]), head="n_a"
    )
    np.testing.assert_allclose(opened.head.bias, bias, rtol=1e-6)
    np.testing.assert_allclose(opened.head.weight, weight, rtol=1e-6)


def transformer(blocks: int, shrink: bool) -> onnx.ModelProto:
    """Patches 4x4 -> tokens [n, 16, 6] -> blocks of x + relu(x w); `shrink` halves the tokens after each."""
    w = weights(4, k=(D, K, 4, 4), pos=(1, 16, D), w=(C, D), b=(C,), m=(D, D)) | {
        "shape": i64(0, 16, D),
        "heads": i64(0, 0, 2, 3),
    }
    w |= {"tokens": i64(0, 0, -1), "one": np.float32(1)}
    w |= {"start": i64(0), "end": i64(99), "axis": i64(1), "step": i64(2)}
    nodes = [node("Conv", "x k", "c0", strides=[4, 4]), node("Reshape", "c0 shape", "c1")]
    nodes += [node("Add", "c1 pos", "t0")]
    last = "t0"
    for i in range(1, blocks + 1):
        nodes += [
            node("MatMul", f"{last} m", f"p{i}"),
            node("Reshape", f"p{i} heads", f"h{i}"),  # as attention turns tokens about: no image, no resolution
            node("Transpose", f"h{i}", f"k{i}", perm=[0, 2, 3, 1]),
            node("Mul", f"k{i} one", f"o{i}"),
            node("Transpose", f"o{i}", f"q{i}", perm=[0, 3, 1, 2]),
            node("Reshape", f"q{i} tokens", f"u{i}"),
            node("Relu", f"u{i}", f"v{i}"),
            node("Add", f"{last} v{i}", f"t{i}"),
        ]
        last = f"t{i}"
        if shrink:
            nodes.append(node("Slice", f"{last} start end axis step", f"s{i}"))
            last = f"s{i}"
    nodes += [node("ReduceMean", last, "f", axes=[1], keepdims=0), node("Gemm", "f w b", "y", transB=1)]
    return model(nodes, w, shape=("n", K, 16, 16))


@pytest.mark.parametrize(
    ("blocks", "shrink", "layers"),
    [
        (12, False, ["t3", "t6", "t9", "t12"]),
        (4, False, ["t1", "t2", "t3", "t4"]),
        (2, False, ["t2"]),
        (3, True, ["t1", "t2", "t3"]),
    ],
)
def test_tokens_are_grouped_in_quarters_or_by_their_count(blocks: int, shrink: bool, layers: list[str]) -> None:
    proto = transformer(blocks, shrink)
    opened = open_model(proto)
    x = images(shape=(K, 16, 16)) / 10
    check_model(opened, x)
    assert list(opened.stage_layers.values()) == layers
    proto.graph.output.append(helper.make_empty_tensor_value_info(layers[0]))
    import onnxruntime

    tokens = onnxruntime.InferenceSession(proto.SerializeToString()).run([layers[0]], {"x": x})[0].astype(np.float64)
    expected = np.concatenate([tokens.mean(axis=1), tokens.std(axis=1)], axis=1)
    np.testing.assert_allclose(opened.activations(x).stages["stage1"], expected, rtol=1e-5, atol=1e-5)


# -- what the input is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_a_fixed_batch_is_padded_and_split(batch: int) -> None:
    proto, _ = staged(shape=(batch, K, 16, 16))
    free = open_model(staged()[0])
    opened = open_model(proto)
    assert opened.input.batch == batch
    for n in (1, 3, 4, 7):
        x = images(n, shape=(K, 16, 16), seed=n)
        for path, seen in opened.activations(x).named().items():
            np.testing.assert_allclose(seen, free.activations(x).named()[path], rtol=1e-6, atol=1e-6)
    check_model(opened, images(shape=(K, 16, 16)))


def test_a_graph_that_only_takes_one_image_is_run_one_by_one() -> None:
    trunk, w = body()
    nodes = [*trunk, node("Reshape", "f one", "f1"), node("Gemm", "f1 w b", "y", transB=1)]
    opened = open_model(model(nodes, w | HEAD | {"one": i64(1, D)}))
    assert opened.input.batch == 1
    assert any("one by one" in note for note in opened.notes)
    check_model(opened, images())


def test_nhwc_graphs_of_tf2onnx() -> None:
    w = weights(2, a=(4, K, 1, 1), b=(5, 4, 1, 1), wt=(5, C), bias=(C,), nhwc=(4,)) | {"axes": i64(1, 2)}
    nodes = [
        node("Transpose", "x", "x1", perm=[0, 3, 1, 2]),
        node("Conv", "x1 a", "a1"),
        node("Transpose", "a1", "a2", perm=[0, 2, 3, 1]),
        node("Add", "a2 nhwc", "a3"),  # the bias is added in NHWC
        node("Relu", "a3", "a4"),
        node("Transpose", "a4", "a5", perm=[0, 3, 1, 2]),
        node("Conv", "a5 b", "b1", strides=[2, 2]),
        node("Relu", "b1", "b2"),
        node("Transpose", "b2", "b3", perm=[0, 2, 3, 1]),
        node("ReduceMean", "b3", "f", axes=[1, 2], keepdims=0),
        node("MatMul", "f wt", "z"),
        node("Add", "z bias", "z1"),
        node("Softmax", "z1", "y"),
    ]
    opened = open_model(model(nodes, w, shape=("n", 8, 8, K)))
    assert (opened.input.layout, opened.input.height, opened.input.channels) == ("NHWC", 8, K)
    x = images(shape=(8, 8, K))
    check_model(opened, x)
    assert opened.stage_layers == {"stage1": "a4", "stage2": "b2"}
    maps = np.maximum(x.astype(np.float64) @ w["a"][:, :, 0, 0].T + w["nhwc"], 0)
    expected = np.concatenate([maps.mean((1, 2)), maps.std((1, 2))], axis=1)
    np.testing.assert_allclose(opened.activations(x).stages["stage1"], expected, rtol=1e-5, atol=1e-5)


def gemm_model(**options: object) -> onnx.ModelProto:
    trunk, w = body()
    return model([*trunk, *HEADS["gemm, softmax"][0]], w | HEAD, **options)


def test_dynamic_sizes() -> None:
    proto = gemm_model(shape=("n", K, "h", "w"))
    opened = open_model(proto)
    assert (opened.input.height, opened.input.width) == (None, None)
    check_model(opened, images(shape=(K, 12, 20)))
    sized = open_model(proto, size=(12, 20))
    assert (sized.input.height, sized.input.width) == (12, 20)
    with pytest.raises(InputError, match="does not fit"):
        sized.activations(images())
    with pytest.raises(OptionError, match="fixed to 8"):
        open_model(gemm_model(), size=(12, 20))


def test_layouts_that_cannot_be_told_must_be_said() -> None:
    w = weights(1, w=(C, 3 * 8 * 3))
    proto = model([node("Flatten", "x", "f"), node("Gemm", "f w", "y", transB=1)], w, shape=("n", 3, 8, 3))
    with pytest.raises(ModelError, match="layout='NCHW'"):
        open_model(proto)
    assert open_model(proto, layout="NHWC").input.height == 3
    assert open_model(proto, layout="NHWC").stretches, "as from Keras"
    assert open_model(proto, layout="NCHW").input.height == 8
    with pytest.raises(OptionError, match="layout='CHWN'"):
        open_model(proto, layout="CHWN")


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8, TensorProto.INT32])
def test_inputs_of_other_dtypes_are_cast(dtype: int) -> None:
    trunk, w = body()
    trunk[0] = node("Conv", "x0 k kb", "m")
    nodes = [node("Cast", "x", "x0", to=TensorProto.FLOAT), *trunk, *HEADS["gemm, softmax"][0]]
    opened = open_model(model(nodes, w | HEAD, dtype=dtype))
    whole = dtype in (TensorProto.UINT8, TensorProto.INT32)
    x = np.rint(images() * 255) if whole else images().astype(np.float16).astype(np.float32)
    check_model(opened, x)
    np.testing.assert_allclose(opened.activations(x).features, body_reference(x, w), rtol=1e-4, atol=1e-4)
    assert (opened.preprocess is not None and opened.preprocess.scale == 1) == whole


def scaling(*steps: tuple[str, object], k: int = K) -> onnx.ModelProto:
    trunk, w = body()
    nodes, last = [], "x"
    for i, (op, value) in enumerate(steps):
        array = np.asarray(value, np.float32)
        w[f"s{i}"] = array.reshape(1, -1, 1, 1) if array.ndim else array
        nodes.append(node(op, f"{last} s{i}", f"x{i}"))
        last = f"x{i}"
    trunk[0] = node("Conv", f"{last} k kb", "m")
    return model([*nodes, *trunk, *HEADS["gemm, softmax"][0]], w | HEAD)


@pytest.mark.parametrize(
    ("steps", "scale", "channels"),
    [
        ([("Div", 255.0)], 1.0, "rgb"),
        ([("Mul", 1 / 127.5), ("Sub", 1.0)], 1.0, "rgb"),
        ([("Sub", [123.675, 116.28, 103.53]), ("Div", [58.395, 57.12, 57.375])], 1.0, "rgb"),
        ([("Sub", [103.939, 116.779, 123.68])], 1.0, "bgr"),
        ([("Sub", [0.485, 0.456, 0.406]), ("Div", [0.229, 0.224, 0.225])], 1 / 255, "rgb"),
        ([("Mul", 2.0), ("Sub", 1.0)], 1 / 255, "rgb"),
        ([("Div", 255.0), ("Sub", [0.485, 0.456, 0.406]), ("Div", [0.229, 0.224, 0.225])], 1.0, "rgb"),
        ([("Mul", -1.0)], None, ""),
        ([], None, ""),
    ],
)
def test_scaling_inside_the_graph_says_what_range_it_wants(
    steps: list[tuple[str, object]], scale: float | None, channels: str
) -> None:
    opened = open_model(scaling(*steps))
    if scale is None:
        assert opened.preprocess is None
        return
    assert opened.preprocess is not None
    assert opened.preprocess.scale == pytest.approx(scale)
    assert (opened.preprocess.mean, opened.preprocess.std) == ((0.0,), (1.0,))
    assert opened.preprocess.channels == channels


NAMES = ["ant", "bee, wild", "cat", "dog"]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("names", repr(dict(enumerate(NAMES)))),
        ("names", json.dumps({str(i): name for i, name in enumerate(NAMES)})),
        ("classes", json.dumps(NAMES)),
        ("Labels", repr(tuple(NAMES))),
        ("id2label", repr({3: "dog", 0: "ant", 2: "cat", 1: "bee, wild"})),
    ],
)
def test_class_names_in_the_metadata(key: str, text: str) -> None:
    proto = gemm_model()
    proto.metadata_props.add(key=key, value=text)
    assert open_model(proto).class_names == tuple(NAMES)


@pytest.mark.parametrize("text", ["a,b,c", "[1, 2, 3, 4]", "{'x': 1}", "[" * 9999, "__import__('os').abort()", ""])
def test_metadata_that_names_no_classes_is_left_alone(text: str) -> None:
    proto = gemm_model()
    proto.metadata_props.add(key="names", value=text)
    assert open_model(proto).class_names is None


def test_class_names_may_be_plain_words() -> None:
    proto = gemm_model()
    proto.metadata_props.add(key="labels", value="a,b\nc, d")
    assert open_model(proto).class_names == ("a", "b", "c", "d")


def ultralytics(**said: str):
    proto = gemm_model(shape=("n", 3, "h", "w"))
    about = {"author": "Ultralytics", "task": "classify", "imgsz": "[8, 8]", "names": repr(dict(enumerate(NAMES)))}
    for key, text in (about | said).items():
        proto.metadata_props.add(key=key, value=text)
    return proto


def test_ultralytics_says_names_size_and_preprocessing() -> None:
    """Its classify_transforms: Resize(size), CenterCrop(size), ToTensor, mean 0 and deviation 1."""
    opened = open_model(ultralytics())
    assert opened.class_names == tuple(NAMES)
    assert (opened.input.height, opened.input.width) == (8, 8)
    p = opened.preprocess
    assert (p.height, p.width, p.fit, p.crop_share, p.scale, p.mean, p.std) == (8, 8, "crop", 1, 1 / 255, (0,), (1,))
    assert open_model(ultralytics(imgsz="[8, 16]")).preprocess.fit == "stretch"
    assert open_model(ultralytics(author="somebody")).preprocess is None


def test_a_detector_of_ultralytics_is_no_classifier() -> None:
    with pytest.raises(ModelError, match=r"task 'detect', not an image classifier.*-cls"):
        open_model(ultralytics(task="detect"))


# -- outputs ----------------------------------------------------------------------------------------------------------


def test_label_and_probabilities() -> None:
    trunk, w = body()
    nodes = [*trunk, *HEADS["gemm, softmax"][0], node("ArgMax", "y", "label", axis=1, keepdims=0)]
    opened = open_model(model(nodes, w | HEAD, outputs={"label": TensorProto.INT64, "y": TensorProto.FLOAT}))
    check_model(opened, images())
    assert opened.capabilities.classes == C


def test_auxiliary_heads_and_embeddings_lose_against_the_deepest_head() -> None:
    trunk, w = body()
    w |= weights(5, aux=(7, D), m2=(D, D)) | HEAD
    nodes = [*trunk, node("Gemm", "f aux", "a", transB=1), node("Gemm", "f m2", "f1"), node("Relu", "f1", "f2")]
    nodes += [node("Gemm", "f2 w b", "z", transB=1), node("Softmax", "z", "y")]
    proto = model(nodes, w, outputs=["y", "a", "f2"])
    opened = open_model(proto)
    assert opened.capabilities.classes == C
    assert any("'y'" in note for note in opened.notes)
    assert open_model(proto, head="a").capabilities.classes == 7
    assert open_model(proto, head="n_a").head.weight.shape == (7, D)


def test_what_is_no_softmax_classifier_says_so() -> None:
    trunk, w = body()
    gemm = node("Gemm", "f w b", "z", transB=1)
    with pytest.raises(ModelError, match=r"ends in Sigmoid.*exclude each other"):
        open_model(model([*trunk, gemm, node("Sigmoid", "z", "y")], w | HEAD))
    label = [*trunk, gemm, node("ArgMax", "z", "y", axis=1)]
    with pytest.raises(ModelError, match="not only the label"):
        open_model(model(label, w | HEAD, outputs={"y": TensorProto.INT64}))
    one = {"w": HEAD["w"][:1].copy(), "b": HEAD["b"][:1].copy()}
    with pytest.raises(ModelError, match="two classes"):
        open_model(model([*trunk, gemm], w | one, outputs=["z"]))
    with pytest.raises(ModelError, match=r"no \[n, c\] class scores"):
        open_model(model([node("Relu", "x", "y")], {}))


def test_several_inputs_are_named() -> None:
    proto = gemm_model()
    proto.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 5]))
    with pytest.raises(ModelError, match=r"2 inputs \(x .*mask"):
        open_model(proto)


def test_training_mode_is_found_out() -> None:
    trunk, w = body()
    w |= {name: np.ones(D, np.float32) for name in ("bs", "bb", "bm", "bv")} | HEAD
    trunk[3:] = [
        node("BatchNormalization", "p bs bb bm bv", "q rm rv", training_mode=1),
        node("Flatten", "q", "f"),
        node("Gemm", "f w b", "y", transB=1),
    ]
    with pytest.raises(ModelError, match="training mode"):
        open_model(model(trunk, w))


def test_a_head_that_does_not_reproduce_the_logits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from knownot.models.onnx import head as onnx_head

    real = onnx_head._linear

    def wrong(graph: object, node_: object) -> object:
        found = real(graph, node_)
        return found and (found[0], found[1] * 1.01, found[2])

    monkeypatch.setattr(onnx_head, "_linear", wrong)
    with pytest.raises(ModelError, match="does not reproduce"):
        open_model(gemm_model())


def test_control_flow_and_local_functions() -> None:
    trunk, w = body()
    branch = helper.make_graph([node("Relu", "f", "g1")], "b", [], [helper.make_empty_tensor_value_info("g1")])
    other = helper.make_graph([node("Identity", "f", "g2")], "o", [], [helper.make_empty_tensor_value_info("g2")])
    nodes = [*trunk, helper.make_node("If", ["yes"], ["g"], then_branch=branch, else_branch=other)]
    nodes += [node("my_head", "g w b", "y")]
    nodes[-1].domain = "local"
    proto = model(nodes, w | HEAD | {"yes": np.asarray(True)}, domains={"local": 1})
    proto.functions.append(
        helper.make_function(
            "local", "my_head", ["a", "b", "c"], ["o"],
            [helper.make_node("Gemm", ["a", "b", "c"], ["z"], transB=1), helper.make_node("Softmax", ["z"], ["o"])],
            [helper.make_opsetid("", 17)],
        )
    )  # fmt: skip
    before = proto.SerializeToString(deterministic=True)
    opened = open_model(proto)
    x = images()
    check_model(opened, x)
    assert "head" in opened.capabilities.outputs
    np.testing.assert_allclose(opened.activations(x).features, body_reference(x, w), rtol=1e-5, atol=1e-5)
    assert proto.SerializeToString(deterministic=True) == before


# -- files ------------------------------------------------------------------------------------------------------------


def test_the_users_model_is_untouched_and_comes_back_from_a_folder(tmp_path: Path) -> None:
    proto, _ = staged()
    before = proto.SerializeToString(deterministic=True)
    path = tmp_path / "mine.onnx"
    path.write_bytes(before)
    x = images(shape=(K, 16, 16))
    from_proto, from_file = open_model(proto), open_model(path)
    a, b = from_proto.activations(x).named(), from_file.activations(x).named()
    assert proto.SerializeToString(deterministic=True) == before
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["mine.onnx"]
    assert from_proto.fingerprint == from_file.fingerprint
    for opened, folder in ((from_proto, tmp_path / "a"), (from_file, tmp_path / "b")):
        assert opened.save(folder) == "model.onnx"
        again = open_model(folder / "model.onnx")
        assert (folder / "model.onnx").read_bytes() == before
        assert again.fingerprint == opened.fingerprint
        for path_, seen in again.activations(x).named().items():
            assert np.array_equal(seen, a[path_])
            assert np.array_equal(seen, b[path_])


def test_the_fingerprint_sees_one_changed_weight() -> None:
    one, other = gemm_model(), gemm_model()
    value = onnx.numpy_helper.to_array(other.graph.initializer[0]).copy()
    value.flat[0] += 1e-3
    other.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(value, other.graph.initializer[0].name))
    assert open_model(one).fingerprint == open_model(gemm_model()).fingerprint != open_model(other).fingerprint


def test_a_file_that_was_replaced_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(gemm_model(), path)
    opened = open_model(path)
    onnx.save(staged()[0], path)
    with pytest.raises(ModelError, match="changed or removed"):
        opened.save(tmp_path / "out")


def external(folder: Path, location: str = "weights.bin") -> Path:
    """The model in `folder` with every weight in another file."""
    path = folder / "m.onnx"
    onnx.save(gemm_model(), path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def test_external_data_stays_outside_and_is_saved_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").mkdir()
    path = external(tmp_path / "one")
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    plain = open_model(gemm_model())
    monkeypatch.chdir(tmp_path)
    opened = open_model("one/m.onnx")  # a relative path
    x = images()
    assert np.array_equal(opened.activations(x).logits, plain.activations(x).logits)
    check_model(opened, x)
    assert opened.fingerprint == plain.fingerprint
    opened.save(tmp_path / "two")
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before
    assert {p.name for p in (tmp_path / "two").iterdir()} == {"model.onnx", "weights.bin"}
    shutil.rmtree(tmp_path / "one")
    again = open_model(tmp_path / "two" / "model.onnx")
    assert again.fingerprint == opened.fingerprint
    assert np.array_equal(again.activations(x).logits, plain.activations(x).logits)


def test_half_precision(tmp_path: Path) -> None:
    trunk, w = body()
    half = {name: value.astype(np.float16) for name, value in (w | HEAD).items()}
    proto = model(
        [*trunk, *HEADS["gemm, softmax"][0]], half, dtype=TensorProto.FLOAT16, outputs={"y": TensorProto.FLOAT16}
    )
    opened = open_model(proto)
    x = images()
    check_model(opened, x, tolerance=1e-3)
    np.testing.assert_allclose(opened.activations(x).features, body_reference(x, w), rtol=1e-2, atol=1e-2)


def test_nan_in_images_is_an_error() -> None:
    opened = open_model(gemm_model())
    x = images()
    x[2, 0, 0, 0] = np.nan
    with pytest.raises(ActivationsError, match="image 2"):
        opened.activations(x)


# -- real networks ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet20(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, np.ndarray, dict[str, Path]]:
    """The trained network, 24 test images, and its exports by both exporters of torch."""
    import torch

    from helpers import resnet

    torch.set_num_threads(1)
    network = resnet.resnet20(shared)
    x = resnet.normalised(resnet.cifar10(shared, 24)[0])
    folder, example = tmp_path_factory.mktemp("resnet20"), (torch.from_numpy(x[:2]),)
    paths = {"dynamo": folder / "dynamo.onnx", "torchscript": folder / "torchscript.onnx"}
    with warnings.catch_warnings():  # of the exporters
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("n")},)
        torch.onnx.export(network, example, paths["dynamo"], dynamo=True, dynamic_shapes=shapes, verbose=False)
        axes = {"x": {0: "n"}}
        torch.onnx.export(
            network, example, paths["torchscript"], dynamo=False, input_names=["x"], dynamic_axes=axes, verbose=False
        )
    return network, x, paths


def torch_reference(network: object, x: np.ndarray) -> dict[str, np.ndarray]:
    """Logits, features and pooled stages by torch itself, in float64."""
    import torch
    import torch.nn.functional as F

    with torch.no_grad():
        net, t = network.double(), torch.from_numpy(x).double()
        maps = [F.relu(net.bn1(net.conv1(t)))]
        for layer in (net.layer1, net.layer2, net.layer3):
            maps.append(layer(maps[-1]))
        features = maps[-1].mean(dim=(2, 3))
        logits = net.linear(features)
        network.float()
    found = {"logits": logits.numpy(), "features": features.numpy()}
    for i, m in enumerate(maps[1:], 1):
        found[f"stages/stage{i}"] = np.concatenate([m.mean((2, 3)).numpy(), m.numpy().std(axis=(2, 3))], axis=1)
    return found


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_the_cifar_resnet_gives_torchs_own_activations(resnet20: tuple, exporter: str) -> None:
    network, x, paths = resnet20
    opened = open_model(paths[exporter])
    check_model(opened, x)
    assert opened.capabilities.stages == ("stage1", "stage2")
    seen, expected = opened.activations(x).named(), torch_reference(network, x)
    assert seen.keys() == expected.keys()
    assert (seen["stages/stage1"].shape[1], seen["stages/stage2"].shape[1]) == (2 * 16, 2 * 32)
    for path, value in expected.items():
        np.testing.assert_allclose(seen[path], value, rtol=1e-4, atol=2e-5, err_msg=path)


@pytest.mark.parametrize("per_channel", [False, True])
def test_int8_static_quantisation(resnet20: tuple, tmp_path: Path, per_channel: bool) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    _, x, paths = resnet20

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([x[:8], x[8:16]])

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"x": batch}

    quantised_path = tmp_path / "int8.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_static(
            str(paths["torchscript"]),
            str(quantised_path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
        )
    opened, exact = open_model(quantised_path), open_model(paths["torchscript"])
    check_model(opened, x, tolerance=1e-3)
    assert {"head", "features", "stages"} <= opened.capabilities.outputs
    assert opened.head.weight.shape == (10, 64)
    for name in ("stage1", "stage2"):  # a folded ReLU must still be seen
        a, b = opened.activations(x).stages[name], exact.activations(x).stages[name]
        assert np.median(np.abs(a - b)) < 0.05 * np.abs(b).mean()
    a, b = opened.activations(x).logits, exact.activations(x).logits
    assert (a.argmax(1) == b.argmax(1)).mean() > 0.9


def test_dynamic_quantisation_runs_one_by_one_and_says_what_is_missing(resnet20: tuple, tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    _, x, paths = resnet20
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_dynamic(str(paths["torchscript"]), str(tmp_path / "d.onnx"), op_types_to_quantize=["MatMul", "Gemm"])
    opened = open_model(tmp_path / "d.onnx")
    check_model(opened, x[:6])
    assert opened.input.batch == 1
    assert "logits" in opened.capabilities.outputs
    assert any("QuantFormat.QDQ" in note for note in opened.notes)


def test_half_precision_resnet_exported_in_float16(resnet20: tuple) -> None:
    """All weights of the graph in half precision, with a cast at either end."""
    _, x, paths = resnet20
    proto = onnx.load(paths["torchscript"])
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, tensor.name))
    for n in proto.graph.node:
        for a in n.attribute:
            if a.HasField("t") and a.t.data_type == TensorProto.FLOAT:
                a.t.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(a.t).astype(np.float16), a.t.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    del proto.graph.value_info[:]
    opened, exact = open_model(proto), open_model(paths["torchscript"])
    check_model(opened, x, tolerance=5e-3)
    np.testing.assert_allclose(opened.activations(x).logits, exact.activations(x).logits, atol=0.15)


def test_helpers_agree_with_onnxruntime() -> None:
    """The reference itself is checked once against the plain graph."""
    import onnxruntime

    proto = gemm_model()
    x = images()
    (y,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    logits = body_reference(x, ho.body()[1]) @ W.T + B
    e = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=1e-4, atol=1e-6)

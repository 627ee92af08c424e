"""Small ONNX classifiers built node by node, with their weights, so that NumPy can compute them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

K, D, C = 3, 6, 4  # channels, features, classes


def weights(seed: int = 0, **shapes: Sequence[int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def node(op: str, inputs: str, outputs: str, **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=f"n_{outputs.split()[0]}", **attributes)


def model(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, np.ndarray],
    *,
    shape: Sequence[int | str] = ("n", K, 8, 8),
    dtype: int = TensorProto.FLOAT,
    outputs: Mapping[str, int] | Sequence[str] = ("y",),
    opset: int = 17,
    ir_version: int = 8,
    domains: Mapping[str, int] | None = None,
) -> ModelProto:
    kinds = outputs if isinstance(outputs, Mapping) else dict.fromkeys(outputs, TensorProto.FLOAT)
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", dtype, list(shape))],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(d, v) for d, v in (domains or {}).items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def body(seed: int = 0) -> tuple[list[NodeProto], dict[str, np.ndarray]]:
    """x [n, 3, 8, 8] -> f [n, 6]: a 1x1 convolution, ReLU, global average pooling."""
    constants = weights(seed, k=(D, K, 1, 1), kb=(D,))
    nodes = [node("Conv", "x k kb", "m"), node("Relu", "m", "r"), node("GlobalAveragePool", "r", "p")]
    return [*nodes, node("Flatten", "p", "f")], constants


def body_reference(x: np.ndarray, w: Mapping[str, np.ndarray]) -> np.ndarray:
    """`body` in float64. x: [n, 3, h, w]."""
    maps = np.einsum("nkhw,dk->ndhw", x.astype(np.float64), w["k"][:, :, 0, 0].astype(np.float64))
    return np.maximum(maps + w["kb"].astype(np.float64)[None, :, None, None], 0).mean(axis=(2, 3))


def images(n: int = 5, shape: Sequence[int] = (K, 8, 8), seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).random((n, *shape), dtype=np.float32)

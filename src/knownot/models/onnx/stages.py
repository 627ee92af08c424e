"""The stages of an ONNX graph: what it computes last at each spatial resolution, pooled inside the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..stages import AXES, Candidate, choose_stages
from .graph import Graph, attribute

WEIGHTED = {"Conv", "ConvTranspose", "MatMul", "Gemm", "FusedConv", "ConvInteger", "QLinearConv", "MatMulInteger"}
COMPUTING = {
    *("Conv", "ConvTranspose", "FusedConv", "BatchNormalization", "InstanceNormalization", "LayerNormalization"),
    *("GroupNormalization", "LpNormalization", "LRN", "SkipLayerNormalization", "SimplifiedLayerNormalization"),
    *("Relu", "LeakyRelu", "PRelu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Elu", "Selu", "Celu"),
    *("Gelu", "BiasGelu", "FastGelu", "QuickGelu", "Softplus", "Softsign", "Mish", "Swish", "ThresholdedRelu"),
    *("Add", "Sub", "Mul", "Div", "Sum", "Max", "Min", "Concat"),
}
ALWAYS_NCHW = {
    *("Conv", "ConvTranspose", "FusedConv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LRN"),
    *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "DepthToSpace", "SpaceToDepth"),
}
FORGETS = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Gather", "Einsum", "MatMul", "Gemm", "Shape"}
TURNED = {("NCHW", 0, 2, 3, 1): "NHWC", ("NHWC", 0, 3, 1, 2): "NCHW"}  # (layout, *perm): layout


def candidates(graph: Graph, tensors: Sequence[str]) -> list[str]:
    """Computed tensors upstream of `tensors` and downstream of a first weighted layer, in order of computation.

    What stands before any weight (scaling of the pixels) is no stage. In a graph with quantise-dequantise pairs the
    dequantised tensor is taken: it is what the rest of the network sees, a folded ReLU included.
    """
    upstream, weighted, found = graph.upstream(tensors), set[str](), list[str]()
    for node in graph.nodes:
        if node.op_type in WEIGHTED or weighted.intersection(node.input):
            weighted.update(node.output)
            if node.op_type in COMPUTING and node.output[0] in upstream:
                found.append(_seen(graph, node.output[0]))
    return list(dict.fromkeys(found))


def layouts(graph: Graph, of_input: str) -> dict[str, str]:
    """{tensor: "NCHW" or "NHWC"} as far as convolutions and transpositions tell."""
    known = {v.name: of_input for v in graph.inputs}
    for node in graph.nodes:
        given = next((known[name] for name in node.input if name in known), None)
        if node.op_type in ALWAYS_NCHW:
            given = "NCHW"
        elif node.op_type == "Transpose":
            given = TURNED.get((given, *attribute(node, "perm", ())))  # of an unknown one, as in attention: unknown
        elif node.op_type in FORGETS:
            given = None
        if given:
            known.update(dict.fromkeys(node.output, given))
    return known


def choose(graph: Graph, shapes: Mapping[str, Sequence[int]], layout: Mapping[str, str], n: int) -> dict[str, str]:
    """{tensor: layout} of the stages (`models.stages`), from the shapes seen on a probe of n images."""
    found: dict[str, Candidate] = {}
    for name, shape in shapes.items():
        if not shape or shape[0] != n:
            continue
        if len(shape) == 4 and name in layout:
            found[name] = Candidate(layout[name], tuple(shape))
        elif len(shape) == 3 and _residual(graph, name):
            found[name] = Candidate("NTC", tuple(shape), closes_block=True)
    names = list(found)
    return {names[i]: found[names[i]].layout for i in choose_stages(list(found.values()))}


def _residual(graph: Graph, tensor: str) -> bool:
    node = graph.producer[tensor]
    while node.op_type in ("DequantizeLinear", "QuantizeLinear"):
        node = graph.producer[node.input[0]]
    return node.op_type == "SkipLayerNormalization" or (
        node.op_type in ("Add", "Sum") and not graph.constants.intersection(node.input)
    )


def _seen(graph: Graph, tensor: str) -> str:
    readers = graph.consumers.get(tensor, [])
    if len(readers) == 1 and readers[0].op_type == "QuantizeLinear":
        for reader in graph.consumers.get(readers[0].output[0], []):
            if reader.op_type == "DequantizeLinear":
                return str(reader.output[0])
    return tensor


# -- nodes that are added to the graph --------------------------------------------------------------------------------


def flat(tensor: str, name: str) -> Iterator[NodeProto]:
    """`tensor` as float32 [n, everything else]."""
    yield helper.make_node("Cast", [tensor], [f"{name}/cast"], to=TensorProto.FLOAT)
    yield helper.make_node("Flatten", [f"{name}/cast"], [name], axis=1)


def mean(tensor: str, name: str, layout: str, opset: int) -> Iterator[NodeProto]:
    """Per-channel mean over space, float32 [n, k]."""
    yield helper.make_node("Cast", [tensor], [f"{name}/cast"], to=TensorProto.FLOAT)
    yield from _mean(f"{name}/cast", f"{name}/mean", layout, opset)
    yield helper.make_node("Flatten", [f"{name}/mean"], [name], axis=1)


def mean_and_std(tensor: str, name: str, layout: str, opset: int) -> Iterator[NodeProto]:
    """Per-channel mean and population standard deviation over space, side by side, float32 [n, 2k].

    The variance is the mean of squared deviations: the difference of two squares would cancel.
    """
    yield from mean(tensor, f"{name}/m", layout, opset)
    yield helper.make_node("Sub", [f"{name}/m/cast", f"{name}/m/mean"], [f"{name}/deviation"])
    yield helper.make_node("Mul", [f"{name}/deviation", f"{name}/deviation"], [f"{name}/square"])
    yield from _mean(f"{name}/square", f"{name}/variance", layout, opset)
    yield helper.make_node("Sqrt", [f"{name}/variance"], [f"{name}/root"])
    yield helper.make_node("Flatten", [f"{name}/root"], [f"{name}/std"], axis=1)
    yield helper.make_node("Concat", [f"{name}/m", f"{name}/std"], [name], axis=1)


def channels_first(tensor: str, name: str, layout: str, opset: int) -> Iterator[NodeProto]:
    """`tensor` as float32 [n, k, h, w]; tokens as [n, k, t, 1]."""
    if layout == "NTC":
        axis = np.asarray([2], np.int64)
        if opset < 13:  # from 13 on the axes are an input
            yield helper.make_node("Unsqueeze", [tensor], [f"{name}/pixels"], axes=axis.tolist())
        else:
            yield helper.make_node("Constant", [], [f"{name}/axes"], value=numpy_helper.from_array(axis))
            yield helper.make_node("Unsqueeze", [tensor, f"{name}/axes"], [f"{name}/pixels"])
        tensor = f"{name}/pixels"
    if layout != "NCHW":
        yield helper.make_node("Transpose", [tensor], [f"{name}/turned"], perm=[0, 3, 1, 2])
        tensor = f"{name}/turned"
    yield helper.make_node("Cast", [tensor], [name], to=TensorProto.FLOAT)


def _mean(tensor: str, name: str, layout: str, opset: int) -> Iterator[NodeProto]:
    axes = list(AXES[layout])
    if opset < 18:  # from 18 on the axes are an input
        yield helper.make_node("ReduceMean", [tensor], [name], axes=axes, keepdims=1)
    else:
        value = numpy_helper.from_array(np.asarray(axes, np.int64))
        yield helper.make_node("Constant", [], [f"{name}/axes"], value=value)
        yield helper.make_node("ReduceMean", [tensor, f"{name}/axes"], [name], keepdims=1)

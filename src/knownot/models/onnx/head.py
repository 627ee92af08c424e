"""The last linear layer of an ONNX graph, found by walking back from an output."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from onnx import NodeProto

from ...arrays import Head
from .graph import Graph, attribute

SAME_VALUES = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"}
THROUGH = SAME_VALUES | {"QuantizeLinear", "DequantizeLinear"}
POOLS = {"GlobalAveragePool", "ReduceMean", "AveragePool"}
ACTIVATIONS = {"Relu", "LeakyRelu", "PRelu", "Elu", "Clip", "HardSwish", "Gelu"}
AFFINE = {"Add", "Sub", "Mul", "Div"}
INTEGER = {
    "QGemm",
    "QLinearMatMul",
    "QLinearConv",
    "QLinearAdd",
    "MatMulInteger",
    "DynamicQuantizeMatMul",
    "ConvInteger",
}
SIGMOIDS = {"Sigmoid", "HardSigmoid"}
LINEAR = {"Gemm", "MatMul", "Conv"}


@dataclass(frozen=True)
class Found:
    """What lies behind one output.

    logits: the tensor before Softmax, [n, c] once flattened. end: the operation that makes it.
    features: the tensor that the linear layer reads, None where there is none; to be averaged over space if `pooled`.
    head: the layer, None when something that is not linear follows it; `why` says what.
    share: the output is probabilities whose logits cannot be had, so that their logarithm stands for these.
    """

    output: str
    logits: str
    end: str
    softmax: bool
    codes: tuple[str, str] = ("", "")  # scale and zero point, where `logits` are the codes of quantised numbers
    twice: bool = False  # a softmax of a softmax: the logits are the inner one's probabilities
    features: str | None = None
    pooled: bool = False
    head: Head | None = None
    why: str = ""
    share: bool = False


@dataclass
class _Affine:
    """y * scale + shift per class, gathered on the way back."""

    scale: np.ndarray = field(default_factory=lambda: np.ones(1))
    shift: np.ndarray = field(default_factory=lambda: np.zeros(1))

    def takes(self, constant: np.ndarray) -> bool:
        """Whether a constant is one number, or one for each class, as far as is known."""
        return len({self.scale.size, self.shift.size, constant.size} - {1}) <= 1

    def before(self, op: str, constant: np.ndarray) -> None:
        """Put y := y op constant in front of what was gathered."""
        value = constant.astype(np.float64).reshape(-1)
        if op in ("Add", "Sub"):
            self.shift = self.shift + self.scale * (value if op == "Add" else -value)
        else:
            self.scale = self.scale * (value if op == "Mul" else 1 / value)

    def head(self, weight: np.ndarray, bias: np.ndarray | None) -> Head | None:
        """Of weight [c, d] and bias [c] or [1]; None when shapes do not agree."""
        c = weight.shape[0]
        bias = np.zeros(1) if bias is None else np.asarray(bias, np.float64).reshape(-1)
        if {self.scale.size, self.shift.size, bias.size} - {1, c}:
            return None
        full = np.broadcast_to(self.scale * bias + self.shift, (c,))
        weight = weight.astype(np.float64) * np.broadcast_to(self.scale, (c,))[:, None]
        return Head(np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(full, np.float32))


def find(graph: Graph, output: str) -> Found:
    """Walk back from `output` to the tensor before Softmax, and on to the linear layer."""
    logits, softmax, codes = _before_softmax(graph, output)
    end = graph.producer.get(logits)
    base = Found(output=output, logits=logits, end=end.op_type if end else "input", softmax=softmax, codes=codes)
    if softmax and (behind := _probabilities(graph, logits)):
        inner = find(graph, behind)
        why = "its output is the softmax of a softmax"
        return replace(base, twice=True, features=inner.features, pooled=inner.pooled, why=why)
    affine, pooled, active, tensor = _Affine(), False, "", logits
    while (node := graph.producer.get(tensor)) is not None:
        operands = _constant_operand(graph, node)
        if operands is not None and not affine.takes(operands[1]):
            break
        if node.op_type in THROUGH or node.op_type == "Transpose":
            tensor = node.input[0]
        elif node.op_type in POOLS:
            pooled, tensor = True, node.input[0]
        elif operands is not None:
            tensor, constant = operands
            affine.before(node.op_type, constant)
        elif pooled and node.op_type in ACTIVATIONS and not active:
            active, tensor = node.op_type, node.input[0]
        else:
            break
    why = f"{node.op_type} {node.name!r} precedes the output, and that is no linear layer" if node else "none was found"
    if node is None:
        return replace(base, why=why)
    if integer := _integer(graph, node):
        why = (
            f"the last layer is {integer}, of the integer-operator format (quantise statically with "
            "quant_format=QuantFormat.QDQ to have features and head)"
        )
    layer = _linear(graph, node)
    if layer is None:
        return replace(base, why=why)
    features, weight, bias = layer
    if not pooled:
        head = affine.head(weight.reshape(len(weight), -1), bias)
        return replace(base, features=features if head else None, head=head, why="" if head else why)
    if node.op_type != "Conv":
        return replace(base, why="its outputs are averaged over positions before the output")
    pointwise = weight.shape[2:] == (1,) * (weight.ndim - 2) and _plain(node)
    head = affine.head(weight.reshape(len(weight), -1), bias) if pointwise and not active else None
    between = (
        f"{active} stands between" if active else "padding, strides or a window wider than one pixel stand between"
    )
    why = "" if head else f"{between} the last layer's features and their average"
    return replace(base, features=features, pooled=True, head=head, why=why)


def whole_layer(graph: Graph, tensor: str) -> str:
    """`tensor`, or what the addition of a bias makes of it: for a MatMul that was named by hand."""
    reader = graph.only_consumer(tensor)
    if reader is not None and reader.op_type == "Add" and _constant_operand(graph, reader):
        return str(reader.output[0])
    return tensor


def layer_names(graph: Graph) -> list[str]:
    """Names of nodes and outputs that can be given as the head."""
    nodes = [n for n in graph.nodes if n.op_type in LINEAR and n.input[0] not in graph.constants]
    return [*(n.name for n in nodes if n.name), *(n.output[0] for n in nodes), *(o.name for o in graph.outputs)]


def _before_softmax(graph: Graph, tensor: str) -> tuple[str, bool, tuple[str, str]]:
    """(the tensor before the last softmax, whether there is one, scale and zero point if the tensor holds codes).

    What is done to the numbers before (a pair that quantises and dequantises) or to the probabilities after (logarithm,
    percent, a clip) is stepped over; `proof` compares with what the file gives.
    """
    if probabilities := _probabilities(graph, tensor):
        node = graph.producer[probabilities]
        inner = _softmax_input(graph, node)
        assert inner is not None  # that is how it was found
        if node.op_type != "QLinearSoftmax":
            return _plain_tensor(graph, inner), True, ("", "")
        before = graph.producer.get(_same(graph, inner))
        if before is not None and before.op_type == "QuantizeLinear":
            return _plain_tensor(graph, str(before.input[0])), True, ("", "")
        return inner, True, (str(node.input[1]), str(node.input[2]))
    return _plain_tensor(graph, tensor), False, ("", "")


def _plain_tensor(graph: Graph, tensor: str) -> str:
    """Back over operations that leave the values as they are, rounding aside."""
    while (node := graph.producer.get(tensor)) is not None:
        if node.op_type == "DequantizeLinear":
            pair = graph.producer.get(_same(graph, node.input[0]))
            if pair is None or pair.op_type != "QuantizeLinear":
                break  # codes of an integer operation: only this makes numbers of them
            tensor = str(pair.input[0])
        elif node.op_type in SAME_VALUES:
            tensor = str(node.input[0])
        else:
            break
    return tensor


def _same(graph: Graph, tensor: str) -> str:
    while (node := graph.producer.get(tensor)) is not None and node.op_type in SAME_VALUES:
        tensor = str(node.input[0])
    return tensor


def _probabilities(graph: Graph, tensor: str) -> str | None:
    """The output of a softmax that `tensor` says again, maybe as logarithms, percent or codes; None without one."""
    while (node := graph.producer.get(tensor)) is not None:
        if _softmax_input(graph, node) is not None:
            return tensor
        operands = _constant_operand(graph, node)
        if node.op_type in THROUGH or node.op_type in ("Log", "Clip"):
            tensor = str(node.input[0])
        elif node.op_type in ("Mul", "Div", "Add") and operands is not None and operands[1].size == 1:
            tensor = operands[0]
        else:
            return None
    return None


def _softmax_input(graph: Graph, node: NodeProto) -> str | None:
    """x for Softmax(x), LogSoftmax(x) and exp(x - max x) / sum(exp(x - max x)) spelt out."""
    if node.op_type in ("Softmax", "LogSoftmax", "QLinearSoftmax"):
        return str(node.input[0])
    if node.op_type != "Div":
        return None
    top, under = (graph.producer.get(name) for name in node.input)
    while under is not None and under.op_type in SAME_VALUES | {"Expand"}:
        under = graph.producer.get(under.input[0])
    if top is None or under is None or top.op_type != "Exp" or under.op_type != "ReduceSum":
        return None
    if under.input[0] != node.input[0]:
        return None
    shifted = graph.producer.get(top.input[0])
    if shifted is not None and shifted.op_type == "Sub" and shifted.input[1] not in graph.constants:
        return str(shifted.input[0])
    return str(top.input[0])


def _constant_operand(graph: Graph, node: NodeProto) -> tuple[str, np.ndarray] | None:
    """(the other tensor, the constant) of x + b, b + x, x - b, a * x, x * a, x / a."""
    if node.op_type not in AFFINE:
        return None
    first, second = node.input
    if (value := graph.value(second)) is not None and first not in graph.constants:
        return str(first), value
    if node.op_type in ("Add", "Mul") and second not in graph.constants and (value := graph.value(first)) is not None:
        return str(second), value
    return None


def _integer(graph: Graph, node: NodeProto) -> str:
    """The operator's name if `node` computes in integers, or rescales what does, as dynamic quantisation leaves it."""
    near = [node] + [graph.producer[name] for name in node.input if name in graph.producer]
    near += [graph.producer[n.input[0]] for n in near[1:] if n.op_type == "Cast" and n.input[0] in graph.producer]
    return next((n.op_type for n in near if n.op_type in INTEGER), "")


def _linear(graph: Graph, node: NodeProto) -> tuple[str, np.ndarray, np.ndarray | None] | None:
    """(features, weight [c, d] or a kernel [c, k, h, w], bias) of a linear layer with constant weights."""
    if node.op_type not in LINEAR:
        return None
    weight = graph.value(node.input[1])
    if weight is None:
        return None
    bias = None
    if len(node.input) > 2 and node.input[2]:
        bias = graph.value(node.input[2])
        if bias is None:
            return None
    if node.op_type == "Conv":
        return (str(node.input[0]), weight, bias) if attribute(node, "group", 1) == 1 and weight.ndim > 2 else None
    if weight.ndim != 2 or attribute(node, "transA", 0):
        return None
    if node.op_type == "MatMul":
        return str(node.input[0]), weight.T, None
    weight = weight if attribute(node, "transB", 0) else weight.T
    bias = None if bias is None else bias.astype(np.float64) * attribute(node, "beta", 1.0)
    return str(node.input[0]), weight.astype(np.float64) * attribute(node, "alpha", 1.0), bias


def _plain(conv: NodeProto) -> bool:
    """Whether a 1x1 convolution reads every pixel once: no padding, no stride."""
    return not any(attribute(conv, "pads", ())) and set(attribute(conv, "strides", (1,))) == {1}

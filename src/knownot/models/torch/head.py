"""Finding the last linear layer in a recorded pass, by following the output back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from ...arrays import Head
from ...errors import ModelError, unknown_name
from . import ops
from .trace import Node, Recorder, Take

INPUT_NAMES = {"linear": "input", "addmm": "mat1", "mm": "self", "matmul": "self"}
WEIGHT_NAMES = {"linear": "weight", "addmm": "mat2", "mm": "mat2", "matmul": "other"}


@dataclass
class Found:
    """The end of a classifier: where its logits and features are, and its head.

    takes: {step: what to keep}; without one of key "logits" the output itself is them.
    """

    head: Head | None
    takes: list[tuple[int, Take]]
    notes: list[str]
    exact: bool = True  # logits themselves, not log-probabilities
    softmax: bool = False
    probabilities: bool = False  # the output is probabilities, and nothing before the softmax can be had


def find(recorder: Recorder, output: torch.Tensor, n: int, named: str | None = None) -> Found:
    """The head by which `output` [n, c] comes about, or the layer `named`.

    Raises ModelError for sigmoid outputs and for a softmax over the batch; OptionError for an unknown name.
    """
    c = output.numel() // n
    node = recorder.node_of(output)
    if node is None or not node.depends:
        raise ModelError("The classifier's output does not depend on its input.")
    end, soft = _before_softmax(node)
    found = Found(None, [], [], softmax=soft is not None)
    if soft is not None and soft.step is not None:
        found.takes.append((soft.step, Take("logits", "self", _rows)))
        kind = "log-softmax" if "log" in soft.name else "softmax"
        found.notes.append(f"The model ends in a {kind}; its logits are read before it.")
    way = (
        _named(recorder, named, n, c)
        if named
        else _linear_way(end, n, c) or _by_value(recorder, output, end, n, c, found)
    )
    if way is None:
        _without_head(recorder, end, output, n, c, found)
        return found
    linear, scale, shift, pooled = way
    weight, bias = _weights(linear, c)
    found.head = Head((weight * scale).astype(np.float32), (bias * scale + shift).astype(np.float32))
    found.takes.append((_step(linear), Take("features", _input_name(linear), _pool if pooled else _rows)))
    found.notes.append(
        f"Head: {linear.name} of layer {linear.layer or '(no name)'!r}, {weight.shape[1]} features to {c} classes."
    )
    return found


def _rows(x: torch.Tensor) -> torch.Tensor:  # [n, ...] -> [n, everything else]
    return x.reshape(x.shape[0], -1)


def _pool(x: torch.Tensor) -> torch.Tensor:  # [n, k, h, w] -> [n, k]
    return x.float().mean(dim=(2, 3))


def _before_softmax(node: Node) -> tuple[Node, Node | None]:
    """The node of the logits, and the last softmax passed on the way, if any."""
    soft = None
    while len(node.sources) == 1:
        if node.name in ops.SOFTMAX:
            axis = node.given["dim"] % len(node.shape)
            if axis == 0 or prod(node.shape[1:]) != node.shape[axis]:
                raise ModelError(
                    f"The classifier's {node.name} runs over axis {axis} of a tensor of shape {node.shape}: its "
                    "probabilities do not add up to 1 over the classes. Use dim=1."
                )
            soft = node
        elif node.name == "sigmoid":
            raise ModelError(
                "The classifier ends in a sigmoid: one yes or no per class (multi-label), or a single output. knownot "
                "needs exactly one label per image. If each of your images has one label, give the model without its "
                "sigmoid, so that it returns the logits [n, c]."
            )
        elif node.name not in ops.FREE:
            break
        node = node.sources[0]
    return node, soft


def _linear_way(node: Node, n: int, c: int) -> tuple[Node, float, np.ndarray, bool] | None:
    """(linear node, scale, shift, pooled) with logits = scale * (linear, averaged if pooled) + shift; or None."""
    scale, shift, pooled = 1.0, np.zeros(c), False
    while True:
        if _is_linear(node) and (usable := _usable(node, n, c, pooled)):
            return node, scale, shift, usable == "pooled"
        if len(node.sources) != 1:
            return None
        source = node.sources[0]
        if node.name in ops.AVERAGE:
            if len(source.shape) != 4 or source.layout != "NCHW" or prod(node.shape) != n * c:
                return None
            pooled = True
        elif node.name in ("add", "sub", "mul", "div"):
            constant = _constant_operand(node, c)
            if constant is None:
                return None
            if node.name in ("add", "sub"):
                sign = 1.0 if node.name == "add" else -1.0
                shift = shift + scale * sign * float(node.given.get("alpha", 1)) * constant
            elif constant.size == 1:
                scale *= float(constant.reshape(())) ** (1 if node.name == "mul" else -1)
            else:
                return None
        elif node.name not in ops.FREE:
            return None
        node = source


def _constant_operand(node: Node, c: int) -> np.ndarray | None:
    """The second operand of node (x + a, x * a …) where it does not depend on the images: [c] or one number."""
    values = [v for k, v in node.given.items() if k in ("self", "other")]
    source = node.sources[0]
    if node.name in ("sub", "div") and not any(values[0] is t for t in source.outs):
        return None  # a - x, a / x
    other = next((v for v in values if not any(v is t for t in source.outs)), None)
    if isinstance(other, bool | int | float):
        return np.asarray(float(other))
    if isinstance(other, torch.Tensor) and other.numel() in (1, c):
        return np.asarray(_numpy(other), dtype=np.float64).reshape(-1 if other.numel() == c else ())
    return None


def _is_linear(node: Node) -> bool:
    if len(node.sources) != 1 or not (node.name in ops.LINEAR or ops.is_conv(node.name)):
        return False
    return isinstance(_weight_of(node), torch.Tensor) and _weight_of(node) is not node.sources[0].out


def _weight_of(node: Node) -> Any:
    return node.given.get(WEIGHT_NAMES.get(node.name, "weight"))


def _input_name(node: Node) -> str:
    return INPUT_NAMES.get(node.name, "input")


def _usable(node: Node, n: int, c: int, pooled: bool) -> str:
    """How the features are had from a linear node's input: "rows", "pooled", or "" when it is no head."""
    source = node.sources[0]
    if node.name in ops.LINEAR:
        same_input = any(node.given.get(_input_name(node)) is t for t in source.outs)
        flat = prod(node.shape) == n * c and _weight_of(node).ndim == 2
        return "rows" if same_input and flat and not pooled else ""
    k, h, w = node.given["weight"].shape[1:] if node.given["weight"].ndim == 4 else (0, 0, 0)
    padding = node.given.get("padding", 0)
    plain = (
        node.given.get("groups", 1) == 1
        and not node.given.get("transposed", False)
        and (padding == "valid" or not np.any(0 if isinstance(padding, str) else padding))
        and len(source.shape) == 4
        and node.shape[:2] == (n, c)
    )
    if not plain:
        return ""
    if not pooled and node.shape[2:] == (1, 1) and source.shape[1:] == (k, h, w):
        return "rows"
    stride_one = np.all(np.asarray(node.given.get("stride", 1)) == 1)
    return "pooled" if pooled and (h, w) == (1, 1) and stride_one else ""


def _weights(node: Node, c: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight [c, d] and bias [c] in float64."""
    weight = _numpy(_weight_of(node))
    if node.name in ("addmm", "mm", "matmul"):
        weight = weight.T
    weight = weight.reshape(c, -1).astype(np.float64) * float(node.given.get("alpha", 1))
    bias = node.given.get("self") if node.name == "addmm" else node.given.get("bias")
    if bias is None:
        return weight, np.zeros(c)
    row = np.broadcast_to(_numpy(bias).astype(np.float64), (1, c)).reshape(c)
    return weight, row * float(node.given.get("beta", 1))


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    dense = tensor.to_dense() if tensor.layout != torch.strided else tensor
    return dense.detach().cpu().to(torch.float64 if dense.dtype == torch.float64 else torch.float32).numpy()


def _step(node: Node) -> int:
    assert node.step is not None
    return node.step


def _named(recorder: Recorder, name: str, n: int, c: int) -> tuple[Node, float, np.ndarray, bool]:
    linear = [node for node in recorder.steps if _is_linear(node) and node.layer]
    here = [node for node in linear if node.layer == name]
    if not here:
        fully = {node.layer for node in linear if node.name in ops.LINEAR}
        raise unknown_name("linear layer", name, fully or {node.layer for node in linear})
    node = here[-1]
    for pooled in (False, True):
        if usable := _usable(node, n, c, pooled):
            return node, 1.0, np.zeros(c), usable == "pooled"
    raise ModelError(
        f"Layer {name!r} cannot be the head: its output has shape {node.shape}, the classifier's [{n}, {c}]."
    )


def _by_value(
    recorder: Recorder, output: torch.Tensor, end: Node, n: int, c: int, found: Found
) -> tuple[Node, float, np.ndarray, bool] | None:
    """The last linear node whose output is the logits of `output`, told by the numbers: hand-written softmax."""
    wanted = _numpy(output).reshape(n, c).astype(np.float64)
    before = end.ancestors()
    for node in reversed(recorder.steps):
        if node not in before or not _is_linear(node) or not _usable(node, n, c, False) or node.out is None:
            continue
        z = _numpy(node.out).reshape(n, c).astype(np.float64)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            made: Mapping[str, np.ndarray] = {"softmax": p, "log-softmax": np.log(p)}
        for kind, values in made.items():
            if np.allclose(values, wanted, rtol=1e-4, atol=1e-6):
                found.softmax = True
                found.takes.append((_step(node), Take("logits", "", _rows)))
                found.notes.append(f"The model ends in a {kind} written out; its logits are read before it.")
                return node, 1.0, np.zeros(c), False
    return None


def _without_head(recorder: Recorder, end: Node, output: torch.Tensor, n: int, c: int, found: Found) -> None:
    """Features where there is no linear head: what the last linear operation with c outputs reads."""
    values = _numpy(output).reshape(n, c).astype(np.float64)
    if not found.softmax and values.min() >= 0 and np.allclose(values.sum(axis=1), 1, atol=1e-3):
        found.exact, found.probabilities = False, True
        found.notes.append("The model gives probabilities; logits are their logarithms, known up to a constant.")
    before = end.ancestors() | {end}
    for node in reversed(recorder.steps):
        if node not in before or not _is_linear(node):
            continue
        pooled = ops.is_conv(node.name) and len(node.shape) == 4 and node.shape[2:] != (1, 1)
        if node.shape[:2] == (n, c) and (pooled or prod(node.shape) == n * c):
            found.takes.append((_step(node), Take("features", _input_name(node), _pool if pooled else _rows)))
            found.notes.append(
                f"No linear head: something is computed between {node.name} of layer {node.layer!r} and the output. "
                "Features are what this layer reads" + (", averaged over space." if pooled else ".")
            )
            return
    found.notes.append("No linear head and no features were found; name the last linear layer with head=.")

"""Find the last linear layer among the calls of a Keras classifier, and read what goes into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from ...arrays import Head
from ...errors import ModelError
from .backend import to_numpy
from .walk import Call, Op

SIGMOID = (
    "The classifier ends in a sigmoid{of}: {what}. knownot tells which images belong to none of the classes of a "
    "softmax classifier: one that has at least two classes which exclude one another. {cure}"
)
ONE = (
    "For two classes, build m2 = keras.Sequential([keras.Model(m.inputs, m.layers[-1].input), "
    "keras.layers.Dense(2, activation='softmax')]), which is an equal model. Take w, b = m.layers[-1].get_weights(), "
    "and give the last layer of m2 the weights [np.hstack([0 * w, w]), np.hstack([0 * b, b])]."
)
MANY = (
    "If the classes do exclude one another, give the last layer activation='softmax' and train it again; if not "
    "(multi-label), this is not the tool."
)


@dataclass(frozen=True)
class Tail:
    """How a classifier ends. call: index of its last linear layer, None when it is not seen.

    softmax: whether the output is a softmax of what comes before; None when that does not show.
    clean: whether nothing but softmax, pooling and reshaping comes after the linear layer.
    before: index of a softmax that is a layer of its own, whose input are the logits.
    """

    call: int | None
    softmax: bool | None
    clean: bool
    before: int | None = None


def activation_of(op: Op) -> str:
    """ "softmax", "linear", "relu", …: what a layer or operation applies last; "" for none of the kind."""
    own = type(op).__name__
    if own in ("Softmax", "LogSoftmax", "Sigmoid", "ReLU", "Relu", "Identity"):
        return {"LogSoftmax": "softmax", "Softmax": "softmax", "Identity": "linear"}.get(own, own.lower())
    name = getattr(getattr(op, "activation", None), "__name__", "")
    return "softmax" if name == "log_softmax" else name


def single(x: Any) -> bool:
    return hasattr(x, "shape") and not isinstance(x, list | tuple | dict)


def is_conv(op: Op) -> bool:
    return isinstance(op, keras.layers.Conv2D) and op.groups == 1 and tuple(op.dilation_rate) == (1, 1)


def is_linear(op: Op) -> bool:
    return isinstance(op, keras.layers.Dense) or is_conv(op)


def channel_axis(op: Op) -> int:
    return 1 if getattr(op, "data_format", None) == "channels_first" else 3


def space(shape: tuple[int, ...], op: Op) -> tuple[int, int]:
    return (shape[2], shape[3]) if channel_axis(op) == 1 else (shape[1], shape[2])


def _is_pooling(call: Call) -> bool:
    """Whether the call averages a whole map."""
    kind, shape = type(call.op).__name__, tuple(call.args[0].shape)
    if kind == "AveragePooling2D":
        return len(shape) == 4 and tuple(call.op.pool_size) == space(shape, call.op) and 1 in call.output.shape[1:]
    if kind == "Mean" and len(shape) == 4:
        axes = call.op.axis if isinstance(call.op.axis, list | tuple) else [call.op.axis]
        return sorted(a % 4 for a in axes if a is not None) in ([1, 2], [2, 3])
    return kind == "GlobalAveragePooling2D"


def _is_reshaping(op: Op) -> bool:
    return type(op).__name__ in ("Flatten", "Reshape", "Squeeze", "Dropout", "SpatialDropout2D", "Cast")


def find_tail(calls: list[Call], output: Any) -> Tail:
    """Walk back from `output` to the last Dense or Conv2D. Raises ModelError for outputs that are no softmax's."""
    made: dict[int, int] = {}
    for i, call in enumerate(calls):
        if single(call.output):
            made.setdefault(id(call.output), i)  # the first: a Dropout in inference hands its input on
    x, softmax, clean, pooled, before = output, False, True, False, None
    while (i := made.get(id(x), -1)) >= 0:
        call = calls[i]
        activation = activation_of(call.op)
        if activation == "softmax":
            softmax, clean = True, clean and not pooled
            before = i if not is_linear(call.op) and len(call.args[0].shape) == 2 else before
        elif activation not in ("", "linear"):
            if not softmax:
                _refuse(call, activation, int(output.shape[-1]))
            clean = False
        if is_linear(call.op):
            whole = pooled or not is_conv(call.op) or space(tuple(call.output.shape), call.op) == (1, 1)
            return Tail(i, softmax, clean and whole, before)
        inputs = [a for a in call.args if single(a)]
        if len(inputs) != 1 or not single(call.args[0]):
            break
        if _is_pooling(call):
            pooled = True
        elif not activation and not _is_reshaping(call.op):
            clean = False
        x = call.args[0]
    fits = [i for i, call in enumerate(calls) if _may_be_head(call, int(output.shape[-1]))]
    return Tail(fits[-1] if fits and not softmax else None, softmax or None, False, before)


def _may_be_head(call: Call, classes: int) -> bool:
    return isinstance(call.op, keras.layers.Dense) and len(call.output.shape) == 2 and call.op.units == classes


def _refuse(call: Call, activation: str, outputs: int) -> None:
    of = f" (layer {call.path!r})"
    if activation.endswith("sigmoid"):
        what = "one output" if outputs == 1 else f"{outputs} outputs, each a yes or no of its own"
        raise ModelError(SIGMOID.format(of=of, what=what, cure=ONE if outputs == 1 else MANY))
    raise ModelError(
        f"The classifier ends in {activation}{of}, which is neither a softmax nor a linear layer of logits, so its "
        "outputs are no classes' scores. Give the classifier itself, with its softmax (or logits) as the output."
    )


def read_features(op: Op, x: Any) -> Any:
    """What the head multiplies by its weight: [n, d] float32.

    For a Conv2D whose output is pooled over the whole map, the mean over that map of what each position of the kernel
    saw, [n, kh * kw * d]: pooling and convolution are linear, so their order can be changed.
    """
    x = ops.cast(x, "float32")
    if not is_conv(op):
        return x
    if tuple(op.kernel_size) == tuple(op.strides) == (1, 1):
        return ops.mean(x, axis=(2, 3) if channel_axis(op) == 1 else (1, 2))
    if channel_axis(op) == 1:
        x = ops.transpose(x, (0, 2, 3, 1))
    pads, spans = [], []
    for size, k, step in zip((x.shape[1], x.shape[2]), op.kernel_size, op.strides, strict=True):
        if op.padding == "same":
            out = -(-size // step)
            total = max((out - 1) * step + k - size, 0)
        else:
            out, total = (size - k) // step + 1, 0
        pads.append((total // 2, total - total // 2))
        spans.append((out - 1) * step + 1)
    x = ops.pad(x, ((0, 0), pads[0], pads[1], (0, 0))) if any(map(any, pads)) else x
    (high, wide), (down, right) = spans, op.strides
    seen = [
        ops.mean(x[:, i : i + high : down, j : j + wide : right, :], axis=(1, 2))
        for i in range(op.kernel_size[0])
        for j in range(op.kernel_size[1])
    ]
    return ops.concatenate(seen, axis=1)


def weights_of(op: Op) -> tuple[Any, Any]:
    """The backend's kernel [d, c] and bias [c] of a Dense or Conv2D; None for no bias."""
    kernel = ops.cast(ops.convert_to_tensor(op.kernel), "float32")
    bias = None if op.bias is None else ops.cast(ops.convert_to_tensor(op.bias), "float32")
    return ops.reshape(kernel, (-1, kernel.shape[-1])), bias


def read_logits(op: Op, features: Any) -> Any:
    """features [n, d] -> logits [n, c], before any activation, float32."""
    kernel, bias = weights_of(op)
    logits = ops.matmul(features, kernel)
    return logits if bias is None else logits + bias


def head_of(op: Op) -> Head:
    """A copy of the weights as NumPy."""
    kernel, bias = (None if w is None else np.array(to_numpy(w)) for w in weights_of(op))
    assert kernel is not None  # every linear layer has one
    return Head(np.ascontiguousarray(kernel.T), np.zeros(kernel.shape[1], np.float32) if bias is None else bias)

"""The stages of a Keras classifier's calls, and their pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from ..stages import AXES, Candidate, choose_stages
from .head import single
from .walk import Call, Op

# Layers that move, drop, pick or scale values; a resolution that only they have is no stage.
MOVING = ("reshaping", "pooling", "regularization", "preprocessing")
MOVING_OPS = {
    *("Identity", "InputLayer", "Masking", "Cast", "Pad", "Reshape", "Transpose", "GetItem", "ExpandDims", "Squeeze"),
    *("Flip", "Roll", "BroadcastTo", "Moveaxis", "Swapaxes", "Resize", "MaxPool", "AveragePool", "Mean", "Max"),
    *("Repeat", "Tile", "Split", "Flatten"),
}
SCALING = (keras.layers.BatchNormalization, keras.layers.LayerNormalization)


@dataclass(frozen=True)
class Stage:
    """call: index of the call read. layout: "NHWC", "NCHW" or "NTC"."""

    call: int
    layout: str


def is_moving(op: Op) -> bool:
    module = type(op).__module__
    if module.startswith("keras.src.layers."):
        return module.split(".")[3] in MOVING or type(op).__name__ in MOVING_OPS
    return module.startswith("keras.src.ops.") and type(op).__name__ in MOVING_OPS


def first_computing(calls: list[Call]) -> int:
    """Index of the first call with a kernel of its own: before it, the image is only scaled and moved."""
    for i, call in enumerate(calls):
        if getattr(call.op, "weights", None) and not is_moving(call.op) and not isinstance(call.op, SCALING):
            return i
    return len(calls)


def layouts(calls: list[Call], default: str) -> list[str]:
    """The layout at each call: that of the last layer before it that declares one."""
    layout, found = default, []
    for call in calls:
        declared = getattr(call.op, "data_format", None)
        layout = {"channels_last": "NHWC", "channels_first": "NCHW"}.get(declared or "", layout)
        found.append(layout)
    return found


def find_stages(calls: list[Call], layout: str) -> list[Stage]:
    """The calls whose outputs are the stages (`models.stages`), in the order of computation."""
    begin = first_computing(calls)
    layout_at = layouts(calls, layout)
    found: list[tuple[Stage, Candidate]] = []
    for i, call in enumerate(calls[begin:], begin):
        if not single(call.output) or is_moving(call.op) or any(call.output is a for a in call.args):
            continue
        shape = tuple(call.output.shape)
        at = {4: layout_at[i], 3: "NTC"}.get(len(shape))
        if at is not None:
            found.append((Stage(i, at), Candidate(at, shape, len(shape) == 3 and _is_residual(call, shape))))
    return [found[i][0] for i in choose_stages([candidate for _, candidate in found])]


def _is_residual(call: Call, shape: tuple[int, ...]) -> bool:
    """Whether this adds two activations of one shape; a position embedding has no batch axis, or another one."""
    if type(call.op).__name__ != "Add":
        return False
    parts = keras.tree.flatten(call.args)
    return len(parts) > 1 and all(single(p) and tuple(p.shape) == shape for p in parts)


def layout_of_call(calls: list[Call], i: int, default: str) -> str:
    return "NTC" if len(calls[i].output.shape) == 3 else layouts(calls, default)[i]


def pool(maps: Any, layout: str) -> Any:
    """`models.base.pooled` in the backend's own arrays: [n, 2k] float32."""
    x = ops.cast(maps, "float32")
    axes = AXES[layout]
    mean = ops.mean(x, axis=axes, keepdims=True)
    variance = ops.mean(ops.square(x - mean), axis=axes)
    varies = variance > 0  # the root's slope at 0 is infinite: it counts as 0
    std = ops.where(varies, ops.sqrt(ops.where(varies, variance, 1.0)), 0.0)
    return ops.concatenate([ops.squeeze(mean, axis=axes), std], axis=1)


def channels_first(maps: Any, layout: str) -> Any:
    """[n, k, h, w] float32; of tokens [n, k, t, 1]."""
    x = ops.cast(maps, "float32")
    x = ops.expand_dims(x, 2) if layout == "NTC" else x
    return x if layout == "NCHW" else ops.transpose(x, (0, 3, 1, 2))

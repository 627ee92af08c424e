"""What an ONNX graph says of its input: size, layout, dtype, scaling of pixels; and of its classes: their names."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping

import numpy as np
from onnx import TensorProto, ValueInfoProto

from ...arrays import InputSpec, Preprocess, usual_resizing
from ...errors import ModelError, OptionError
from .graph import Graph, attribute

DTYPES: dict[int, type[np.generic]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.DOUBLE: np.float64,
    TensorProto.UINT8: np.uint8,
    TensorProto.INT32: np.int32,
}
NAME_KEYS = ("names", "classes", "labels", "class_names", "id2label", "categories")
CAFFE_BLUE_FIRST = (103.939, 116.779, 123.68)
STEPS = {"Cast", "Identity", "Transpose", "Add", "Sub", "Mul", "Div"}


def image_input(graph: Graph) -> ValueInfoProto:
    """The one input, [n, k, h, w] or [n, h, w, k]. Raises ModelError naming the inputs when there are several."""
    if len(graph.inputs) != 1:
        names = ", ".join(f"{v.name} {_dims(v)}" for v in graph.inputs) or "none"
        raise ModelError(
            f"{graph.who} has {len(graph.inputs)} inputs ({names}); an image classifier has one. Export it with the "
            "images as its only input, the others as constants."
        )
    (value,) = graph.inputs
    if not value.type.HasField("tensor_type") or value.type.tensor_type.elem_type not in DTYPES:
        kind = {v: k for k, v in TensorProto.DataType.items()}.get(value.type.tensor_type.elem_type, "something else")
        raise ModelError(
            f"{graph.who} reads {kind} ({value.name!r}); images are read as float32, float16, double, uint8 or int32."
        )
    if len(_dims(value)) != 4:
        raise ModelError(
            f"{graph.who} has an input {value.name!r} of shape {_dims(value)}; images have four axes, [n, k, h, w] or "
            "[n, h, w, k]. Export it with the reshaping inside, or give a function images -> probabilities."
        )
    return value


def dtype_of(value: ValueInfoProto) -> np.dtype:
    return np.dtype(DTYPES[value.type.tensor_type.elem_type])


def input_spec(graph: Graph, value: ValueInfoProto, size: tuple[int, int] | None, layout: str | None) -> InputSpec:
    """Layout and sizes: by the first convolution or transposition, else by which axis can be channels."""
    if layout not in (None, "NCHW", "NHWC"):
        raise OptionError(f"layout={layout!r}: expected 'NCHW' or 'NHWC'.")
    batch, *axes = _dims(value)
    told, channels = _evidence(graph, value.name)
    first, last = (k in (1, 3, 4) for k in (axes[0], axes[2]))
    if (layout := layout or told) is None:
        if first == last:
            raise ModelError(
                f"The input {value.name!r} of {graph.who} has shape {_dims(value)}: whether channels come second or "
                "last cannot be told. Say it: layout='NCHW' or layout='NHWC'."
            )
        layout = "NCHW" if first else "NHWC"
    k, h, w = axes if layout == "NCHW" else (axes[2], axes[0], axes[1])
    for axis, want, have in zip(("height", "width"), size or (None, None), (h, w), strict=True):
        if want is not None and have is not None and want != have:
            raise OptionError(f"size={size}: the {axis} of {graph.who}'s input is fixed to {have}.")
    height, width = size or (h, w)
    return InputSpec(height=height, width=width, channels=k if k is not None else channels, layout=layout, batch=batch)


def preprocess(graph: Graph, value: ValueInfoProto, spec: InputSpec) -> Preprocess | None:
    """What scaling at the start of the graph, or an integer input, says of the range of pixels; None if nothing.

    A graph that itself brings 0–255 to a few units is fed raw pixels; one that does so with 0–1 is fed pixels / 255.
    """
    channels = "grey" if spec.channels == 1 else "rgb"
    usual = usual_resizing(spec.layout == "NHWC", spec.height, spec.width)
    if dtype_of(value).kind in "iu":
        return Preprocess(spec.height, spec.width, channels, name="raw 0-255 (integer input)", **usual)
    factor, offset, steps = np.ones(1), np.zeros(1), 0
    tensor = value.name
    while (node := graph.only_consumer(tensor)) is not None and node.op_type in STEPS:
        if node.op_type in ("Add", "Sub", "Mul", "Div"):
            position = 1 if node.input[0] == tensor else 0
            constant = graph.value(node.input[position])
            if (
                constant is None
                or constant.size not in (1, spec.channels)
                or (position == 0 and node.op_type in ("Sub", "Div"))
            ):
                break
            a = constant.astype(np.float64).reshape(-1)
            if node.op_type in ("Add", "Sub"):
                offset = offset + (a if node.op_type == "Add" else -a)
            else:
                factor, offset = (x * a if node.op_type == "Mul" else x / a for x in (factor, offset))
            steps += 1
        tensor = node.output[0]
    if not steps or not np.isfinite(factor).all() or (factor <= 0).any():
        return None
    means = -offset / factor
    if means.size == 3 and np.allclose(means, CAFFE_BLUE_FIRST, atol=1):
        channels = "bgr"
    if factor.max() < 0.2 or (factor.max() <= 1 and means.max() > 20):
        return Preprocess(spec.height, spec.width, channels, name="raw 0-255 (scaled in the graph)", **usual)
    if factor.min() >= 1.5 and (np.abs(means) <= 1).all():
        return Preprocess(
            spec.height, spec.width, channels, scale=1 / 255, name="0-1 (normalised in the graph)", **usual
        )
    return None


RANGES = {  # of Windows ML: scale and mean of a pixel of 0 to 255
    "nominalrange_0_255": (1.0, 0.0),
    "normalized_0_1": (1 / 255, 0.0),
    "normalized_1_1": (1 / 127.5, 1.0),
}
ORDERS = {"bgr8": "bgr", "rgb8": "rgb", "bgra8": "bgr", "rgba8": "rgb", "gray8": "grey"}


def check_task(metadata: Mapping[str, str], who: str) -> None:
    """Raises ModelError for a file whose metadata says that it is another kind of network (ultralytics)."""
    said = {key.lower(): text.strip().lower() for key, text in metadata.items()}
    if said.get("author") == "ultralytics" and said.get("task", "classify") != "classify":
        raise ModelError(
            f"{who} is an ultralytics network for the task {said['task']!r}, not an image classifier. Give one that "
            "was trained as such (yolo…-cls) and exported with format='onnx'; of a detector, classify what it cuts out."
        )


def size_said(metadata: Mapping[str, str]) -> tuple[int | None, int | None]:
    """(height, width) that ultralytics exported for, as its `imgsz` says; None elsewhere."""
    said = {key.lower(): text for key, text in metadata.items()}
    if said.get("author", "").lower() != "ultralytics":
        return None, None
    numbers = re.findall(r"\d+", said.get("imgsz", ""))
    return (int(numbers[0]), int(numbers[-1])) if numbers else (None, None)


def declared(metadata: Mapping[str, str], spec: InputSpec) -> Preprocess | None:
    """What the metadata of Windows ML (Custom Vision, ML.NET) or ultralytics says of pixels, None where they are
    silent."""
    said = {key.lower(): text.strip().lower() for key, text in metadata.items()}
    if said.get("author") == "ultralytics" and said.get("task") == "classify":
        # its classify_transforms: the short side to size, the centre cut out; stretched where the size is no square
        fit = "crop" if spec.height == spec.width else "stretch"
        return Preprocess(spec.height, spec.width, scale=1 / 255, fit=fit, name="[0, 1] of ultralytics")
    order = ORDERS.get(said.get("image.bitmappixelformat", ""))
    numbers = RANGES.get(said.get("image.nominalpixelrange", "nominalrange_0_255"))
    if order is None or numbers is None or (order == "grey") != (spec.channels == 1):
        return None
    name = f"{order.upper()} of the file's metadata"
    return Preprocess(spec.height, spec.width, order, scale=numbers[0], mean=(numbers[1],), name=name)


def class_names(metadata: Mapping[str, str], classes: int) -> tuple[str, ...] | None:
    """Names of the classes in the file's metadata, as JSON, a Python literal or a list of words; None without."""
    lowered = {key.lower(): text for key, text in metadata.items()}
    for key in NAME_KEYS:
        names = _names(lowered.get(key, ""), classes)
        if names is not None:
            return names
    return None


def _names(text: str, classes: int) -> tuple[str, ...] | None:
    found = None
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
            break
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    else:
        found = [word.strip() for word in text.replace("\n", ",").split(",")]
    if isinstance(found, dict):
        try:
            byid = {int(key): name for key, name in found.items()}
        except (TypeError, ValueError):
            return None
        found = [byid.get(i) for i in range(classes)] if len(byid) == classes else None
    if not isinstance(found, list | tuple) or len(found) != classes or not all(isinstance(n, str) for n in found):
        return None
    return tuple(found)


def _dims(value: ValueInfoProto) -> list[int | None]:
    shape = value.type.tensor_type.shape
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in shape.dim]


def _evidence(graph: Graph, tensor: str) -> tuple[str | None, int | None]:
    """(layout, channels) by what first reads the input; None where nothing tells."""
    while (readers := graph.consumers.get(tensor)) and (node := readers[0]).op_type != "Shape":
        if node.op_type == "Conv":
            weight = graph.value(node.input[1])
            return "NCHW", None if weight is None or weight.ndim != 4 else int(
                weight.shape[1] * attribute(node, "group", 1)
            )
        if node.op_type == "Transpose":
            return ("NHWC" if list(attribute(node, "perm", [])) == [0, 3, 1, 2] else None), None
        if node.op_type not in STEPS | {"Pad", "QuantizeLinear", "DequantizeLinear"}:
            break
        tensor = node.output[0]
    return None, None

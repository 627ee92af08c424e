"""What a Keras model says of itself: its input, its preprocessing, its classes, and whether it can be saved."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ...arrays import InputSpec, Preprocess, usual_resizing
from ...errors import ModelError
from .backend import to_numpy
from .stages import first_computing
from .walk import Call


def input_of(model: keras.Model, size: tuple[int, int] | None) -> tuple[InputSpec, int]:
    """The input, and its rank: 4, or 3 for grey images without an axis of channels."""
    if not model.built or not model.weights:
        raise ModelError(
            "The model has no weights yet, so it cannot have been trained. Load them, or call the model once on a "
            "batch of its images, before giving it to knownot."
        )
    shape = _input_shape(model)
    if len(shape) == 3:
        return InputSpec(shape[1], shape[2], 1, "NHWC"), 3
    if len(shape) != 4:
        raise ModelError(
            f"The model's input has shape {shape}; an image classifier takes [n, h, w, k] or [n, k, h, w]."
        )
    layout = _layout(model, shape)
    h, w, k = shape[1:] if layout == "NHWC" else (shape[2], shape[3], shape[1])
    wanted, defined = size or (h, w), _is_defined(model)
    if size and defined and (h or size[0], w or size[1]) != tuple(size):
        raise ModelError(f"The classifier takes images of {h} x {w}, not {size[0]} x {size[1]}. Leave size= out.")
    return InputSpec(wanted[0], wanted[1], k, layout), 4


def _is_defined(model: keras.Model) -> bool:
    try:
        return model.input_shape is not None
    except AttributeError:
        return False


def _input_shape(model: keras.Model) -> tuple[int | None, ...]:
    """Of the graph; for a subclassed model, of the batch that it was built on."""
    shape: Any = None
    if _is_defined(model):
        shape = model.input_shape
    elif config := model.get_build_config():
        shape = config.get("input_shape")
    if isinstance(shape, dict | list) and shape and isinstance(_first(shape), tuple | list):
        if len(shape) > 1:
            raise ModelError(
                f"The model has {len(shape)} inputs; knownot gives it one batch of images. Give a model of one input."
            )
        shape = _first(shape)
    if not shape:
        raise ModelError(
            "The model does not say the shape of its input. Call it once on a batch of its images before giving it to "
            "knownot, or save it as a Functional model."
        )
    return tuple(shape)


def _first(shape: Any) -> Any:
    return next(iter(shape.values())) if isinstance(shape, dict) else shape[0]


def _layout(model: keras.Model, shape: tuple[int | None, ...]) -> str:
    """What the layers declare, else what the shape shows, else Keras' setting."""
    for layer in model._flatten_layers(include_self=False):
        declared = getattr(layer, "data_format", None)
        if declared and type(layer).__name__ != "Flatten":
            return "NCHW" if declared == "channels_first" else "NHWC"
    last, first = shape[3] in (1, 3, 4), shape[1] in (1, 3, 4)
    if last != first:
        return "NHWC" if last else "NCHW"
    return "NCHW" if keras.config.image_data_format() == "channels_first" else "NHWC"


def own_preprocess(calls: list[Call], spec: InputSpec) -> Preprocess | None:
    """What the classifier's own first layers say about the values it takes, None where they are silent."""
    height, width = spec.height, spec.width
    found: tuple[str, float] | None = None
    for call in calls[: first_computing(calls)]:
        kind = type(call.op).__name__
        if kind == "Resizing" and height is None:
            height, width = call.op.height, call.op.width
        if found is None and (raw := _takes_raw(call)) is not None:
            name = f"the model's own {kind}"
            found = (f"{name} layer" if isinstance(call.op, keras.Layer) else name, 1.0 if raw else 1 / 255)
    if found is None:
        return None
    channels = "grey" if spec.channels == 1 else "rgb"
    usual = usual_resizing(True, height, width)
    return Preprocess(height, width, channels, scale=found[1], name=found[0], **usual)


def _takes_raw(call: Call) -> bool | None:
    """Whether what is scaled or shifted here are pixels of 0-255 (True), of 0-1 (False), or no telling (None)."""
    kind = type(call.op).__name__
    if kind == "Normalization":
        mean = getattr(call.op, "mean", None)
        return None if mean is None else bool(np.abs(to_numpy(mean)).max() > 2)
    factor = None
    if kind == "Rescaling":
        factor = float(np.max(np.abs(np.asarray(call.op.scale))))
    elif kind in ("TrueDivide", "Divide", "Multiply", "Subtract") and len(call.args) == 2:
        number = call.args[1]
        if isinstance(number, int | float) and number:
            factor = abs(number) if kind == "Multiply" else 1 / abs(number)
    if factor is None or 0.1 < factor < 1.5:
        return None
    return factor <= 0.1


def class_names_of(model: Any, path: Path | None, classes: int) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Names from a list `class_names` on the model, or a labels.txt beside its file; and a note."""
    given = getattr(model, "class_names", None)
    if isinstance(given, list | tuple) and len(given) == classes and all(isinstance(name, str) for name in given):
        return tuple(given), ()
    labels = path.parent / "labels.txt" if path is not None else None
    if labels is None or not labels.is_file():
        return None, ()
    try:
        lines = [line.strip() for line in labels.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        return None, ("labels.txt beside the classifier cannot be read as text, so it was left aside.",)
    numbered = [re.match(r"(\d+)[:\s]\s*(.+)", line) for line in lines]
    if all(numbered) and [int(m[1]) for m in numbered if m] == list(range(len(lines))):
        lines = [m[2] for m in numbered if m]
    if len(lines) != classes:
        return None, (f"labels.txt names {len(lines)} classes, the classifier has {classes}; it was left aside.",)
    return tuple(lines), ("The class names were read from labels.txt beside the classifier.",)


def saveable(model: keras.Model) -> None:
    """Raise ModelError if the saved model would not open again without running code or the user's own module."""
    for layer in model._flatten_layers():
        kind = type(layer)
        if kind.__name__ == "Lambda":
            raise ModelError(
                f"Layer {layer.name!r} is a Lambda: its Python code would be stored in the file and run on opening, "
                "which knownot does not do. Replace it by a layer class registered with "
                "@keras.saving.register_keras_serializable()."
            )
        own = kind.__module__.partition(".")[0] == "keras"
        if not own and keras.saving.get_registered_object(keras.saving.get_registered_name(kind)) is None:
            raise ModelError(
                f"The class {kind.__name__} is not registered with Keras, so a saved model would not open again. "
                "Decorate it with @keras.saving.register_keras_serializable(), and give the model again."
            )

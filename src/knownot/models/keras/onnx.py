"""A Keras classifier written as ONNX, by Keras' own export on the backend that computes."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ...errors import MissingExtraError, ModelError, missing_extra

NEEDS = {  # backend: (package that writes, extra of knownot)
    "torch": ("onnxscript", "export"),
    "tensorflow": ("tf2onnx", "export-tensorflow"),
    "jax": ("jax2onnx", "export-jax"),
}


def write(model: keras.Model, batch: np.ndarray, folder: Path) -> Path:
    """The model as an ONNX file in `folder`, with a batch of any size. batch: images of its input, of any values.

    Raises MissingExtraError without the package that the backend needs, ModelError when Keras cannot export it.
    """
    package, extra = NEEDS.get(keras.backend.backend(), ("", ""))
    if package and importlib.util.find_spec(package) is None:
        raise missing_extra(package, extra, f"Exporting a Keras classifier on {keras.backend.backend()} to ONNX")
    path = folder / "model.onnx"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shown: Any = _of_the_same_layers(model)
            shown(batch)  # a model that was never called has no signature to export
            shown.export(str(path), format="onnx", verbose=False)
    except MissingExtraError:
        raise
    except Exception as error:  # whatever the backend's exporter raises
        raise ModelError(
            f"Keras {keras.__version__} on {keras.backend.backend()} could not export the classifier to ONNX: "
            f"{' '.join(str(error).split())[:300]} Try another backend (KERAS_BACKEND=torch), or export it yourself "
            "and fit on that file."
        ) from error
    return path


def _of_the_same_layers(model: keras.Model) -> keras.Model:
    """Another model over the same layers where it can be had, so that what exporting notes stays off the user's."""
    try:
        return keras.Model(model.inputs, model.outputs)
    except Exception:  # of a subclass: there is no graph of layers
        return model

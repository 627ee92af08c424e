"""Which module trains which framework's classifiers."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..models import Model

# Framework of the opened classifier: module of this package. Each has `trainable(opened, settings)`, which gives a
# `loop.Trainer`, and `also_saved(model, folder)`, for files beside the model's own.
FRAMEWORKS = {"torch": "torch_training", "keras": "keras_training"}


def framework_of(opened: Model) -> Any:
    """The module that trains it. Raises ModelError, with the cure, for a classifier whose weights are not at hand."""
    if opened.framework not in FRAMEWORKS:
        raise ModelError(
            f"The weights of this {opened.framework} classifier cannot be trained here. Give the network that it was "
            "made from, a keras.Model or a torch nn.Module (or its .keras or .pt2 file)."
        )
    return importlib.import_module(f".{FRAMEWORKS[opened.framework]}", __package__)


def also_saved(opened: Model, model: Any, folder: Path) -> None:
    """Write into `folder` what users of the framework expect beside the model's file."""
    framework_of(opened).also_saved(model, folder)

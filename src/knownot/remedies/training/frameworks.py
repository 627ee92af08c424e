"""Which modules train which framework's classifiers."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ModelError
from ...models import Model


@dataclass(frozen=True)
class Trains:
    """Modules of `remedies`. training: has `trainer(opened, job)`, `head_trainer(job)`, which give a `loop.Trainer`,
    `with_head(opened, weight, bias)`, and `also_saved(model, folder)`, for files beside the model's own. joint: has
    `joint_trainer(opened, job, pool, scale, beta, hidden)`, which gives a `joint.Against`.
    """

    training: str
    joint: str


FRAMEWORKS = {
    "torch": Trains("torch.training", "torch.joint"),
    "keras": Trains("keras.training", "keras.joint"),
}


def check_trainable(opened: Model) -> None:
    """Raise ModelError, with the cure, for a classifier whose weights are not at hand."""
    _trains(opened)


def framework_of(opened: Model) -> Any:
    """The module that trains it. Raises ModelError, with the cure, for a classifier whose weights are not at hand."""
    return _module(_trains(opened).training)


def joint_of(opened: Model) -> Any:
    """The module that trains it together with a generator and a discriminator. Raises as `framework_of` does."""
    return _module(_trains(opened).joint)


def also_saved(opened: Model, model: Any, folder: Path) -> None:
    """Write into `folder` what users of the framework expect beside the model's file."""
    framework_of(opened).also_saved(model, folder)


def _trains(opened: Model) -> Trains:
    if opened.framework not in FRAMEWORKS:
        raise ModelError(
            f"The weights of this {opened.framework} classifier cannot be trained here. Give the network that it was "
            "made from, a keras.Model or a torch nn.Module (or its .keras or .pt2 file)."
        )
    return FRAMEWORKS[opened.framework]


def _module(name: str) -> Any:
    return importlib.import_module(f"knownot.remedies.{name}")

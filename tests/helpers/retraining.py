"""Small classifiers retrained for a moment, and whether two have the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import knownot
from helpers.remedies import TRAIN, VALIDATION, WAY, keras_net, torch_net
from knownot import remedies
from knownot.remedies import Remedied, remedy_class

NETS = {"torch": torch_net, "keras": keras_net}


COMMON: dict[str, Any] = {
    "validation": VALIDATION, "preprocess": WAY, "batch_size": 64, "progress": False, "epochs": 1
}  # fmt: skip


def retrained(remedy: str, model: Any, **options: Any) -> Remedied:
    if isinstance(model, torch.nn.Module) and not hasattr(model, "get_weights"):
        model = knownot.open_model(model, size=(16, 16))  # else torch networks are opened with images of 224 pixels
    if remedy_class(remedy).outliers == "required":
        options = {"outliers": "made:noise,shuffle", **options}
    return remedies.retrain(remedy, model, *TRAIN, **{**COMMON, **options})


def weights(model: Any) -> list[np.ndarray]:
    if hasattr(model, "get_weights"):  # a Keras model on torch is an nn.Module as well
        return [np.array(w) for w in model.get_weights()]
    return [x.detach().numpy().copy() for x in model.state_dict().values()]


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def still(framework: str) -> Any:
    """Without dropout."""
    net = NETS[framework]()
    if framework == "torch":
        net.drop.p = 0.0
    else:
        next(layer for layer in net.layers if type(layer).__name__ == "Dropout").rate = 0.0
    return net

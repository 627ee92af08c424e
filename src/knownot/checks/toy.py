"""A network of two rectified layers and a head in plain NumPy, with gradients and dropout written out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Activations, Capabilities, Head, InputSpec
from ..errors import ModelError
from ..models import Model

DROPPED = 0.3


class Toy(Model):
    """Images [n, 1, p, 1] of p pixels in a row; stage = max(x A, 0), features = max(stage B + shift, 0), then the head.

    Everything is computed in `dtype`. Dropout acts on the stage.
    """

    framework = "function"

    def __init__(
        self,
        first: np.ndarray,
        second: np.ndarray,
        head: Head,
        capabilities: Capabilities,
        dtype: Any,
        shift: float = 0.1,
    ) -> None:
        self.first, self.second, self.own, self.dtype, self.shift = first, second, head, dtype, shift  # [p, j], [j, d]
        self.head, self.capabilities, self.stage_layers = head, capabilities, {"first": "first"}
        self.input = InputSpec(1, len(first), 1, "NHWC")

    def layers(self, batch: np.ndarray, keep: Any = 1.0) -> tuple[np.ndarray, np.ndarray]:
        stage = np.maximum(np.asarray(batch, np.float64)[:, 0, :, 0] @ self.first, 0) * keep
        return stage, np.maximum(stage @ self.second + self.shift, 0)

    def forward(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        stage, features = self.layers(batch)
        logits = self.own(features.astype(self.dtype))
        return Activations(logits.astype(self.dtype), features.astype(self.dtype), {"first": stage.astype(self.dtype)})

    def gradient(self, batch: np.ndarray, toward: Mapping[str, np.ndarray]) -> np.ndarray:
        stage, features = self.layers(batch)
        pull = np.zeros_like(features)
        if "logits" in toward:
            pull += toward["logits"] @ self.own.weight
        if "features" in toward:
            pull += toward["features"]
        back = ((pull * (features > 0)) @ self.second.T * (stage > 0)) @ self.first.T
        return back[:, None, :, None]

    def dropped(self, batch: np.ndarray, seed: int) -> np.ndarray:
        keep = np.random.default_rng(seed).random(self.first.shape[1]) >= DROPPED
        logits: np.ndarray = self.own(self.layers(batch, keep / (1 - DROPPED))[1])
        return logits

    @property
    def fingerprint(self) -> str:
        return "toy"

    def save(self, folder: Path) -> str:
        raise ModelError("A toy is not saved.")

"""A network without classes: what it gives for an image, a vector, is its features."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..arrays import Activations, Array
from .base import Call, Model
from .wrapper import Wrapper


class Embedding(Wrapper):
    """A network whose output [n, d] is read as features; it has no classes, no logits and no head.

    inner: the network, opened by its framework's adapter so that `logits` are its output as it is.
    staged: whether stages were named when it was opened; otherwise none are shown.
    """

    def __init__(self, inner: Model, staged: bool) -> None:
        super().__init__(inner)
        self.head = self.class_names = None
        stages = inner.capabilities.stages if staged else ()
        self.width = inner.capabilities.classes
        kinds = frozenset({"features"} | ({"stages"} if stages else set()))
        self.capabilities = replace(inner.capabilities, outputs=kinds, classes=0, stages=stages)
        reach = {"logits", *(f"stages/{name}" for name in stages)}
        self.gradients = tuple("features" if p == "logits" else p for p in inner.gradients if p in reach)
        self.stage_layers = {name: inner.stage_layers[name] for name in stages}
        self.notes = (f"An embedding network: its output, {self.width} numbers per image, is taken as features.",)

    def forward(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        seen = self.inner.forward(batch)
        stages = {name: seen.stages[name] for name in self.capabilities.stages}
        return Activations(np.empty((len(batch), 0), np.float32), np.asarray(seen.logits), stages)

    def gradient(self, batch: np.ndarray, toward: Mapping[str, np.ndarray]) -> np.ndarray:
        self.known_gradients(toward)
        return self.inner.gradient(batch, {"logits" if p == "features" else p: v for p, v in toward.items()})

    def as_onnx(self, folder: Path, size: tuple[int, int] | None = None) -> Embedding:
        return Embedding(self.inner.as_onnx(folder, size), bool(self.capabilities.stages))

    def record(self, x: Array, call: Call, maps: Sequence[str] = ()) -> Activations:
        seen = self.inner.record(x, call)
        return Activations(
            seen.logits[:, :0], seen.logits, {name: seen.stages[name] for name in self.capabilities.stages}
        )

    @property
    def fingerprint(self) -> str:
        """Another one than the same network's as a classifier: its features are others."""
        return hashlib.sha256(f"embedding;{self.inner.fingerprint}".encode()).hexdigest()

    def dropped(self, batch: np.ndarray, seed: int) -> np.ndarray:
        raise self._lacks("dropout")

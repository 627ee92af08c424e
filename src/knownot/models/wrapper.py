"""A model around another one: it shows the same, but for what a subclass changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .base import Model


class Wrapper(Model):
    """Everything is the inner model's, apart from `trainable`: who trains takes the inner one."""

    def __init__(self, inner: Model) -> None:
        self.inner = inner
        self.framework, self.input, self.capabilities, self.head = (
            inner.framework,
            inner.input,
            inner.capabilities,
            inner.head,
        )
        self.class_names, self.preprocess, self.stage_layers = inner.class_names, inner.preprocess, inner.stage_layers
        self.gradients, self.notes, self.opened_with = inner.gradients, inner.notes, inner.opened_with
        self.stretches = inner.stretches

    def gradient(self, batch: np.ndarray, toward: Mapping[str, np.ndarray]) -> np.ndarray:
        return self.inner.gradient(batch, toward)

    def dropped(self, batch: np.ndarray, seed: int) -> np.ndarray:
        return self.inner.dropped(batch, seed)

    @property
    def fingerprint(self) -> str:
        return self.inner.fingerprint

    def save(self, folder: Path) -> str:
        return self.inner.save(folder)

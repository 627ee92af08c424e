"""Gradients of the loss with respect to the classifier's last layer, never written out: [c, d + 1] for each image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...arrays import softmax

ROUNDS = 50
CHUNK = 1 << 22  # numbers of a product that is held at once


@dataclass(frozen=True)
class LastLayer:
    r"""G [n, c (d + 1)], the gradients of -log p(y | x) with respect to (W, b), less a reference: row i is

        (p_i - e_(y_i)) (f_i, 1)^T - R

    as its factors: error [n, c], input [n, d + 1] and R [c, d + 1].
    """

    error: np.ndarray
    input: np.ndarray
    reference: np.ndarray

    @classmethod
    def of(
        cls, features: np.ndarray, logits: np.ndarray, labels: np.ndarray, reference: np.ndarray | None = None
    ) -> LastLayer:
        """labels [n]: true ones, or the predicted classes. reference: R, None for zeros."""
        error = np.asarray(softmax(np.asarray(logits, dtype=np.float64)))
        error[np.arange(len(labels)), labels] -= 1
        rows = np.concatenate([np.asarray(features, dtype=np.float64), np.ones((len(features), 1))], axis=1)
        return cls(error, rows, np.zeros((error.shape[1], rows.shape[1])) if reference is None else reference)

    def mean(self) -> np.ndarray:
        """[c, d + 1]"""
        return self.error.T @ self.input / len(self.error) - self.reference

    def times(self, v: np.ndarray) -> np.ndarray:
        """G v [n], of v [c, d + 1]."""
        step = max(1, CHUNK // v.shape[0])
        parts = [
            ((self.input[i : i + step] @ v.T) * self.error[i : i + step]).sum(axis=1)
            for i in range(0, len(self.error), step)
        ]
        return np.concatenate(parts) - (self.reference * v).sum() if parts else np.empty(0)

    def back(self, u: np.ndarray) -> np.ndarray:
        """G^T u [c, d + 1], of u [n]."""
        return (self.error * u[:, None]).T @ self.input - u.sum() * self.reference

    def direction(self, seed: int = 0) -> np.ndarray:
        """The right singular vector of the largest singular value [c, d + 1], by power iteration."""
        v = np.random.default_rng(seed).standard_normal(self.reference.shape)
        v /= np.linalg.norm(v)
        for _ in range(ROUNDS):
            w = self.back(self.times(v))
            size = np.linalg.norm(w)
            if not size:
                return v
            w /= size
            if abs((w * v).sum()) > 1 - 1e-12:
                return w
            v = w
        return v

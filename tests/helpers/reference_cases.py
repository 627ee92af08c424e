"""A random classifier with known images, and small formulas that several references share."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import linalg, special
from scipy.spatial.distance import cdist

from knownot.arrays import Activations, Capabilities, Head
from knownot.detectors import DETECTORS, configure
from knownot.stats import gather

ALL = frozenset({"probabilities", "logits", "features", "head", "stages", "maps"})


NAMES = [name for name, recipe in DETECTORS.items() if recipe.needs() <= ALL]  # others look at images again


class Case:
    """A random classifier, its known images with labels, and images to score."""

    def __init__(self, seed: int = 0, n: int = 300, c: int = 5, d: int = 12, classes: list[int] | None = None) -> None:
        rng = np.random.default_rng(seed)
        self.head = Head(rng.normal(size=(c, d)) * 0.5, rng.normal(size=c))
        centres, mix = rng.normal(size=(c, d)) * 2, rng.normal(size=(d, d))
        self.labels = rng.choice(classes or list(range(c)), size=n)
        self.train = self.of(np.maximum(centres[self.labels] + rng.normal(size=(n, d)) @ mix * 0.5 + 0.5, 0))
        self.batch = self.of(np.maximum(rng.normal(size=(40, d)) * 2 + 0.5, 0))
        self.capabilities = Capabilities(ALL, c, ("early",), ("last",))

    def of(self, features: np.ndarray) -> Activations:
        pattern = 4 * np.outer(np.where(np.arange(features.shape[1]) % 2, 1, -1), [1, -1])  # of mean 0 over space
        maps = (features[:, :, None] + pattern)[:, :, None, :]
        return Activations(self.head(features), features, {"early": features[:, ::2] ** 2}, {"last": maps})

    def fit(self, name: Any, **options: Any) -> Any:
        recipe = configure(name, **options) if isinstance(name, str) else name
        cuts = np.array_split(np.arange(len(self.labels)), 3)
        batches = [(self.train.take(i), self.labels[i]) for i in cuts if len(i)]
        return recipe.fit(
            gather(batches, recipe.required_statistics(self.capabilities).values()), self.head, self.capabilities
        )

    def score(self, name: Any, **options: Any) -> np.ndarray:
        return self.fit(name, **options).score(self.batch)


def close(given: Any, expected: Any, rtol: float = 1e-9) -> None:
    np.testing.assert_allclose(given, expected, rtol=rtol, atol=rtol)


SATURATED = np.array([[800.0, 0, 0], [0, -800, -801], [30, 0, 0], [60, 0, 0], [50, 50, -900], [0, 0, 0]])


def mahalanobis(x: np.ndarray, y: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Squared distances to each class mean under the covariance about the class means, [n, classes]."""
    means = {c: x[y == c].mean(axis=0) for c in sorted(set(y))}
    centred = np.stack([row - means[label] for row, label in zip(x, y, strict=True)])
    inverse = linalg.inv(centred.T @ centred / len(x))
    return cdist(features, np.stack(list(means.values())), "mahalanobis", VI=inverse) ** 2


def l2(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def energies(features: Any, head: Head) -> np.ndarray:
    return -special.logsumexp(np.asarray(features) @ head.weight.T + head.bias, axis=1)

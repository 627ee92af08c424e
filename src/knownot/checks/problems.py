"""A small problem that every detector can solve, and what is done with it: the ground that the checks stand on."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arrays import Activations, Capabilities, Head, softmax
from ..detectors import Detector, Recipe
from ..detectors.passes import Pass, extend_with_passes
from ..stats import gather
from .toy import Toy


@dataclass(frozen=True)
class Problem:
    """A small classifier whose head is trained, and what it computes for images of its classes and of none."""

    head: Head
    capabilities: Capabilities
    train: Activations
    labels: np.ndarray  # [n], of `train`
    new: Activations  # known images, new to the classifier: they rank the members of a combination
    known: Activations
    unknown: Activations
    model: Toy  # what computes all that, and `inputs`: of what, by the names of the fields above
    inputs: Mapping[str, np.ndarray]

    def shown(self, passes: Iterable[Pass]) -> Problem:
        """With what extra passes of all these images give."""
        passes = tuple(passes)
        sets: dict[str, Any] = {
            name: extend_with_passes(self.model, x, getattr(self, name), passes) for name, x in self.inputs.items()
        }
        return replace(self, **sets) if passes else self


def problem(seed: int = 0, classes: int = 5, d: int = 40, dtype: Any = np.float64) -> Problem:
    """Points around `classes` centres, two random rectified layers (a stage, the features), and a trained head.

    The unknown lie between the classes, so their logits are small, and off the directions that known points take,
    so their features are far: every detector can tell them. (With an untrained head, far features have large
    logits and look known to the energy.)
    """
    return copy.deepcopy(_made(seed, classes, d, dtype))  # a detector may write into it


@functools.lru_cache(maxsize=8)  # most of its time is the training of the head, and every check asks for it
def _made(seed: int, classes: int, d: int, dtype: Any) -> Problem:
    rng = np.random.default_rng(seed)
    inside, outside, hidden = classes + 1, 6, 30
    centres = np.linalg.qr(rng.normal(size=(inside, classes)))[0].T * 4
    first = rng.normal(size=(inside + outside, hidden)) / np.sqrt(inside)
    second = rng.normal(size=(hidden, d)) / np.sqrt(hidden)

    def points(n: int, known: bool) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(classes, size=n)
        signal = (centres[labels] if known else 0) + rng.normal(size=(n, inside)) * 0.4
        return np.concatenate([signal, rng.normal(size=(n, outside)) * (0.1 if known else 1.2)], axis=1), labels

    def layers(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        stage = np.maximum(x @ first, 0)
        return stage, np.maximum(stage @ second + 0.1, 0)

    known, labels = points(60 * classes, True)
    head = _train_head(layers(known)[1], labels, classes)

    spread = np.random.default_rng([seed, 1])  # of its own, so that maps leave the other numbers as they are

    def seen(x: np.ndarray) -> Activations:
        stage, features = (a.astype(dtype) for a in layers(x))
        maps = {"first": _map(stage, spread), "last": _map(features, spread)}
        logits = head(features).astype(dtype)
        none = logits.max(axis=1, keepdims=True) * np.array([-0.5, -0.3], dtype)  # two none-classes, larger for unknown
        return Activations(logits, features, {"first": stage}, maps, extra={"none/logits": none})

    kinds = frozenset({"probabilities", "logits", "features", "head", "stages", "maps", "gradient", "dropout", "none"})
    capabilities = Capabilities(kinds, classes, ("first",), ("first", "last"))
    rows = [known, *(points(n, k)[0] for n, k in ((150, True), (100, True), (100, False)))]
    train, new, test, unknown = map(seen, rows)
    inputs = dict(zip(("train", "new", "known", "unknown"), (x[:, None, :, None] for x in rows), strict=True))
    toy = Toy(first=first, second=second, head=head, capabilities=capabilities, dtype=dtype)
    return Problem(
        head=head,
        capabilities=capabilities,
        train=train,
        labels=labels,
        new=new,
        known=test,
        unknown=unknown,
        model=toy,
        inputs=inputs,
    )


def _map(mean: np.ndarray, rng: np.random.Generator, h: int = 2, w: int = 3) -> np.ndarray:
    """A map [n, k, h, w] with this mean over space [n, k], and a pattern common to all images that outweighs it: what
    stands out most is not what the head reads."""
    n, k = mean.shape
    pattern = np.outer(np.where(np.arange(k) % 2, 1, -1), [-1, 1] * (h * w // 2)) * 4.0
    noise = rng.normal(size=(n, k, h * w)) * 0.1
    maps = mean[:, :, None] + pattern + noise - noise.mean(axis=2, keepdims=True)
    return maps.reshape(n, k, h, w).astype(mean.dtype)


def _train_head(features: np.ndarray, labels: np.ndarray, classes: int) -> Head:
    """Softmax regression with weight decay, by plain gradient descent."""
    weight, bias = np.zeros((classes, features.shape[1])), np.zeros(classes)
    truth = np.eye(classes)[labels]
    step = 1 / np.mean(np.sum(features**2, axis=1))
    for _ in range(500):
        error = (softmax(features @ weight.T + bias) - truth) / len(labels)
        weight -= step * (error.T @ features + 1e-3 * weight)
        bias -= step * error.sum(axis=0)
    return Head(weight, bias)


def fitted(recipe: Recipe, on: Problem) -> Detector:
    """The detector, fitted in one pass over batches of the problem's training images, and ranked."""
    on = on.shown(recipe.passes(held_out=False))
    cuts = np.array_split(np.arange(len(on.train)), 5)
    found = gather(
        [(on.train.take(rows), on.labels[rows]) for rows in cuts], recipe.required_statistics(on.capabilities).values()
    )
    detector: Detector = recipe.fit(found, on.head, on.capabilities)
    return detector.fit_reference(np.asarray(detector.member_scores(on.shown(detector.passes).new)))


def both(on: Problem) -> Activations:
    """The known images, and after them the unknown ones."""
    pairs = {path: np.concatenate([x, on.unknown.named()[path]]) for path, x in on.known.named().items()}
    return Activations.of(pairs)


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    return float(np.mean(unknown[:, None] > known) + np.mean(unknown[:, None] == known) / 2)

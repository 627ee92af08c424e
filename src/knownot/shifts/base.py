"""Telling the kind of change of a batch, and moving what the classifier computed of it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..arrays import Activations, Head
from ..calibration import Calibration

FEWEST = 20  # images of which a kind is told
TWICE = 2.0  # a kind is believed when it has so many times the share of what was believed before
EVIDENCE = 16.0  # nats by which it explains the batch better
STEPS = 200  # of EM


@dataclass(frozen=True)
class Kind:
    """One kind of change, by copies of m calibration images.

    adapts: whether the classifier is still good enough on such images to adapt to them.
    """

    name: str
    words: str
    accuracy: float | None  # of the classifier on the copies; without labels: the share that it calls as before
    scores: np.ndarray  # [m] float64, the detector's
    predicted: np.ndarray  # [m] int64
    moves: Mapping[str, np.ndarray]  # {path of `Activations.named`: how far the change moves its mean, [d] float32}
    moved_back: np.ndarray  # [b] float64: scores of copies moved back, of other images than `moves` are from
    adapts: bool = True

    def rejected(self, rule: Calibration) -> float:
        """The share of the copies that a rule calls unknown."""
        return float(rule.unknown(rule.p_value(self.scores, self.predicted), self.predicted).mean())

    def back(self, batch: Activations, head: Head | None) -> Activations:
        """The activations less what the change adds to them on average; logits by the head, where there is one."""
        arrays = batch.named()
        arrays |= {path: (arrays[path] - move).astype(np.float32) for path, move in self.moves.items()}
        if head is not None and "features" in self.moves:
            arrays["logits"] = np.asarray(head(arrays["features"]), dtype=np.float32)
        return replace(Activations.of(arrays), keys=batch.keys)


@dataclass(frozen=True)
class Shifts:
    """What `fit` keeps on changed images. Kind 0 is "as it was"; kind i is `kinds[i - 1]`.

    An image is told to be of the kind with the nearest mean, in the space in which the kinds differ most against what
    images of one kind differ (Fisher's linear discriminants, of `places`); of none, -1, beyond `limit`. Of single
    images that is often wrong. The batch is right: how often each kind is told in it is a mixture of how often it is
    told of copies of each kind (`told`), and the mixture's shares are found by EM.
    """

    kinds: tuple[Kind, ...]
    places: tuple[str, ...]
    weights: np.ndarray  # [d, r] float32
    means: np.ndarray  # [k + 1, r] float32
    limit: float  # the largest squared distance to a mean that is told
    told: np.ndarray  # [k + 1, k + 1] float64: of copies of each kind (rows), the share told as each (columns)
    passes: int = 0  # forward passes that this took

    def agrees(self) -> bool:
        """Whether the parts go together, as of a folder that may hold anything."""
        count = 1 + len(self.kinds)
        numbers = (self.weights, self.means, self.told)
        return (
            all(isinstance(kind, Kind) and len(kind.scores) == len(kind.predicted) > 0 for kind in self.kinds)
            and self.told.shape == (count, count)
            and self.means.shape == (count, self.weights.shape[-1])
            and all(np.isfinite(x).all() for x in numbers)
            and bool((self.told > 0).all())
        )

    def tell(self, batch: Activations) -> np.ndarray:
        """The kind that each image looks like by itself, [n] int64; -1: like none."""
        distances = self.distances(features(batch, self.places))
        kind = np.argmin(distances, axis=1)
        return np.where(distances[np.arange(len(kind)), kind] <= self.limit, kind, -1)

    def distances(self, x: np.ndarray) -> np.ndarray:
        """Squared, of what kinds are told by [n, d] to the kinds' means, [n, k + 1]."""
        at = x @ self.weights
        squares = (at**2).sum(axis=1)[:, None] + (self.means**2).sum(axis=1)[None]
        return np.asarray(np.maximum(squares - 2 * at @ self.means.T, 0))

    def counts(self, told: np.ndarray) -> np.ndarray:
        """How many images were told to be of each kind, [k + 1]."""
        return np.bincount(told[told >= 0], minlength=len(self.kinds) + 1)

    def shares(self, counts: np.ndarray) -> np.ndarray:
        """The shares of the kinds [k + 1] in a batch of which so many images were told as each."""
        shares = np.full(len(counts), 1 / len(counts))
        for _ in range(STEPS):
            shares = shares * (self.told @ (counts / (shares @ self.told))) / counts.sum()
        return shares

    def kind(self, counts: np.ndarray, before: int = 0) -> tuple[int, float]:
        """(the kind of a batch, its share), by `counts`; `before` unless another has more than twice its share and
        explains the batch clearly better."""
        if counts.sum() < FEWEST:
            return before, 0.0
        shares = self.shares(counts)
        best = int(np.argmax(shares))
        evidence = float(counts @ np.log(shares @ self.told) - counts @ np.log(self.told[before]))
        found = best if shares[best] > TWICE * shares[before] and evidence > EVIDENCE else before
        return found, float(shares[found])


def features(batch: Activations, places: tuple[str, ...]) -> np.ndarray:
    """What kinds are told by, [n, d] float32."""
    arrays = batch.named()
    return np.concatenate([np.asarray(arrays[path], dtype=np.float32) for path in places], axis=1)

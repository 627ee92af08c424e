from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from array_api_compat import array_namespace

from ..arrays import Activations, Array, Head
from ..errors import InputError, UnsoundError
from .base import Detector
from .formulas import log_probabilities, logsumexp


@dataclass(frozen=True)
class Network(Detector):
    r"""A small network that learnt what is none, reading what the classifier computes; of a remedy, fitted there.

        x = (the arrays of `places`, side by side - mean) / std
        h_0 = x,  h_i = relu(h_(i-1) W_i + b_i),  z = h_(l-1) W_l + b_l,  relu leaky with `slope`
        score(x) = z, of one output (log-odds of unknown)
                 = LSE(z_(c+1) … z_(c+k)) - LSE(z_1 … z_c), of c + k outputs, the last k for none of the classes

    The classifier itself stays as it is. `known` is c, 0 for one output. "logits" among the places are log
    probabilities, which are the same however the classifier's logits are had.
    """

    weights: tuple[Array, ...]  # [in, out] each
    biases: tuple[Array, ...]  # [out] each
    mean: Array  # [d]
    std: Array  # [d]
    places: tuple[str, ...]  # paths of `Activations.named`
    known: int = 0
    slope: float = 0.0

    needs = frozenset({"probabilities"})  # and its places, which `score` looks for
    summary = "what a small network that a remedy trained on features and stages says of none"

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None) -> Self:
        raise UnsoundError(
            "A network is trained with unknown images, which known ones alone do not give: "
            "knownot.remedies.discriminator(model, known, outliers='made:all')."
        )

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.logits)
        x = (xp.concat([read(batch, place) for place in self.places], axis=1) - self.mean) / self.std
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            if i < last:
                x = xp.where(x > 0, x, self.slope * x)
        if not self.known:
            return x[:, 0]
        return logsumexp(x[:, self.known :]) - logsumexp(x[:, : self.known])


def read(batch: Activations, place: str) -> Array:
    """[n, d] of this path; log probabilities for "logits". Raises InputError when the activations lack it."""
    if place == "logits":
        return log_probabilities(batch.logits)[0]
    found = batch.named().get(place)
    if found is None:
        raise InputError(
            f"The network reads {place!r}, which these activations lack; they have: {', '.join(batch.named())}. Open "
            "the classifier that it was trained on, with the same stages=."
        )
    return found

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from array_api_compat import array_namespace

from ...arrays import Activations, Array, Head, softmax
from ..base import Detector


@dataclass(frozen=True)
class GradUncertainty(Detector):
    r"""Lee & AlRegib, Gradients as a Measure of Uncertainty in Neural Networks, ICIP 2020 (arXiv:2008.08030), without
    the second network that the paper trains on the gradients of all layers with unknown images.

        score(x) = -(|| d L / d W ||^2 + || d L / d b ||^2),  L = -sum_c log p_c(x)
                 = -sum_c (C p_c - 1)^2 (||f||^2 + 1)

    L: cross-entropy to a label of all ones; W, b: the head, the number of classes is C. For the last layer this is a
    closed form, so no gradient has to be computed; those of the layers below would take one pass back per image.
    The norm is largest where the classifier is sure, so the sign is turned (in one peer since 2026).
    """

    needs = frozenset({"probabilities", "features"})
    paper = "Lee & AlRegib 2020, arXiv:2008.08030"
    summary = "how little the head would change to learn that all classes are true"

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None) -> Self:
        return cls()

    def score(self, batch: Activations) -> Array:
        xp = array_namespace(batch.logits)
        p = softmax(batch.logits)
        f: Any = batch.features
        slope = p.shape[-1] * p - 1
        return -xp.sum(slope * slope, axis=-1) * (xp.sum(f * f, axis=-1) + 1)

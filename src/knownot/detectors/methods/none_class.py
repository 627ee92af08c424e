from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ...arrays import Activations, Array, Head
from ...errors import InputError
from ...models.none_classes import NONE
from ..base import Detector
from ..formulas import logsumexp


@dataclass(frozen=True)
class NoneClass(Detector):
    r"""The log-odds of "none of the classes", of a classifier that was trained with such classes.

        score(x) = log p(none) - log p(known) = log sum_none exp(logit) - log sum_known exp(logit)

    Zhang & LeCun, Universum Prescription, AAAI 2017 (arXiv:1511.03719): the background class of object detectors, for
    classifiers. Opened with none_classes= (see `open_model`); `knownot.remedies.none_class` makes one.
    """

    needs = frozenset({"probabilities", "none"})
    paper = "Zhang & LeCun 2017, arXiv:1511.03719"
    summary = "log-odds of the none-classes of a classifier that was trained with some"

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None) -> Self:
        return cls()

    def score(self, batch: Activations) -> Array:
        none = batch.extra.get(NONE)
        if none is None:
            raise InputError(
                "These activations have no logits of none-classes: open the classifier with none_classes=, the number "
                "of its last outputs that are no class."
            )
        return logsumexp(none) - logsumexp(batch.logits)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from array_api_compat import array_namespace

from ..arrays import Activations, Array, Head, Offers
from ..stats import Want
from .base import Shaper, number
from .formulas import largest


@dataclass(frozen=True)
class AshS(Shaper):
    r"""Djurisic et al., Extremely Simple Activation Shaping for OOD Detection, ICLR 2023 (arXiv:2209.09858), ASH-S.

        f'(x) = f(x) exp(s1 / s2) where f(x) is among the image's largest values, else 0

    The largest (100 - percentile) % of an image's values are kept, all those that equal the smallest kept one too;
    s1 is the sum of all values, s2 that of the kept ones. Of the pooled features; one peer shapes the feature map.
    An image with s2 <= 0 (all zeros) is not scaled. s1 / s2 is at most d / kept, as no mean is above that of the
    largest values, so with percentile <= 95 nothing overflows.
    """

    percentile: float = 90.0

    needs = frozenset({"features", "head"})
    paper = "Djurisic et al. 2023, arXiv:2209.09858"
    summary = "an image's largest features, scaled up; the others zero"

    @classmethod
    def wants(cls, offers: Offers, *, percentile: float = 90.0) -> dict[str, Want]:
        number("percentile", percentile, 0, 95)
        return {}

    @classmethod
    def fit(cls, seen: Mapping[str, Any], head: Head | None, *, percentile: float = 90.0) -> Self:
        return cls(float(percentile))

    def shape(self, batch: Activations, head: Head) -> Activations:
        xp = array_namespace(batch.features)
        f: Array = batch.features
        d = f.shape[-1]
        keep = max(1, d - round(d * self.percentile / 100))
        smallest = xp.min(largest(f, keep), axis=-1, keepdims=True)
        kept = xp.where(f >= smallest, f, xp.zeros_like(f))
        s1, s2 = (xp.sum(x, axis=-1, keepdims=True) for x in (f, kept))
        ratio = xp.where(s2 > 0, s1 / xp.where(s2 > 0, s2, xp.ones_like(s2)), xp.zeros_like(s2))
        features = kept * xp.exp(ratio)
        return replace(batch, features=features, logits=head(features))

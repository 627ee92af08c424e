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
class AshP(Shaper):
    r"""Djurisic et al., Extremely Simple Activation Shaping for OOD Detection, ICLR 2023 (arXiv:2209.09858), ASH-P.

        f'(x) = f(x) where f(x) is among the image's largest values, else 0

    The largest (100 - percentile) % of an image's values are kept, all those that equal the smallest kept one too.
    Of the pooled features; one peer shapes the feature map. percentile: 60 by default, for pruning alone costs what
    a small layer tells: of 64 features, 90 leaves six.
    """

    percentile: float = 60.0

    needs = frozenset({"features", "head"})
    paper = "Djurisic et al. 2023, arXiv:2209.09858"
    summary = "an image's largest features; the others zero"

    @classmethod
    def wants(cls, offers: Offers, *, percentile: float = 60.0) -> dict[str, Want]:
        number("percentile", percentile, 0, 95)
        return {}

    @classmethod
    def fit(cls, seen: Mapping[str, Any], head: Head | None, *, percentile: float = 60.0) -> Self:
        return cls(float(percentile))

    def shape(self, batch: Activations, head: Head) -> Activations:
        features = self.values(batch.features, smallest_kept(batch.features, self.percentile))
        return replace(batch, features=features, logits=head(features))

    def values(self, f: Array, smallest: Array) -> Array:  # [n, d], [n, 1] -> [n, d]
        xp = array_namespace(f)
        return xp.where(f >= smallest, f, xp.zeros_like(f))


@dataclass(frozen=True)
class AshS(AshP):
    r"""Djurisic et al., Extremely Simple Activation Shaping for OOD Detection, ICLR 2023 (arXiv:2209.09858), ASH-S.

        f'(x) = f(x) exp(s1 / s2) where f(x) is among the image's largest values, else 0

    The largest (100 - percentile) % of an image's values are kept, all those that equal the smallest kept one too;
    s1 is the sum of all values, s2 that of the kept ones. Of the pooled features; one peer shapes the feature map.
    An image with s2 <= 0 (all zeros) is not scaled. s1 / s2 is at most d / kept, as no mean is above that of the
    largest values, so with percentile <= 95 nothing overflows.
    """

    percentile: float = 90.0

    summary = "an image's largest features, scaled up; the others zero"

    @classmethod
    def wants(cls, offers: Offers, *, percentile: float = 90.0) -> dict[str, Want]:
        return super().wants(offers, percentile=percentile)

    @classmethod
    def fit(cls, seen: Mapping[str, Any], head: Head | None, *, percentile: float = 90.0) -> Self:
        return cls(float(percentile))

    def values(self, f: Array, smallest: Array) -> Array:
        xp = array_namespace(f)
        kept = xp.where(f >= smallest, f, xp.zeros_like(f))
        s1, s2 = (xp.sum(x, axis=-1, keepdims=True) for x in (f, kept))
        ratio = xp.where(s2 > 0, s1 / xp.where(s2 > 0, s2, xp.ones_like(s2)), xp.zeros_like(s2))
        return kept * xp.exp(ratio)


@dataclass(frozen=True)
class AshB(AshP):
    r"""Djurisic et al., Extremely Simple Activation Shaping for OOD Detection, ICLR 2023 (arXiv:2209.09858), ASH-B.

        f'(x) = s1 / kept where f(x) is among the image's largest values, else 0

    The largest (100 - percentile) % of an image's values are kept, all those that equal the smallest kept one too,
    if they are above 0; `kept` is their number, s1 the sum of the image's values above 0. In the paper zeros are
    kept too where an image has few values above 0 (which of them, a sort decides), and features are never below 0.
    """

    percentile: float = 90.0

    summary = "an image's largest features made equal, their sum that of all; the others zero"

    @classmethod
    def wants(cls, offers: Offers, *, percentile: float = 90.0) -> dict[str, Want]:
        return super().wants(offers, percentile=percentile)

    @classmethod
    def fit(cls, seen: Mapping[str, Any], head: Head | None, *, percentile: float = 90.0) -> Self:
        return cls(float(percentile))

    def values(self, f: Array, smallest: Array) -> Array:
        xp = array_namespace(f)
        kept = xp.astype((f >= smallest) & (f > 0), f.dtype)
        total = xp.sum(xp.clip(f, min=0.0), axis=-1, keepdims=True)
        return kept * (total / xp.clip(xp.sum(kept, axis=-1, keepdims=True), min=1.0))


def smallest_kept(f: Array, percentile: float) -> Array:  # [n, d] -> [n, 1]
    """The smallest of the largest (100 - percentile) % of each row's values, of one at least."""
    xp = array_namespace(f)
    d = f.shape[-1]
    return xp.min(largest(f, max(1, d - round(d * percentile / 100))), axis=-1, keepdims=True)

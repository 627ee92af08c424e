from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

from array_api_compat import array_namespace

from ...arrays import Activations, Array, Head
from ..formulas import divided
from ..percentile import ByPercentile, of_largest


@dataclass(frozen=True)
class Ash(ByPercentile):
    """What an image's largest values become; the others become zero."""

    paper = "Djurisic et al. 2023, arXiv:2209.09858"

    def shape(self, batch: Activations, head: Head) -> Activations:
        f: Array = batch.features
        features = self.values(f, array_namespace(f).min(of_largest(f, self.percentile), axis=-1, keepdims=True))
        return replace(batch, features=features, logits=head(features))

    @abstractmethod
    def values(self, f: Array, smallest: Array) -> Array:  # [n, d], [n, 1] -> [n, d]
        """smallest: of the kept ones."""


@dataclass(frozen=True)
class AshP(Ash):
    r"""Djurisic et al., Extremely Simple Activation Shaping for OOD Detection, ICLR 2023 (arXiv:2209.09858), ASH-P.

        f'(x) = f(x) where f(x) is among the image's largest values, else 0

    The largest (100 - percentile) % of an image's values are kept, all those that equal the smallest kept one too.
    Of the pooled features; one peer shapes the feature map. percentile: 60 by default, for pruning alone costs what
    a small layer tells: of 64 features, 90 leaves six.
    """

    usual = 60.0
    summary = "an image's largest features; the others zero"

    def values(self, f: Array, smallest: Array) -> Array:
        xp = array_namespace(f)
        return xp.where(f >= smallest, f, xp.zeros_like(f))


@dataclass(frozen=True)
class AshS(Ash):
    r"""Djurisic et al., Extremely Simple Activation Shaping for OOD Detection, ICLR 2023 (arXiv:2209.09858), ASH-S.

        f'(x) = f(x) exp(s1 / s2) where f(x) is among the image's largest values, else 0

    The largest (100 - percentile) % of an image's values are kept (percentile: 90 by default), all those that equal the
    smallest kept one too; s1 is the sum of all values, s2 that of the kept ones. Of the pooled features; one peer
    shapes the feature map. An image with s2 <= 0 (all zeros) is not scaled. s1 / s2 is at most d / kept, as no mean
    is above that of the largest values, so with percentile <= 95 nothing overflows.
    """

    usual = 90.0
    summary = "an image's largest features, scaled up; the others zero"

    def values(self, f: Array, smallest: Array) -> Array:
        xp = array_namespace(f)
        kept = xp.where(f >= smallest, f, xp.zeros_like(f))
        s1, s2 = (xp.sum(x, axis=-1, keepdims=True) for x in (f, kept))
        ratio = xp.where(s2 > 0, divided(s1, s2), xp.zeros_like(s2))
        return kept * xp.exp(ratio)


@dataclass(frozen=True)
class AshB(Ash):
    r"""Djurisic et al., Extremely Simple Activation Shaping for OOD Detection, ICLR 2023 (arXiv:2209.09858), ASH-B.

        f'(x) = s1 / kept where f(x) is among the image's largest values, else 0

    The largest (100 - percentile) % of an image's values are kept (percentile: 90 by default), all those that equal the
    smallest kept one too, if they are above 0; `kept` is their number, s1 the sum of the image's values above 0. In
    the paper zeros are kept too where an image has few values above 0 (which of them, a sort decides), and features
    are never below 0.
    """

    usual = 90.0
    summary = "an image's largest features made equal, their sum that of all; the others zero"

    def values(self, f: Array, smallest: Array) -> Array:
        xp = array_namespace(f)
        kept = xp.astype((f >= smallest) & (f > 0), f.dtype)
        total = xp.sum(xp.clip(f, min=0.0), axis=-1, keepdims=True)
        return kept * (total / xp.clip(xp.sum(kept, axis=-1, keepdims=True), min=1.0))

from __future__ import annotations

from dataclasses import dataclass, replace

from array_api_compat import array_namespace

from ...arrays import Activations, Array, Head
from ..formulas import divided
from ..percentile import ByPercentile, of_largest


def mass_ratio(f: Array, percentile: float) -> Array:  # [n, d] -> [n, 1]
    """Sum of each row's values above 0, divided by that of the largest (100 - percentile) % of them; at least 1.

    1 for a row without values above 0. At most d / kept, so with percentile <= 95 its exponential is a float32.
    """
    xp = array_namespace(f)
    f = xp.clip(f, min=0.0)
    s1, s2 = (xp.sum(x, axis=-1, keepdims=True) for x in (f, of_largest(f, percentile)))
    return xp.where(s2 > 0, divided(s1, s2), xp.ones_like(s2))


@dataclass(frozen=True)
class Scale(ByPercentile):
    r"""Xu et al., Scaling for Training Time and Post-hoc Out-of-distribution Detection Enhancement, ICLR 2024
    (arXiv:2310.00227), SCALE.

        f'(x) = f(x) exp(s1 / s2)

    s1: the sum of an image's values, s2: that of its largest (100 - percentile) %, each of values above 0 only, which
    is the paper's sum for features behind a ReLU. Nothing is pruned, so the predicted class stays where the head
    has no bias. Of the pooled features, percentile 85 by default; one peer shapes the feature map with 65.
    """

    usual = 85.0
    paper = "Xu et al. 2024, arXiv:2310.00227"
    summary = "features scaled up where an image's largest hold a small part of their sum"

    def shape(self, batch: Activations, head: Head) -> Activations:
        features = batch.features * array_namespace(batch.features).exp(mass_ratio(batch.features, self.percentile))
        return replace(batch, features=features, logits=head(features))


@dataclass(frozen=True)
class LTS(ByPercentile):
    r"""Djurisic, Liu & Nikolic, Logit Scaling for Out-of-Distribution Detection, 2024 (arXiv:2409.01175).

        logits'(x) = logits(x) (s1 / s2)^2

    s1: the sum of an image's values above 0, s2: that of its largest (100 - percentile) %, as in the authors' code
    (percentile: 95 by default). The features stay, and so does the predicted class. One peer divides by the square,
    which turns the effect round.
    """

    usual = 95.0
    paper = "Djurisic, Liu & Nikolic 2024, arXiv:2409.01175"
    summary = "logits scaled up where an image's largest features hold a small part of their sum"

    def shape(self, batch: Activations, head: Head) -> Activations:
        ratio = mass_ratio(batch.features, self.percentile)
        return replace(batch, logits=batch.logits * ratio * ratio)

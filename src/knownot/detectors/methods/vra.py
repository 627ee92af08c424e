from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...errors import OptionError, UnsoundError
from ...stats import Quantiles, StatisticRequest
from ..base import Shaper, number, some_images


@dataclass(frozen=True)
class Vra(Shaper):
    r"""Xu et al., VRA: Variational Rectified Activation for Out-of-distribution Detection, NeurIPS 2023
    (arXiv:2302.11716), VRA-P.

        f'(x) = 0 where f(x) < low,  f(x) where low <= f(x) <= high,  high where f(x) > high

    low, high: percentiles, 10 and 90 by default, of all values of all features of the known images; one peer takes
    those of each feature, 1 and 99. Where a tenth of the values are zeros, low is 0 and this is ReAct. Of the pooled
    features. Within 6e-5 of the value, see Quantiles.
    """

    low: float
    high: float

    needs = frozenset({"features", "head"})
    paper = "Xu et al. 2023, arXiv:2302.11716"
    summary = "features clipped from above; the smallest zero"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        low, high = options["low"], options["high"]
        number("low", low, 0, 100)
        number("high", high, 0, 100)
        if not low < high:
            raise OptionError(f"low={low:g}, high={high:g}: expected a percentile `low` below `high`.")
        return {"values": StatisticRequest(Quantiles, "features")}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None, *, low: float = 10.0, high: float = 90.0) -> Self:
        some_images(len(statistics["values"]), "VRA")
        below, above, lowest = (statistics["values"](share) for share in (low / 100, high / 100, 0.0))
        if not above > lowest:
            raise UnsoundError(
                f"{high:g} % of the values of the features are {lowest:g}, the lowest one, so clipping there would "
                "make all images alike. Choose a higher percentile `high`, or another detector."
            )
        return cls(below, above)

    def shape(self, batch: Activations, head: Head) -> Activations:
        f: Array = batch.features
        xp = array_namespace(f)
        features = xp.where(f < self.low, xp.zeros_like(f), xp.clip(f, max=self.high))
        return replace(batch, features=features, logits=head(features))

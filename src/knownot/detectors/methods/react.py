from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from array_api_compat import array_namespace

from ...arrays import Activations, Capabilities, Head
from ...errors import UnsoundError
from ...stats import Quantiles, StatisticRequest
from ..base import Shaper, number, some_images


@dataclass(frozen=True)
class ReAct(Shaper):
    r"""Sun, Guo & Li, ReAct: Out-of-distribution Detection With Rectified Activations, NeurIPS 2021
    (arXiv:2111.12797).

        f'(x) = min(f(x), threshold), element by element

    threshold: a percentile, 90 by default, of all values of all features of the known images. Of the pooled
    features, as in the paper; one peer clips the feature map before pooling. Within 6e-5 of the
    value, see Quantiles.
    """

    threshold: float

    needs = frozenset({"features", "head"})
    paper = "Sun, Guo & Li 2021, arXiv:2111.12797"
    summary = "features clipped from above"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("percentile", options["percentile"], 1, 100)
        return {"values": StatisticRequest(Quantiles, "features")}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None, *, percentile: float = 90.0) -> Self:
        some_images(len(statistics["values"]), "ReAct")
        threshold, lowest = (statistics["values"](share) for share in (percentile / 100, 0.0))
        if not threshold > lowest:
            raise UnsoundError(
                f"{percentile:g} % of the values of the features are {lowest:g}, the lowest one, so clipping there "
                "would make all images alike. Choose a higher percentile, or another detector."
            )
        return cls(threshold)

    def shape(self, batch: Activations, head: Head) -> Activations:
        xp = array_namespace(batch.features)
        features = xp.clip(batch.features, max=self.threshold)
        return replace(batch, features=features, logits=head(features))

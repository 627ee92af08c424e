from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...errors import UnsoundError
from ...stats import Reservoir, StatisticRequest
from ..base import Shaper, number, some_images

RANGE = (0.001, 0.999)  # quantiles of all values, between which there are intervals


@dataclass(frozen=True)
class OptFS(Shaper):
    r"""Zhao et al., Towards Optimal Feature-Shaping Methods for Out-of-Distribution Detection, ICLR 2024
    (arXiv:2402.00865).

        f_j'(x) = theta_i f_j(x) where f_j(x) is in interval i,  0 outside of all
        theta_i ~ mean over known images of sum over j with f_j in interval i of w_cj f_j,  c the predicted class

    Intervals of equal width between the 0.001 and 0.999 quantiles of all values. The closed form with fixed weights,
    from known images alone, over a sample of 10,000 of them (the paper: the training set). theta is divided by its
    root mean square, which keeps the scale of the logits; the authors' code scales it to 1000, which leaves the
    bias without effect. Features of either sign are shaped alike, so this is for vision transformers too.
    """

    theta: Array  # [intervals]
    low: float
    width: float  # of one interval

    needs = frozenset({"features", "head"})
    paper = "Zhao et al. 2024, arXiv:2402.00865"
    summary = "features weighted by what values of their size contribute on known images"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        number("intervals", options["intervals"], 2, 10_000, whole=True)
        return {"sample": StatisticRequest(Reservoir, "features", options=(("size", 10_000),))}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head, *, intervals: int = 100) -> Self:
        sample = np.asarray(statistics["sample"].rows["rows"], dtype=np.float64)
        some_images(len(sample), "OptFS")
        weight, bias = (np.asarray(x, dtype=np.float64) for x in (head.weight, head.bias))
        low, high = np.quantile(sample, RANGE)
        width = float(high - low) / intervals
        gain = np.zeros(intervals)
        if width > 0:
            contribution = weight[np.argmax(sample @ weight.T + bias, axis=1)] * sample
            inside = (sample >= low) & (sample <= high)
            index = np.clip((sample[inside] - low) / width, 0, intervals - 1).astype(int)
            gain = np.bincount(index, contribution[inside], minlength=intervals) / len(sample)
        size = np.sqrt(np.mean(gain**2))
        if not size > 0:
            raise UnsoundError(
                "The features of the known images are all alike or contribute nothing to the predicted classes, so "
                "OptFS has nothing to weight values by. Choose another detector."
            )
        return cls(gain / size, float(low), width)

    def shape(self, batch: Activations, head: Head) -> Activations:
        f: Array = batch.features
        xp = array_namespace(f)
        last = self.theta.shape[0] - 1
        place = (f - self.low) / self.width
        index = xp.astype(xp.floor(xp.clip(place, min=0.0, max=float(last))), xp.arange(1).dtype)  # JAX: of 32 bits
        theta = xp.reshape(xp.take(self.theta, xp.reshape(index, (-1,)), axis=0), (-1, f.shape[-1]))
        features = xp.where((place >= 0) & (place <= last + 1), theta * f, xp.zeros_like(f))
        return replace(batch, features=features, logits=head(features))

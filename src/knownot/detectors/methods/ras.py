from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ...arrays import Activations, Array, Capabilities, Head
from ...stats import Statistic, StatisticRequest
from ..base import Shaper, some_images


@dataclass(frozen=True)
class Profile(Statistic):
    """Count and mean of rows whose values were sorted, each row by itself, in float64."""

    count: int
    mean: np.ndarray  # [d], ascending

    @classmethod
    def of(cls, rows: Any, **options: Any) -> Self:  # rows [n, d]
        rows = np.sort(np.asarray(rows, dtype=np.float64), axis=1)
        return cls(len(rows), rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1]))

    def merge(self, other: Self) -> Self:
        count = self.count + other.count
        return type(self)(count, self.mean + (other.mean - self.mean) * (other.count / max(count, 1)))


@dataclass(frozen=True)
class RAS(Shaper):
    r"""Guglielmo & Masana, Ranked Activation Shift for Post-Hoc Out-of-Distribution Detection, 2026 (arXiv:2604.08572).

        f'_j(x) = profile[rank of f_j(x) among f_1(x) … f_d(x)],   profile[i] = mean of the i-th smallest feature

    So every image gets the same values, each where its own value of that rank was; their energy is the score. The
    profile is the mean over all known images; nothing is to be tuned.

    From the abstract: sorted activation magnitudes are replaced by a fixed profile of known images, without parameters.
    From the authors' code: the values are sorted with their signs, ascending; the profile is the mean over the
    training set, right or wrong predictions alike; the score is the log-sum-exp of the head on what comes out. Not
    verified: the text of the paper beyond its abstract, and its numbers. Equal values, such as the zeros of a ReLU,
    get their ranks in the order of their positions here; in the authors' code that is left to the sort.
    """

    profile: Array  # [d], ascending

    needs = frozenset({"features", "head"})
    paper = "Guglielmo & Masana 2026, arXiv:2604.08572"
    summary = "features replaced, rank by rank, by those of known images"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        return {"profile": StatisticRequest(Profile, "features")}

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None) -> Self:
        some_images(statistics["profile"].count, "RAS")
        return cls(statistics["profile"].mean)

    def shape(self, batch: Activations, head: Head) -> Activations:
        xp = array_namespace(batch.features)
        rank = xp.argsort(xp.argsort(batch.features, axis=-1), axis=-1)  # [n, d]
        features = xp.reshape(xp.take(self.profile, xp.reshape(rank, (-1,))), (-1, self.profile.shape[0]))
        return replace(batch, features=features, logits=head(features))

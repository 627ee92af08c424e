from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..arrays import Activations, Array, Capabilities, Head
from ..errors import OptionError
from ..stats import StatisticRequest
from .base import Detector, Recipe, Shaper


@dataclass(frozen=True)
class Shaped(Detector):
    """A detector that scores what a shaper made of the activations.

    shaper, detector: recipes. The detector has to be one that learns nothing from known images (Energy, MSP, GEN ...):
    what it learnt before shaping would not fit what it scores.
    """

    shaper: Shaper
    detector: Detector
    head: Head

    needs = frozenset({"features", "head"})
    summary = "a detector's score of shaped features"

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        shaper, detector = options["shaper"], options["detector"]
        for name, given, kind in (("shaper", shaper, Shaper), ("detector", detector, Detector)):
            if not isinstance(given, Recipe) or not issubclass(given.kind, kind):
                raise OptionError(f"{name}={given!r}: expected a Recipe of a {kind.__name__}.")
        if detector.needs() & {"gradient", "dropout"}:
            raise OptionError(
                f"{detector.kind.__name__} scores what is computed of changed images, where nothing is shaped. "
                "Detectors that can be shaped: Energy, MaxLogit, MSP, Entropy, GEN."
            )
        if detector.required_statistics(capabilities):
            raise OptionError(
                f"{detector.kind.__name__} learns from the known images as they are, so it cannot score shaped ones. "
                "Detectors that can: Energy, MaxLogit, MSP, Entropy, GEN."
            )
        return shaper.required_statistics(capabilities)

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head, *, shaper: Recipe, detector: Recipe) -> Self:
        own = Head(np.asarray(head.weight), np.asarray(head.bias))
        return cls(
            shaper.kind.fit(statistics, head, **shaper.options), detector.kind.fit({}, head, **detector.options), own
        )

    def score(self, batch: Activations) -> Array:
        return self.detector.score(self.shaper.shape(batch, self.head))

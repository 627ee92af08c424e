from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..arrays import Activations, Array, Capabilities, Head
from ..errors import OptionError
from ..stats import Reservoir, StatisticRequest
from .base import Detector, Recipe
from .passes import Pass

ONE = (("size", 1),)


@dataclass(frozen=True)
class Prefit(Detector):
    """A detector that is fitted already, by something else than known images alone: a discriminator, for instance.

    As a recipe it stands wherever others do, and fitting it gives the detector itself:
    `knownot.fit(model, known, detector={"default": "default", "mine": detector})`. A combination that is given so stays
    one member, with the ranks that it has.
    """

    detector: Detector

    needs = frozenset()
    summary = "a detector that was fitted before"

    @classmethod
    def needs_with(cls, **options: Any) -> frozenset[str]:
        detector = options.get("detector")
        return detector.needs if isinstance(detector, Detector) else frozenset()

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        detector = options["detector"]
        if not isinstance(detector, Detector):
            raise OptionError(f"detector={detector!r}: expected a fitted detector.")
        # Nothing is learnt; but what it reads of maps has to be made in the same pass, and a want asks for that.
        return {
            f"reads {i}": StatisticRequest(Reservoir, one, options=ONE) for i, one in enumerate(detector.map_reductions)
        }

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Head | None, *, detector: Any = None) -> Any:
        return detector

    @classmethod
    def passes_before(cls, **options: Any) -> tuple[Pass, ...]:
        return tuple(options["detector"].passes)

    def score(self, batch: Activations) -> Array:
        return self.detector.score(batch)


def beside_default(name: str, detector: Any) -> dict[str, Any]:
    """{name: detector}: the default and, unless that is it, another one, as `knownot.fit(…, detector=…)` takes them."""
    if detector == "default":
        return {"default": "default"}
    return {"default": "default", detector if isinstance(detector, str) else name: detector}


def given(detector: Detector) -> Recipe:
    """The recipe of a detector that is fitted already."""
    return Recipe(Prefit, {"detector": detector})

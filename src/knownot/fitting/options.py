"""What the user promises, and what of a fit is random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..calibration import PER_CLASS, check_options, images_needed, images_needed_sentence


@dataclass(frozen=True)
class CalibrationOptions:
    """alpha: the share of known images that may be rejected; guarantee, delta: see `knownot.fit`; seed: of draws."""

    alpha: float = 0.05
    guarantee: str = "pac"
    delta: float = 0.01
    seed: int = 0

    def check(self) -> None:
        """Raise OptionError for one that is out of range."""
        check_options(self.alpha, self.delta, self.guarantee)

    @property
    def rule(self) -> dict[str, Any]:
        """As `Calibration.of` takes them."""
        return {"alpha": self.alpha, "guarantee": self.guarantee, "delta": self.delta}

    @property
    def needed(self) -> int:
        """The fewest calibration images that decide a threshold (per predicted class, for "class-conditional")."""
        return images_needed(self.alpha, self.delta, self.guarantee)

    @property
    def sentence(self) -> str:
        """`needed`, said to a person."""
        return images_needed_sentence(self.alpha, self.delta, self.guarantee)

    def of_classes(self, classes: int) -> int:
        """Calibration images that decide the thresholds of a classifier."""
        return self.needed * (classes if self.guarantee in PER_CLASS else 1)

"""Every scoring method: one file each, one line each in the table `DETECTORS`."""

from __future__ import annotations

from .base import Detector, Recipe, Shaper
from .energy import Energy

__all__ = ["DETECTORS", "Detector", "Recipe", "Shaper"]

DETECTORS: dict[str, Recipe] = {
    "energy": Recipe(Energy),
}

"""Images made to fool a classifier, and the detector in front of it."""

from __future__ import annotations

from .attack import METHODS, fool
from .record import Fooling

__all__ = ["METHODS", "Fooling", "fool"]

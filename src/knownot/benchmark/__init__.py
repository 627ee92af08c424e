"""Detectors side by side on known and unknown images."""

from .compare import Comparison, Line, compare

__all__ = ["Comparison", "Line", "compare"]

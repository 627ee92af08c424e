"""What is recorded of one way of preprocessing that was tried."""

from __future__ import annotations

from dataclasses import dataclass

from ..arrays import Preprocess


@dataclass(frozen=True)
class Trial:
    """One way of preprocessing, tried on labelled known images."""

    preprocess: Preprocess
    accuracy: float
    images: int

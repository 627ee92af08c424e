"""From a score to a decision: p-values, thresholds and how many images they take."""

from .conformal import (
    GUARANTEES,
    Calibration,
    allowed_rank,
    as_share,
    check_options,
    images_needed,
    images_needed_sentence,
    p_values,
    percent,
)

__all__ = [
    "GUARANTEES",
    "Calibration",
    "allowed_rank",
    "as_share",
    "check_options",
    "images_needed",
    "images_needed_sentence",
    "p_values",
    "percent",
]

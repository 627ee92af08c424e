"""Comparing scores with truth."""

from .intervals import auroc_interval, mean_interval, paired_interval, wilson
from .metrics import aupr_unknown, auroc, fpr_at_95_known_recall, fpr_at_95_unknown_recall
from .sureness import (
    Bin,
    calibration_error,
    calibration_error_by_chance,
    equal_count,
    equal_width,
    log_loss,
    temperature,
)

__all__ = [
    "Bin",
    "aupr_unknown",
    "auroc",
    "auroc_interval",
    "calibration_error",
    "calibration_error_by_chance",
    "equal_count",
    "equal_width",
    "fpr_at_95_known_recall",
    "fpr_at_95_unknown_recall",
    "log_loss",
    "mean_interval",
    "paired_interval",
    "temperature",
    "wilson",
]

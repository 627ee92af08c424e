"""Comparing scores with truth."""

from .curve import Curve, all_metrics, curve
from .intervals import auroc_interval, mean_interval, paired_interval, wilson
from .metrics import (
    aupr_known,
    aupr_known_trapezoid,
    aupr_unknown,
    aupr_unknown_trapezoid,
    auroc,
    ccr_at_fpr,
    fpr_at_95_known_recall,
    fpr_at_95_unknown_recall,
    oscr,
)
from .paired import Areas, area_difference, areas, holm, mean_areas
from .selective import aurc, excess_aurc, risk_coverage
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
    "Areas",
    "Bin",
    "Curve",
    "all_metrics",
    "area_difference",
    "areas",
    "aupr_known",
    "aupr_known_trapezoid",
    "aupr_unknown",
    "aupr_unknown_trapezoid",
    "aurc",
    "auroc",
    "auroc_interval",
    "calibration_error",
    "calibration_error_by_chance",
    "ccr_at_fpr",
    "curve",
    "equal_count",
    "equal_width",
    "excess_aurc",
    "fpr_at_95_known_recall",
    "fpr_at_95_unknown_recall",
    "holm",
    "log_loss",
    "mean_areas",
    "mean_interval",
    "oscr",
    "paired_interval",
    "risk_coverage",
    "temperature",
    "wilson",
]

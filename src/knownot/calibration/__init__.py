"""From a score to a decision: p-values, thresholds and how many images they take."""

from .conformal import (
    GUARANTEES,
    PER_CLASS,
    Calibration,
    allowed_rank,
    as_share,
    check_options,
    images_needed,
    images_needed_sentence,
    p_values,
    percent,
    share,
)
from .fdr import KnownBound, Selection, known_bound, select
from .prevalence import UnknownShare, unknown_share
from .two_sample import TwoSample, two_sample_test

__all__ = [
    "GUARANTEES",
    "PER_CLASS",
    "Calibration",
    "KnownBound",
    "Selection",
    "TwoSample",
    "UnknownShare",
    "allowed_rank",
    "as_share",
    "check_options",
    "images_needed",
    "images_needed_sentence",
    "known_bound",
    "p_values",
    "percent",
    "select",
    "share",
    "two_sample_test",
    "unknown_share",
]

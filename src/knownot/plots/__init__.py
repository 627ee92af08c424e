"""Every picture and page in one visual language: the palette, the style sheet, charts, thumbnails, numbers in words.

The histogram and thumbnails need nothing that the light install lacks; the other charts are matplotlib's, with the
extra `[audit]`.
"""

from .changes import changes
from .charts import Measured, bars, confusion, curves, dots, reliability, scatter
from .drawing import need
from .histogram import bins_of, histogram, tails
from .palette import PALETTE, Tone, stylesheet
from .pictures import Thumb, data_uri, gallery, pixels_of
from .words import number, p_value, percent, visible

__all__ = [
    "PALETTE",
    "Measured",
    "Thumb",
    "Tone",
    "bars",
    "bins_of",
    "changes",
    "confusion",
    "curves",
    "data_uri",
    "dots",
    "gallery",
    "histogram",
    "need",
    "number",
    "p_value",
    "percent",
    "pixels_of",
    "reliability",
    "scatter",
    "stylesheet",
    "tails",
    "visible",
]

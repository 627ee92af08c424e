"""Made images, for testing and training: one small pure function each, one line each in the table `OUTLIERS`.

And made features (`virtual_outliers`, `boundary_outliers`), for training what reads features.
"""

from __future__ import annotations

from .features import boundary_outliers, virtual_outliers
from .make import make
from .table import OUTLIERS, Kind

__all__ = ["OUTLIERS", "Kind", "boundary_outliers", "make", "virtual_outliers"]

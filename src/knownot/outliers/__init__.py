"""Made images, for testing and training: one small pure function each, one line each in the table `OUTLIERS`.

`make` gives them as arrays, `write` as files. And made features (`virtual_outliers`, `boundary_outliers`), for training
what reads features.
"""

from __future__ import annotations

from .features import boundary_outliers, virtual_outliers
from .files import write
from .make import make
from .table import OUTLIERS, Kind, kinds_named

__all__ = ["OUTLIERS", "Kind", "boundary_outliers", "kinds_named", "make", "virtual_outliers", "write"]

"""Made images, for testing and training: one small pure function each, one line each in the table `OUTLIERS`."""

from __future__ import annotations

from .make import make
from .table import OUTLIERS, Kind

__all__ = ["OUTLIERS", "Kind", "make"]

"""One self-contained HTML page about what was found in a set of images."""

from .data import Card, ClassCount, Counts, ModelDescription, Neighbour, ReportData
from .html import write_report

__all__ = ["Card", "ClassCount", "Counts", "ModelDescription", "Neighbour", "ReportData", "write_report"]

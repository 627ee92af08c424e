"""One self-contained HTML page about what was found in a set of images."""

from .data import Card, ClassCount, Counts, Group, ModelDescription, Neighbour, ReportData
from .html import write_report

__all__ = ["Card", "ClassCount", "Counts", "Group", "ModelDescription", "Neighbour", "ReportData", "write_report"]

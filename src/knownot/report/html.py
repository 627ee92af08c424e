"""Data in, one self-contained HTML file out. File names and class names are hostile input: everything is escaped."""

from __future__ import annotations

import math
from pathlib import Path

from ..plots import bins_of, changes, data_uri, histogram, p_value, pixels_of, tails
from ..plots.page import render as fill
from ..plots.page import write
from .data import Card, ReportData
from .plane import drawn

CARDS = 24  # per gallery
TILE = 84  # pixels of a picture in the grid
UNREADABLE = 200
CLASSES = 60  # rows of the table of classes


def write_report(path: str | Path, data: ReportData) -> None:
    """One HTML file: nothing is fetched when it is opened, and no script runs but those of this package.

    Raises InputError when a thumbnail is no image, or the file cannot be written.
    """
    write(Path(path), render(data), "report")


def render(data: ReportData) -> str:
    """The page as text."""
    filters = {
        "p": p_value,
        "uri": data_uri,
        "small": lambda thumb: data_uri(thumb, TILE),
        "surprise": lambda p: surprise(p, len(data.calibration_scores)),
        "tiny": lambda thumb: "tiny" if max(pixels_of(thumb).size) <= 48 else "",
    }
    ordered = sorted(data.class_counts, key=lambda c: -c.total)
    scores = data.calibration_scores, data.incoming_scores, data.threshold
    return fill(
        "report",
        "report.html.j2",
        filters,
        script="report.js",
        data=data,
        wide=histogram(*scores, name="scores-wide"),
        narrow=histogram(*scores, width=360, height=260, name="scores-narrow"),
        tails=tails(bins_of(*scores)),
        galleries=galleries(data),
        map=drawn(data.groups),
        changed=changes(data.changed, alpha=data.alpha) if data.changed else "",
        tiles=sum(len(group.cards) for group in data.groups),
        start=max((i for i, (p, *_) in enumerate(data.steps) if p <= (data.p_threshold or 0)), default=0),
        classes=ordered[:CLASSES],
        more_classes=ordered[CLASSES:],
        largest_class=max((c.total for c in ordered), default=0) or 1,
        unreadable=data.unreadable[:UNREADABLE],
    )


def galleries(data: ReportData) -> list[tuple[str, str, str, tuple[Card, ...]]]:
    """(id, heading, what is said when there are none, cards)."""
    nobody = "No image was called unknown." if data.counts.unknown == 0 else "No images were kept for this gallery."
    most = [("most-unknown", "The most unknown images", nobody, data.most_unknown[:CARDS])]
    return [
        *([] if data.groups else most),
        ("borderline", "Images nearest to the threshold", "There are none.", data.borderline[:CARDS]),
    ]


def surprise(p: float, calibration: int) -> float:
    """A p-value as the length of a bar, 0–100: -log p, full at the smallest that so many calibration images allow."""
    if not 0 < p <= 1:
        return 100.0 if p == 0 else 0.0
    return round(100 * min(1.0, -math.log(p) / math.log(calibration + 1)), 1) if calibration else 0.0

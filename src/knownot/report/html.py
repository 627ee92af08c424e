"""Data in, one self-contained HTML file out. File names and class names are hostile input: everything is escaped."""

from __future__ import annotations

import math
from pathlib import Path

import jinja2
from markupsafe import Markup

from ..errors import InputError
from ..plots import bins_of, data_uri, histogram, number, p_value, percent, pixels_of, stylesheet, tails, visible
from .data import Card, ReportData

CARDS = 24  # per gallery
UNREADABLE = 200
CLASSES = 60  # rows of the table of classes


def write_report(path: str | Path, data: ReportData) -> None:
    """One HTML file: nothing is fetched when it is opened, and no script runs.

    Raises InputError when a thumbnail is no image, or the file cannot be written.
    """
    page = render(data)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Names that are no valid UTF-8 reach Python with surrogates in them.
        path.write_bytes(page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise InputError(f"The report cannot be written to {path}: {error.strerror or error}.") from error


def render(data: ReportData) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("knownot", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "p": p_value,
        "number": number,
        "uri": data_uri,
        "visible": visible,
        "surprise": lambda p: surprise(p, len(data.calibration_scores)),
        "tiny": lambda thumb: "tiny" if max(pixels_of(thumb).size) <= 48 else "",
    }
    ordered = sorted(data.class_counts, key=lambda c: -c.total)
    scores = data.calibration_scores, data.incoming_scores, data.threshold
    return environment.get_template("report.html.j2").render(
        data=data,
        css=Markup(stylesheet()),
        wide=histogram(*scores, name="scores-wide"),
        narrow=histogram(*scores, width=360, height=260, name="scores-narrow"),
        tails=tails(bins_of(*scores)),
        galleries=galleries(data),
        classes=ordered[:CLASSES],
        more_classes=ordered[CLASSES:],
        largest_class=max((c.total for c in ordered), default=0) or 1,
        unreadable=data.unreadable[:UNREADABLE],
    )


def galleries(data: ReportData) -> list[tuple[str, str, str, tuple[Card, ...]]]:
    """(id, heading, what is said when there are none, cards)."""
    nobody = "No image was called unknown." if data.counts.unknown == 0 else "No images were kept for this gallery."
    return [
        ("most-unknown", "The most unknown images", nobody, data.most_unknown[:CARDS]),
        ("borderline", "Images nearest to the threshold", "There are none.", data.borderline[:CARDS]),
    ]


def surprise(p: float, calibration: int) -> float:
    """A p-value as the length of a bar, 0–100: -log p, full at the smallest that so many calibration images allow."""
    if not 0 < p <= 1:
        return 100.0 if p == 0 else 0.0
    return round(100 * min(1.0, -math.log(p) / math.log(calibration + 1)), 1) if calibration else 0.0

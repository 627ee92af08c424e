"""Data in, one self-contained HTML file out. File names and class names are hostile input: everything is escaped."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from ..errors import InputError
from .data import Card, ReportData, Thumb
from .histogram import bins_of, histogram, tails

CARDS = 24  # per gallery
UNREADABLE = 200
CLASSES = 60  # rows of the table of classes
SIDE = 112  # longer side of an embedded thumbnail
HEAVY = 8_000  # bytes: a thumbnail that comes as a larger file is made smaller


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


def percent(share: float) -> str:
    """Never "100 %" or "0 %" for what is not quite. The space does not break."""
    if not math.isfinite(share):
        return "–"
    if 0.9995 <= share < 1:
        return "> 99.9\u00a0%"
    if 0 < share < 0.0005:
        return "< 0.1\u00a0%"
    return f"{100 * share:.1f}".removesuffix(".0") + "\u00a0%"


def p_value(p: float) -> str:
    """Two significant digits."""
    return f"{p:.2g}" if p >= 1e-4 or p == 0 or math.isnan(p) else f"{p:.1e}"


def number(x: float) -> str:
    """Thousands apart; four significant digits where it is no whole number."""
    if isinstance(x, int | np.integer):
        return f"{x:,}"
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.4g}"


def surprise(p: float, calibration: int) -> float:
    """A p-value as the length of a bar, 0–100: -log p, full at the smallest that so many calibration images allow."""
    if not 0 < p <= 1:
        return 100.0 if p == 0 else 0.0
    return round(100 * min(1.0, -math.log(p) / math.log(calibration + 1)), 1) if calibration else 0.0


def visible(name: str) -> str:
    """Control characters and those that turn the direction of writing, spelled out: a name shows what it is."""
    return "".join(c if c.isprintable() or c == "\u00a0" else c.encode("unicode_escape").decode() for c in name)


# ---- thumbnails ----


def pixels_of(thumb: Thumb) -> Image.Image:
    """Raises InputError for what is neither an image file nor an array of pixels."""
    try:
        if isinstance(thumb, bytes):
            return Image.open(io.BytesIO(thumb), formats=("PNG", "JPEG"))
        if thumb.dtype != np.uint8:
            raise TypeError("not uint8")
        return Image.fromarray(thumb[..., 0] if thumb.ndim == 3 and thumb.shape[2] == 1 else thumb)
    except (OSError, TypeError, ValueError, IndexError) as error:
        what = f"{len(thumb)} bytes" if isinstance(thumb, bytes) else f"{thumb.dtype} {thumb.shape}"
        raise InputError(
            f"A thumbnail must be a PNG or JPEG file, or uint8 [h, w] or [h, w, 3]; given: {what} ({error})."
        ) from error


def data_uri(thumb: Thumb) -> str:
    """A thumbnail as the address of an `<img>`: its own file when small, else at most SIDE pixels wide and high."""
    image = pixels_of(thumb)
    if isinstance(thumb, bytes) and len(thumb) <= HEAVY:
        return _uri(thumb, image.format or "")
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE))
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    buffer = io.BytesIO()
    form = "PNG" if max(image.size) <= 48 else "JPEG"
    image.save(buffer, form, **({"optimize": True} if form == "PNG" else {"quality": 82}))
    return _uri(buffer.getvalue(), form)


def _uri(file: bytes, form: str) -> str:
    return f"data:image/{form.lower()};base64,{base64.b64encode(file).decode('ascii')}"

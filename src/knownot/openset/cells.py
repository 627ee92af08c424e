"""Text on its way into tables: names that are no UTF-8, and cells that a spreadsheet would run."""

from __future__ import annotations

from typing import Any

from ..images.names import printable

FORMULA = "=+-@＝＋－＠"  # what begins a formula in Excel, LibreOffice and Google Sheets, full-width forms included
BREAKS = "\t\r\n"


def csv_cell(value: Any, raw: bool = False) -> Any:
    """A value as it goes into a CSV file: None and NaN empty, numbers as they are, texts printable.

    A text that a spreadsheet would take for a formula gets an apostrophe before it (OWASP, "CSV Injection"), and so
    does one with apostrophes before such a text: taking the first apostrophe off gives the original back, see
    `from_csv_cell`. raw: leave texts as they are.
    """
    if value is None or value != value:
        return ""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return text if raw or not _runs(text) else f"'{text}"


def from_csv_cell(text: str) -> str:
    """The text that `csv_cell` was given."""
    return text[1:] if text.startswith("'") and _runs(text[1:]) else text


def _runs(text: str) -> bool:
    bare = text.lstrip("'")
    return bare[:1] in tuple(BREAKS) or bare.lstrip().startswith(tuple(FORMULA))

"""Text on its way into tables: names that are no UTF-8, and cells that a spreadsheet would run."""

from __future__ import annotations

import os
from typing import Any

from ..images.names import printable

FORMULA = "=+-@＝＋－＠"  # what begins a formula in Excel, LibreOffice and Google Sheets, full-width forms included
BREAKS = "\t\r\n"
BYTES = "surrogateescape"  # bytes of a name that are no UTF-8 go into text files as they are


def csv_cell(value: Any, raw: bool = False, *, path: bool = False) -> Any:
    """A value as it goes into a CSV file (encoding UTF-8, errors `BYTES`): None and NaN empty, numbers as they are.

    A text that a spreadsheet would take for a formula (OWASP, "CSV Injection") gets "./" before it if it is a path,
    which leads to the same file, and an apostrophe otherwise, also where it has apostrophes already: taking off what
    was put before it gives the original back, see `from_csv_cell`. raw: leave texts as they are.
    """
    if value is None or value != value:
        return ""
    if not isinstance(value, str):
        return value
    text = lossless(value)
    if raw or not _runs(_strip_dots(text)):
        return text
    dotted = text.startswith("./") or (path and not text.startswith("'"))
    return f"./{text}" if dotted else f"'{text}"


def from_csv_cell(text: str) -> str:
    """The text that `csv_cell` was given."""
    if text.startswith("./") and _runs(_strip_dots(text)):
        return text[2:]
    return text[1:] if text.startswith("'") and _runs(text[1:]) else text


def lossless(text: str) -> str:
    """The text, if it can be written with the bytes that a file's name has; `printable` of it otherwise."""
    try:
        text.encode("utf-8", BYTES)
    except UnicodeEncodeError:  # surrogates that stand for no byte
        return printable(text)
    return text


def utf8(text: str) -> bool:
    """Whether a text has a form in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_bytes(text: str) -> bytes:
    """A name as the bytes that the file system knows it by."""
    return os.fsencode(lossless(text))


def _strip_dots(text: str) -> str:
    while text.startswith("./"):
        text = text[2:]
    return text


def _runs(text: str) -> bool:
    bare = text.lstrip("'")
    return bare[:1] in tuple(BREAKS) or bare.lstrip().startswith(tuple(FORMULA))

"""Names of files as people can read them, and what tells whether a file is still the same."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any


def printable(text: str) -> str:
    """The text, with bytes of a name that are no UTF-8 (surrogates in Python) as `\\xff`: any encoding takes it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            raw = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # surrogates that stand for no byte
            raw = text.encode("utf-8", "backslashreplace")
        return raw.decode("utf-8", "backslashreplace")
    return text


def file_state(path: str | Path) -> str:
    """Size and times of a file: another text once it was written to, replaced, or copied here; "absent" without one.

    The time of the last change of the inode is among them (POSIX), so that a file of the same size put in the place of
    another, with its old modification time, is noticed too.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        return f"absent {getattr(error, 'errno', None)}"
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def footer_state(metadata: Any, image: str, struct: bool) -> str | None:
    """Rows, sizes and places of the row groups of a parquet file, of its image column; None unless every row is known
    to hold the image's bytes itself (not the path of a file beside it)."""
    leaf, parts = f"{image}.bytes" if struct else image, []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunk = next((c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == leaf), None)
        seen = None if chunk is None else chunk.statistics
        if struct and (seen is None or not seen.has_null_count or seen.null_count):
            return None
        parts.append(f"{group.num_rows} {group.total_byte_size}")
        parts += [] if chunk is None else [f"{chunk.data_page_offset} {chunk.total_compressed_size}"]
    return " ".join(parts)


def stamp_of(*parts: str | bytes) -> bytes:
    """16 bytes that are the same for the same parts only (BLAKE2b)."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()

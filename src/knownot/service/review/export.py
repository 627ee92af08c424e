"""Marked images as they are trained with: a zip of class folders, or a Parquet file.

known/CLASS/…    "is class k": for `knownot fit` (a new calibration set) and `knownot recalibrate`
new/NAME/…       "new class": beside `known`, for a new classifier with new classes
none/…           "none of the above": for `knownot retrain none-class --outliers`
marks.csv        which image has which mark, by whom and when
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from ...errors import missing_extra
from ...images.file_types import sniff
from ...openset.cells import csv_cell

ENDINGS = {"PNG": "png", "JPEG": "jpg", "WebP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tif", "AVIF": "avif"}
HOMES = {"class": "known/{}/", "new": "new/{}/", "none": "none/"}
COLUMNS = ("file", "id", "kind", "name", "who", "marked", "arrived", "status", "closed_class", "p_value")


class _Sink(io.RawIOBase):
    """What a zip file is written into, taken away piece by piece."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        parts, self.parts = self.parts, []
        return b"".join(parts)


def as_zip(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """The archive in pieces; "not usable" images are in marks.csv only."""
    sink, table = _Sink(), io.StringIO()
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for row in rows:
            name = file_of(row)
            if name:
                archive.writestr(name, row["data"])
            said = {**row, "file": name, **{at: _when(row[at]) for at in ("marked", "arrived")}}
            writer.writerow([csv_cell(said[column], False) for column in COLUMNS])
            yield sink.taken()
        archive.writestr("marks.csv", table.getvalue())
    yield sink.taken()


def as_parquet(rows: Iterable[dict[str, Any]]) -> bytes:
    """Columns image (the file), label (the class or the new name, "" for none of the above), kind, who, marked."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "parquet", "Parquet of marked images") from error
    kept = [row for row in rows if row["kind"] in HOMES]
    table = pa.table(
        {
            "image": pa.array([row["data"] for row in kept], pa.binary()),
            "label": pa.array([row["name"] or "" for row in kept], pa.string()),
            **{name: pa.array([row[name] for row in kept], pa.string()) for name in ("kind", "who")},
            "marked": pa.array([_when(row["marked"]) for row in kept], pa.string()),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def file_of(row: dict[str, Any]) -> str:
    """Its place in the archive; "" for an image that is not usable."""
    if row["kind"] not in HOMES:
        return ""
    ending = ENDINGS.get(sniff(row["data"][:512]) or "", "img")
    return f"{HOMES[row['kind']].format(folder_name(row['name'] or ''))}{row['id']:08d}.{ending}"


def folder_name(name: str) -> str:
    """A class name as the name of a folder that every system takes."""
    plain = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", name).strip(" .")
    return plain or "_"


def _when(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

"""Rows as CSV, JSON lines or Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import OptionError, as_storage_errors, missing_extra
from ..openset.cells import BYTES, as_bytes, csv_cell, utf8
from ..openset.verdicts import COLUMNS, SHIFT_COLUMNS, printed

FORMATS = (".csv", ".jsonl", ".parquet")


def check_format(output: Path) -> None:
    """Raise unless the output's name tells a format, and it can be written here."""
    if output.suffix.lower() not in FORMATS:
        raise OptionError(f"--output {output.name!r}: expected a name ending with one of {', '.join(FORMATS)}.")
    if output.suffix.lower() == ".parquet":
        _pyarrow()


def write_table(
    path: Path,
    rows: Iterator[dict[str, Any]],
    members: tuple[str, ...],
    *,
    raw: bool = False,
    explain: bool = False,
    adapted: bool = False,
) -> None:
    """rows: the columns of `COLUMNS` and "members", p-values in the order of `members`, which a CSV file has if explain
    only. raw: see `csv_cell`. adapted: also the columns of `SHIFT_COLUMNS`."""
    names = (*COLUMNS, *(SHIFT_COLUMNS if adapted else ()))
    if path.suffix == ".csv":
        _csv(path, rows, names, raw, members if explain else ())
    elif path.suffix == ".jsonl":
        _jsonl(path, rows, members)
    else:
        _parquet(path, rows, names, members)


def write_metadata(output: Path, shift: Any) -> None:
    """Beside a CSV file, `<output>-metadata.json` (W3C, CSV on the Web) with what its images look like; removed where
    they look as the calibration images did."""
    path = output.with_name(f"{output.name}-metadata.json")
    if output.suffix.lower() != ".csv":
        return
    with as_storage_errors(path):
        if shift is None:
            path.unlink(missing_ok=True)
            return
        notes = [{"shift": asdict(shift), "sentence": shift.sentence}]
        about = {"@context": "http://www.w3.org/ns/csvw", "url": output.name, "notes": notes}
        path.write_text(json.dumps(about, indent=1), encoding="utf-8")


def _csv(
    path: Path, rows: Iterator[dict[str, Any]], names: tuple[str, ...], raw: bool, members: tuple[str, ...]
) -> None:
    import csv

    with path.open("w", newline="", encoding="utf-8", errors=BYTES) as file:
        writer = csv.writer(file)
        writer.writerow([*names, *(csv_cell(f"p_value: {name}", raw) for name in members)])
        for row in rows:
            cells = [csv_cell(row[name], raw, path=name == "id") for name in names]
            writer.writerow([*cells, *(csv_cell(p, raw) for p in row["members"][: len(members)])])


def _jsonl(path: Path, rows: Iterator[dict[str, Any]], members: tuple[str, ...]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            own = dict(zip(members, row.pop("members"), strict=True))
            file.write(json.dumps(printed(row) | {"member_p_values": own}) + "\n")


def _parquet(path: Path, rows: Iterator[dict[str, Any]], names: tuple[str, ...], members: tuple[str, ...]) -> None:
    pa, pq = _pyarrow()
    kinds = {"label": pa.int64(), "closed_label": pa.int64(), "p_value": pa.float64(), "score": pa.float32(),
             "confidence": pa.float32(), "shift_p_value": pa.float64()}  # fmt: skip
    schema = pa.schema(
        [(name, kinds.get(name, pa.string())) for name in names]
        + [(f"p_value: {name}", pa.float64()) for name in members]
    )
    rows = (printed(row) for row in rows)
    writer = pq.ParquetWriter(path, schema)
    try:
        while some := list(islice(rows, 50_000)):
            if schema.field("id").type == pa.string() and not all(utf8(row["id"]) for row in some):
                writer.close()
                schema = schema.set(0, pa.field("id", pa.binary()))
                writer = _again(path, schema)
            columns = {name: [row[name] for row in some] for name in names}
            if schema.field("id").type == pa.binary():
                columns["id"] = [as_bytes(name) for name in columns["id"]]
            columns |= {f"p_value: {name}": [row["members"][i] for row in some] for i, name in enumerate(members)}
            writer.write_table(pa.table(columns, schema=schema))
    finally:
        writer.close()


def _again(path: Path, schema: Any) -> Any:
    """A writer of `schema` that has written the rows of the Parquet file there; for names that are no UTF-8, which no
    column of texts holds."""
    _, pq = _pyarrow()
    before = path.rename(path.with_name(f"{path.name}.texts"))
    writer = pq.ParquetWriter(path, schema)
    with pq.ParquetFile(before) as file:
        for number in range(file.num_row_groups):
            writer.write_table(file.read_row_group(number).cast(schema))
    before.unlink()
    return writer


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "parquet", "Writing Parquet") from error
    return pa, pq

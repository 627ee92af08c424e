"""Rows on disk as they come, so that a killed `predict` goes on where it was.

`<output>.partial/` holds `state.json` (what is being done), `rows.jsonl` (finished rows, whole lines count) and
`gallery.safetensors`. When all rows are there, the output is written at once and the folder goes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OptionError, missing_extra
from ..openset.gallery import Gallery
from ..openset.verdicts import COLUMNS, Verdicts, row_of

FORMATS = (".csv", ".jsonl", ".parquet")


class Journal:
    """The rows of one run of `predict`."""

    def __init__(self, output: Path, task: dict[str, Any], restart: bool = False) -> None:
        """Raises OptionError when a journal of another task is in the way."""
        if output.suffix.lower() not in FORMATS:
            raise OptionError(f"--output {output.name!r}: expected a name ending with one of {', '.join(FORMATS)}.")
        if output.suffix.lower() == ".parquet":
            _pyarrow()
        self.output = output
        self.folder = output.with_name(output.name + ".partial")
        self._rows = self.folder / "rows.jsonl"
        if restart:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        state = self.folder / "state.json"
        if state.exists():
            before = json.loads(state.read_text("utf-8"))
            if before != task:
                other = next(k for k in {**task, **before} if before.get(k) != task.get(k))
                raise OptionError(
                    f"{self.folder} holds an unfinished run with another {other} ({before.get(other)!r}, now "
                    f"{task.get(other)!r}). Finish that one, or start anew with --restart."
                )
        else:
            _write(state, json.dumps(task).encode())
        self.done = self._cut(float("inf"))

    def add(self, verdicts: Verdicts) -> None:
        """Append rows and make sure that they are on the disk."""
        lines = []
        for verdict, p in zip(verdicts, verdicts.member_p_values.tolist(), strict=True):
            row = row_of(verdict) | {"members": [None if x != x else x for x in p]}
            lines.append(json.dumps(row))
        with self._rows.open("ab") as file:
            file.write(("\n".join(lines) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        self.done += len(lines)

    def rows(self) -> Iterator[dict[str, Any]]:
        with self._rows.open("rb") as file:
            for line in file:
                yield json.loads(line)

    def keep_gallery(self, gallery: Gallery) -> None:
        """The gallery of the rows so far, written at once. Cheap: at most 48 thumbnails."""
        from safetensors.numpy import save

        arrays: dict[str, np.ndarray] = {}
        plain: dict[str, Any] = {"done": self.done}
        for f in fields(gallery):
            x = getattr(gallery, f.name)
            if isinstance(x, Verdicts):
                plain[f.name] = {"ids": list(x.ids)}
                for column in ("label", "p_value", "score", "closed_label", "confidence", "member_p_values"):
                    arrays[f"{f.name}.{column}"] = np.ascontiguousarray(getattr(x, column))
            elif x is not None:
                arrays[f.name] = np.ascontiguousarray(x)
        _write(self.folder / "gallery.safetensors", save(arrays, {"plain": json.dumps(plain)}))

    def gallery(self, like: Verdicts) -> Gallery | None:
        """The gallery kept; rows that came after it was are cut off, to be done again (a few seconds' worth)."""
        from safetensors import safe_open

        path = self.folder / "gallery.safetensors"
        if not path.exists():
            self._cut(0)
            return None
        with safe_open(path, framework="np") as file:
            plain = json.loads(file.metadata()["plain"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        self._cut(plain.pop("done"))
        made: dict[str, Any] = {k: v for k, v in arrays.items() if "." not in k}
        for name, head in plain.items():
            columns = {k.partition(".")[2]: v for k, v in arrays.items() if k.startswith(name + ".")}
            ids = tuple(head["ids"])
            made[name] = Verdicts(
                ids=ids, error=(None,) * len(ids), **columns, members=like.members, class_names=like.class_names
            )
        return Gallery(**made)

    def finish(self, members: tuple[str, ...]) -> None:
        """Write the output from the rows, at once, and remove the journal."""
        draft = self.folder / ("output" + self.output.suffix)
        {".csv": self._csv, ".jsonl": self._jsonl, ".parquet": self._parquet}[self.output.suffix.lower()](
            draft, members
        )
        os.replace(draft, self.output)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _csv(self, path: Path, members: tuple[str, ...]) -> None:
        import csv

        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for row in self.rows():
                writer.writerow(["" if row[name] is None else row[name] for name in COLUMNS])

    def _jsonl(self, path: Path, members: tuple[str, ...]) -> None:
        with path.open("w", encoding="utf-8") as file:
            for row in self.rows():
                own = dict(zip(members, row.pop("members"), strict=True))
                file.write(json.dumps(row | {"member_p_values": own}) + "\n")

    def _parquet(self, path: Path, members: tuple[str, ...]) -> None:
        pa, pq = _pyarrow()
        kinds = {"label": pa.int64(), "closed_label": pa.int64(), "p_value": pa.float64(), "score": pa.float32(),
                 "confidence": pa.float32()}  # fmt: skip
        schema = pa.schema(
            [(name, kinds.get(name, pa.string())) for name in COLUMNS]
            + [(f"p_value: {name}", pa.float64()) for name in members]
        )
        rows = self.rows()
        with pq.ParquetWriter(path, schema) as writer:
            while some := list(islice(rows, 50_000)):
                columns = {name: [row[name] for row in some] for name in COLUMNS}
                columns |= {f"p_value: {name}": [row["members"][i] for row in some] for i, name in enumerate(members)}
                writer.write_table(pa.table(columns, schema=schema))

    def _cut(self, rows: float) -> int:
        """Keep the first `rows` rows, and no line that a kill left half written; how many there are."""
        if not self._rows.exists():
            self._rows.touch()
        count = end = 0
        with self._rows.open("rb+") as file:
            for line in file:
                if count >= rows or not line.endswith(b"\n"):
                    break
                count, end = count + 1, end + len(line)
            file.truncate(end)
        self.done = count
        return count


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(path.name + ".new")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "parquet", "Writing Parquet") from error
    return pa, pq

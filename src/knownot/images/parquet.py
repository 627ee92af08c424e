"""Parquet and Arrow files that hold the bytes of image files, in the layout of Hugging Face data sets.

The image column is a struct<bytes, path> or plain binary; the label column holds integers or names.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import InputSpec
from ..errors import ImagesError
from .base import Images
from .batching import Entries, Entry, choice, common_size
from .files import same_files
from .labels import Names, names_of, renumbered, resolve, to_integers
from .names import file_state, stamp_of
from .prefetch import fetch
from .remote import is_url, patiently
from .tables import Table, line_of, open_table

IMAGE_COLUMNS = ("image", "images", "img", "picture", "photo", "jpg", "png", "bytes", "content")
ENDINGS = (".parquet", ".arrow")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "y", "cls")
SAVED, SPLITS = "state.json", "dataset_dict.json"  # of `save_to_disk`, of one split and of several
SPLIT = re.compile(r"(train|test|val|valid|validation)(?=[-_.]|$)")


@dataclass(frozen=True)
class Columns:
    """Where image and label are, and the names of the file's own label numbers."""

    image: str
    struct: bool
    label: str | None
    names: Names


class ParquetImages(Entries):
    """Rows of such files, streamed. Ids are the `path` stored with the bytes, else "<file>#<row>"."""

    def __init__(
        self,
        files: Sequence[str],
        counts: Sequence[int],
        columns: Columns,
        labels: np.ndarray | None,
        names: Names,
        renumber: np.ndarray | None,
        chosen: np.ndarray | None = None,
    ) -> None:
        self._files, self._counts, self._columns = files, counts, columns
        self._labels, self.class_names, self._renumber, self._chosen = labels, names, renumber, chosen
        self.labelled = labels is not None or columns.label is not None
        self._size: tuple[int, int] | str | None = "not looked at"

    def places(self) -> Iterator[str]:
        names = [os.path.realpath(file) for file in self._files]
        start = 0
        for name, count in zip(names, self._counts, strict=True):
            rows = range(start, start + count)
            mine = (
                rows if self._chosen is None else self._chosen[(self._chosen >= start) & (self._chosen < start + count)]
            )
            yield from (f"{name}#{int(i) - start}" for i in mine)
            start += count

    def equals(self, other: Images) -> bool:
        return isinstance(other, ParquetImages) and same_files(self._files, other._files)

    @property
    def count(self) -> int:
        return sum(self._counts) if self._chosen is None else len(self._chosen)

    @property
    def size(self) -> tuple[int, int] | None:
        if isinstance(self._size, str):
            with closing(self._rows(0)) as rows:
                self._size = common_size(e.image for e in islice(rows, 32) if e.image is not None)
        return self._size

    @property
    def ready(self) -> bool:
        return False

    def entries(self, start: int, spec: InputSpec | None) -> Iterator[Entry]:
        return self._rows(start)

    def stamps(self) -> Iterator[bytes] | None:
        """By file, its footer (sizes and places of row groups) and row; None if images may lie in files beside it."""
        states: dict[str, str] = {}
        for file in self._files:
            with open_table(file) as one:
                state = one.state(self._columns.image, self._columns.struct)
            if state is None:
                return None
            states[os.path.realpath(file)] = f"{os.path.basename(file)} {file_state(file)} {state}"
        return (stamp_of(place, states[place.rpartition("#")[0]]) for place in self.places())

    def sample(self, n: int, seed: int = 0) -> ParquetImages:
        return self.only(choice(self.count, n, seed))

    def only(self, rows: np.ndarray) -> ParquetImages:
        chosen = rows if self._chosen is None else self._chosen[rows]
        return ParquetImages(
            files=self._files,
            counts=self._counts,
            columns=self._columns,
            labels=self._labels,
            names=self.class_names,
            renumber=self._renumber,
            chosen=chosen,
        )

    def _rows(self, start: int) -> Generator[Entry, None, None]:
        wanted = self._chosen[start:] if self._chosen is not None else None
        if wanted is not None and not len(wanted):
            return
        with closing(fetch(self._record_batches(start, wanted))) as batches:
            for file, first, at, batch in batches:
                n = batch.num_rows
                if wanted is None:
                    rows = np.arange(max(start - at, 0), n)
                else:
                    rows = wanted[np.searchsorted(wanted, at) : np.searchsorted(wanted, at + n)] - at
                if len(rows):
                    yield from self._entries_of(file, first, at, batch, rows.tolist())

    def _entries_of(self, file: str, first: int, at: int, batch: Any, rows: list[int]) -> Iterator[Entry]:
        """first: number of the file's first row in the whole; at: of the batch's."""
        images = batch.column(0)
        labels = self._labels[at : at + batch.num_rows] if self._labels is not None else self._own(batch)
        for i in rows:
            value = images[i].as_py()
            path = value.get("path") if isinstance(value, dict) else None
            data = value.get("bytes") if isinstance(value, dict) else value
            name = path or f"{os.path.basename(file.partition('?')[0] if is_url(file) else file)}#{at + i - first}"
            if data is None and path:  # stored beside the parquet file
                data = os.path.join(os.path.dirname(file), path)
            yield Entry(name, int(labels[i]), data, "no image in this row" if data is None else None)

    def _own(self, batch: Any) -> np.ndarray:  # [rows of the batch] int64
        if batch.num_columns < 2:
            return np.full(batch.num_rows, -1)
        labels, _ = to_integers(batch.column(1).to_pylist(), self.class_names if self._renumber is None else None)
        return labels if self._renumber is None else np.where(labels < 0, -1, self._renumber[labels])

    def _record_batches(self, start: int, wanted: np.ndarray | None) -> Iterator[tuple[str, int, int, Any]]:
        """(file, its first row, the batch's first row, batch); row groups without a wanted row are not read."""
        columns = [self._columns.image] + ([self._columns.label] if self._columns.label else [])
        first = 0
        for file, count in zip(self._files, self._counts, strict=True):
            with open_table(file) as opened:
                at = first
                for group, size in enumerate(opened.sizes):
                    end = at + size
                    if wanted is None:
                        needed = end > start
                    else:
                        needed = bool(np.searchsorted(wanted, end) > np.searchsorted(wanted, at))
                    if needed:
                        yield from _read(opened, file, first, at, group, columns)
                    at = end
            first += count


def _read(opened: Table, file: str, first: int, at: int, group: int, columns: list[str]) -> Iterator[Any]:
    import pyarrow as pa

    try:
        batches = opened.read(group, columns)
        if is_url(file):  # all rows of the group at once, so that they can be asked for again
            batches = iter(patiently(lambda: list(opened.read(group, columns)), file))
        for batch in batches:
            yield file, first, at, batch
            at += batch.num_rows
    except (pa.ArrowException, OSError) as e:
        raise ImagesError(f"{file!r} is damaged near row {at - first}: {line_of(e)}") from e


def opened(source: Any, labels: Any, class_names: Sequence[str] | None) -> ParquetImages | None:
    """Reads a parquet or Arrow file, a list or glob of them, or a folder that holds them (of Arrow files, one that
    `save_to_disk` of the library `datasets` wrote), parquet files also behind URLs; None for anything else."""
    files = _found(source)
    if not files:
        return None
    schema, counts = None, []
    for file in files:
        with open_table(file) as one:
            counts.append(sum(one.sizes))
            schema = schema or one.schema
            if one.schema.names != schema.names:
                raise ImagesError(f"{file!r} has the columns {one.schema.names}, {files[0]!r} {schema.names}.")
    if not sum(counts):
        raise ImagesError(f"{files[0]!r} holds no rows.")
    columns = _columns(schema, files[0])
    wanted = names_of(class_names)
    if labels is not None:
        numbers, names = resolve(labels, sum(counts), wanted)
        return ParquetImages(files=files, counts=counts, columns=columns, labels=numbers, names=names, renumber=None)
    own = columns.names or (_distinct(files, columns.label) if wanted is None and columns.label else None)
    renumber = renumbered(own, wanted) if own and wanted else np.arange(len(own)) if columns.names and own else None
    if renumber is not None and not _is_integer(schema, columns.label):
        renumber = None  # names are looked up in class_names directly
    return ParquetImages(
        files=files, counts=counts, columns=columns, labels=None, names=wanted or own, renumber=renumber
    )


def _found(source: Any) -> list[str]:
    if isinstance(source, list | tuple):
        paths = [os.fspath(s) if isinstance(s, str | os.PathLike) else "" for s in source]
        return paths if paths and all(_is_table(p) for p in paths) else []
    if not isinstance(source, str | os.PathLike):
        return []
    path = os.fspath(source)
    if os.path.isdir(path) and os.access(path, os.R_OK):
        if (own := _saved(path)) is not None:
            return own
        inside = [*Path(path).glob("*.parquet"), *Path(path, "data").glob("*.parquet")]
        files = sorted(str(p) for p in inside if not p.name.startswith("."))
        if any(p.is_dir() and p.name != "data" and not p.name.startswith(".") for p in Path(path).iterdir()):
            return []  # a folder of classes that has a table beside them
        splits = {m[1] for f in files if (m := SPLIT.match(os.path.basename(f)))}
        if len(splits) > 1:
            raise ImagesError(
                f"The folder {path!r} has parquet files of several parts: {', '.join(sorted(splits))}. Give those "
                f"of one, such as {os.path.join(os.path.dirname(files[0]), min(splits) + '*.parquet')!r}."
            )
        return files
    if _is_table(path):
        return [path] if is_url(path) or os.path.exists(path) else sorted(glob.glob(path, recursive=True))
    return []


def _is_table(path: str) -> bool:
    return (path.partition("?")[0] if is_url(path) else path).endswith(ENDINGS)


def _saved(path: str) -> list[str] | None:
    """The files of a folder that `save_to_disk` wrote, in the order of their rows; None for any other folder. Raises
    ImagesError for one of several splits."""
    several = Path(path, SPLITS).exists()
    if not several and not Path(path, SAVED).exists():
        return None
    try:
        facts = json.loads(Path(path, SPLITS if several else SAVED).read_text())
        splits = facts["splits"] if several else ()
        names = [] if several else [one["filename"] for one in facts["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if splits:
        raise ImagesError(
            f"The folder {path!r} holds a data set of several splits: {', '.join(map(str, splits))}. Give that of one, "
            f"such as {os.path.join(path, str(splits[0]))!r}."
        )
    files = [os.path.join(path, os.path.basename(str(name))) for name in names]
    if missing := [file for file in files if not os.path.exists(file)]:
        raise ImagesError(f"The data set {path!r} is not whole: {missing[0]!r} is missing.")
    return files


def _columns(schema: Any, file: str) -> Columns:
    import pyarrow.types as t

    def binary(kind: Any) -> bool:
        return bool(t.is_binary(kind) or t.is_large_binary(kind))

    def bytes_in(kind: Any) -> bool:
        return bool(t.is_struct(kind) and any(f.name == "bytes" and binary(f.type) for f in kind))

    found = [f.name for f in schema if binary(f.type) or bytes_in(f.type)]
    image = next((name for name in IMAGE_COLUMNS if name in found), found[0] if len(found) == 1 else None)
    if image is None:
        kinds = ", ".join(f"{f.name}: {f.type}" for f in schema)[:300]
        raise ImagesError(
            f"{file!r} has no column of image bytes (a struct<bytes, path> or binary column named 'image'). Its "
            f"columns are {kinds}."
        )
    fits = [f.name for f in schema if t.is_integer(f.type) or t.is_string(f.type) or t.is_large_string(f.type)]
    label = next((name for name in LABEL_COLUMNS if name in fits), None)
    return Columns(image, t.is_struct(schema.field(image).type), label, _names_in(schema, label))


def _names_in(schema: Any, label: str | None) -> Names:
    """Class names from the schema's metadata: Hugging Face's, or a JSON list under "class_names" or the like."""
    if label is None:
        return None
    metadata = {**(schema.metadata or {}), **(schema.field(label).metadata or {})}
    try:
        info = json.loads(metadata.get(b"huggingface", b"{}"))
        names = info["info"]["features"][label]["names"]
        return names_of(list(names.values()) if isinstance(names, dict) else names)
    except (ValueError, KeyError, TypeError):
        pass
    for key in (b"class_names", b"classes", b"label_names", b"names"):
        try:
            names = json.loads(metadata[key])
        except (ValueError, KeyError):
            continue
        if isinstance(names, list):
            return names_of(names)
    return None


def _is_integer(schema: Any, label: str | None) -> bool:
    import pyarrow.types as t

    return label is not None and bool(t.is_integer(schema.field(label).type))


def _distinct(files: Sequence[str], label: str) -> Names:
    """The sorted names in a label column of strings (only that column is read), None for integers."""
    names: set[str] = set()
    for file in files:
        with open_table(file) as one:
            if _is_integer(one.schema, label):
                return None
            for batch in (b for group in range(len(one.sizes)) for b in one.read(group, [label], 4096)):
                names.update(x for x in batch.column(0).unique().to_pylist() if x)
    return tuple(sorted(names))

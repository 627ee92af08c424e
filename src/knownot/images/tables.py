"""Files with one image in each row, as Hugging Face writes them: Parquet, and Arrow (`save_to_disk`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from ..errors import ImagesError, missing_extra
from .names import footer_state
from .remote import is_url, open_url, patiently

AT_ONCE = 64  # rows read at a time; with the file's page size (its writer's choice) they bound the memory
ARROW_FILE = b"ARROW1"  # how Arrow's file format begins; its stream format has no such mark


class Parquet:
    """A Parquet file. sizes: rows of each of its row groups."""

    def __init__(self, path: str) -> None:
        import pyarrow.parquet as pq

        # on a disk without pre-buffering and with a small buffer: pages are read as they are needed
        self._there = is_url(path)
        source = patiently(lambda: open_url(path), path) if self._there else path
        self._file = pq.ParquetFile(source, pre_buffer=self._there, buffer_size=1 << 20)
        self.schema = self._file.schema_arrow
        metadata = self._file.metadata
        self.sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close(force=True)

    def read(self, group: int, columns: list[str], rows: int = AT_ONCE) -> Iterator[Any]:
        """Its rows, as record batches of these columns, of at most so many rows."""
        for batch in self._file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False):
            yield batch.select(columns)

    def state(self, image: str, struct: bool) -> str | None:
        """What tells its content from another's; None unless each row is known to hold the image's bytes itself."""
        return None if self._there else footer_state(self._file.metadata, image, struct)


class Arrow:
    """A file of Arrow record batches, in its stream or its file format, mapped into memory: rows are read from the disk
    when they are looked at. sizes: rows of each record batch."""

    def __init__(self, path: str) -> None:
        import pyarrow as pa

        self._map = pa.memory_map(path)
        if self._map.read(len(ARROW_FILE)) == ARROW_FILE:
            file = pa.ipc.open_file(self._map)
            self.schema, self._get = file.schema, file.get_batch
            self.sizes = [file.get_batch(i).num_rows for i in range(file.num_record_batches)]
        else:
            self._map.seek(0)
            stream = pa.ipc.open_stream(self._map)
            batches = list(stream)  # places in the map, not copies
            self.schema, self._get = stream.schema, batches.__getitem__
            self.sizes = [batch.num_rows for batch in batches]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._map.close()

    def read(self, group: int, columns: list[str], rows: int = AT_ONCE) -> Iterator[Any]:
        batch = self._get(group).select(columns)
        for at in range(0, batch.num_rows, rows):
            yield batch.slice(at, rows)

    def state(self, image: str, struct: bool) -> str | None:
        for group in range(len(self.sizes)):
            column = self._get(group).column(image)
            if struct and (column.null_count or column.field("bytes").null_count):
                return None
        return " ".join(map(str, self.sizes))


Table = Parquet | Arrow


def open_table(path: str) -> Table:
    """Raises ImagesError for a file that is none, MissingExtraError without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError:
        raise missing_extra("pyarrow", "parquet", "Reading Parquet and Arrow files") from None
    try:
        return Arrow(path) if path.endswith(".arrow") else Parquet(path)
    except (pa.ArrowException, OSError) as e:
        kind = "an Arrow" if path.endswith(".arrow") else "a parquet"
        raise ImagesError(f"{path!r} cannot be read as {kind} file: {line_of(e)}") from e


def line_of(e: Exception) -> str:
    return (str(e).splitlines() or [type(e).__name__])[0][:200]

"""Rows on disk as they come, so that a `predict` that was stopped goes on where it was.

`<output>.partial/` holds `rows.sqlite`, `lock` (held by the run that writes) and, at the very end, the draft of the
output. A row is kept under the open-set classifier (its digest) and the image (its place and its file's state), so that
a row of another classifier or of another state of a file is never taken; what is not there is computed. The output is
written at once, with a row for each image of the source, or not at all.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..errors import OptionError, StorageError, as_storage_errors, storage_error
from ..images import Images
from ..openset.verdicts import Verdicts, plain, row_of
from .locking import Lock
from .tables import FORMATS, check_format, write_table

KEY = 16  # bytes
TABLES = """
CREATE TABLE IF NOT EXISTS runs (run INTEGER PRIMARY KEY, digest TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS rows (run INTEGER NOT NULL, key BLOB NOT NULL, bad INTEGER NOT NULL, sum INTEGER NOT NULL,
                                 row TEXT NOT NULL, PRIMARY KEY (run, key)) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
VERSION = 1
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH)


@dataclass(frozen=True)
class Plan:
    """What is there already, and what is to be done. Numbers of images, ascending."""

    new: np.ndarray | None  # [m]; None: all of a source that cannot be indexed
    again: np.ndarray  # [k] rows whose image could not be read then: it is tried again
    used: int = 0  # rows of an earlier run
    left: int = 0  # rows of an earlier run, of images that are not the same or not there any more
    others: int = 0  # rows of other classifiers
    notes: tuple[str, ...] = ()


class Journal:
    """The rows of one run of `predict`. Holds the lock of the output until it is closed.

    digest: of the open-set classifier. Raises OptionError for a name that no format has, StorageError when another run
    holds the output.
    """

    def __init__(self, output: Path, digest: str, restart: bool = False) -> None:
        check_format(output)
        self.output = Path(os.path.realpath(output))
        if self.output.is_dir():
            raise OptionError(f"--output {str(output)!r} is a folder; give a file in it.")
        self.folder = self.output.with_name(self.output.name + ".partial")
        self.file, self._draft = self.folder / "rows.sqlite", self.folder / f"output{output.suffix.lower()}"
        self.notes: list[str] = []
        self._digest = digest
        self._rows: Any = None  # the connection
        self.keys = bytearray()  # of the source's images, in order, KEY bytes each
        self._lock = Lock(self.folder / "lock", str(output))
        try:
            if restart:
                self._clear()
            self._rows, self._run = self._opened(digest)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def plan(self, source: Images) -> Plan:
        """Which images of `source` have a row, and which are to be looked at."""
        stamps = None if source.once or source.only(np.empty(0, np.int64)) is None else source.stamps()
        if stamps is None:
            with self._telling():
                self._run = self._numbered(f"in order: {self._digest}")
        rows, others = self._count("run = ?", self._run), self._count("run != ?", self._run)
        if stamps is None:
            with self._telling():
                self._rows.execute("DELETE FROM rows WHERE run = ?", (self._run,))
            notes = ("This source cannot tell which of its images are the same: all are looked at again.",)
            return Plan(None, np.empty(0, np.int64), others=others, notes=notes if rows else ())
        new, again, seen = [], [], set()
        for number, key in enumerate(stamps):
            self.keys += key
            bad = self._known(key) if rows else None
            if bad is None:
                new.append(number)
            else:
                seen.add(key)
                again += [number] if bad else []
        used = len(self) - len(new) - len(again)
        todo = np.array(new, dtype=np.int64), np.array(again, dtype=np.int64)
        return Plan(*todo, used=used, left=rows - len(seen), others=others)

    def __len__(self) -> int:
        """How many images the source has, as far as is known."""
        return len(self.keys) // KEY

    def add(self, verdicts: Verdicts, numbers: np.ndarray | None) -> None:
        """Rows of these images, on the disk when this returns. numbers [n]: of the images; None: those that follow."""
        if numbers is None:
            numbers = np.arange(len(self), len(self) + len(verdicts))
            self.keys += b"".join(int(i).to_bytes(KEY, "big") for i in numbers)
        rows = []
        told = [-1] * len(verdicts) if verdicts.told is None else verdicts.told.tolist()
        ps, shifted = verdicts.member_p_values.tolist(), verdicts.shift_columns()
        for i, (number, verdict, p) in enumerate(zip(numbers.tolist(), verdicts, ps, strict=True)):
            row = row_of(verdict) | plain({name: column[i] for name, column in shifted.items()})
            text = json.dumps(row | {"members": [None if x != x else x for x in p], "told": told[i]})
            key = self._key(number)
            bad = verdict.error is not None
            rows.append((self._run, key, bad, _sum(key, bad, text), text))
        with self._telling():
            self._rows.execute("BEGIN IMMEDIATE")
            self._rows.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?)", rows)
            self._rows.execute("COMMIT")

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each image of the source, in its order. Raises StorageError where one is missing."""
        for number in range(len(self)):
            found = self._row(self._key(number))
            if found is None:
                raise StorageError(
                    f"The row of image {number} is missing or damaged in {self.file}. Nothing was written; give the "
                    "same command again, and it is computed anew."
                )
            yield found

    def write(
        self,
        rows: Iterable[dict[str, Any]],
        members: tuple[str, ...],
        raw: bool = False,
        explain: bool = False,
        adapted: bool = False,
    ) -> None:
        """Write `rows` into the draft of the output, beside the journal."""
        with as_storage_errors(self._draft):
            write_table(self._draft, iter(rows), members, raw=raw, explain=explain, adapted=adapted)
            with self._draft.open("rb+") as file:
                os.fsync(file.fileno())

    def publish(self) -> None:
        """Put the draft in the place of the output, at once."""
        with as_storage_errors(self.output):
            os.replace(self._draft, self.output)

    def close(self, remove: bool = False) -> None:
        """Let go of the lock. remove: the rows too, of which the output has been written."""
        if self._rows is not None:
            with suppress(sqlite3.Error):
                self._rows.close()
        if remove:
            self._clear()
        self._lock.release()
        if remove or not self.file.exists():
            with suppress(OSError):  # something else is in it, or a run that has just begun
                self.folder.rmdir()

    # The file

    def _clear(self) -> None:
        for name in (self.file.name, *(self.file.name + x for x in ("-wal", "-shm", "-journal"))):
            (self.folder / name).unlink(missing_ok=True)
        for ending in FORMATS:
            (self.folder / f"output{ending}").unlink(missing_ok=True)

    def _opened(self, digest: str) -> tuple[sqlite3.Connection, int]:
        with self._telling():
            try:
                return self._connected(digest)
            except sqlite3.DatabaseError as error:
                if _code(error) not in (0, *DAMAGED):  # 0: raised here
                    raise
                self.notes.append(f"{self.file} is damaged ({error}): its rows are left out and computed again.")
                self._rows.close()
                self._clear()
                return self._connected(digest)

    def _connected(self, digest: str) -> tuple[sqlite3.Connection, int]:
        self._rows = sqlite3.connect(self.file, isolation_level=None)
        for setting in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            self._rows.execute(f"PRAGMA {setting}").fetchone()
        if self._rows.execute("PRAGMA user_version").fetchone()[0] not in (0, VERSION):
            raise sqlite3.DatabaseError("of another version of knownot")
        self._rows.executescript(TABLES)
        fault = self._rows.execute("PRAGMA quick_check(1)").fetchone()[0]
        if fault != "ok":
            raise sqlite3.DatabaseError(fault)
        return self._rows, self._numbered(digest)

    def _numbered(self, digest: str) -> int:
        self._rows.execute("INSERT OR IGNORE INTO runs (digest) VALUES (?)", (digest,))
        return int(self._rows.execute("SELECT run FROM runs WHERE digest = ?", (digest,)).fetchone()[0])

    def _count(self, where: str, run: int) -> int:
        with self._telling():
            return int(self._rows.execute(f"SELECT count(*) FROM rows WHERE {where}", (run,)).fetchone()[0])

    def _key(self, number: int) -> bytes:
        return bytes(self.keys[KEY * number : KEY * (number + 1)])

    def _known(self, key: bytes) -> bool | None:
        """Whether the image of this row could not be read; None where there is no whole row."""
        found = self._found(key)
        return None if found is None else bool(found[0])

    def _row(self, key: bytes) -> dict[str, Any] | None:
        found = self._found(key)
        return None if found is None else json.loads(found[1])

    def _found(self, key: bytes) -> tuple[int, str] | None:
        """(bad, row) under a key, None unless it is as it was written."""
        with self._telling():
            found = self._rows.execute(
                "SELECT bad, row, sum FROM rows WHERE run = ? AND key = ?", (self._run, key)
            ).fetchone()
        if found is None or found[2] != _sum(key, *found[:2]):
            return None
        return int(found[0]), str(found[1])

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Errors of SQLite as StorageError, one sentence with the cure."""
        try:
            yield
        except sqlite3.Error as error:
            code = _code(error)
            if code in DAMAGED:
                raise StorageError(
                    f"{self.file} was damaged while knownot ran ({error}). Nothing was written; give the same command "
                    "again, and what is missing is computed anew."
                ) from error
            if code == sqlite3.SQLITE_FULL:
                cure = "Free some space there, or write elsewhere"
            else:
                cure = "Was it removed, or is that place read-only? Write elsewhere"
            raise StorageError(
                f"Rows cannot be kept in {self.file}: {error}. {cure}; then give the same command again."
            ) from error
        except OSError as error:
            raise storage_error(error, f"Keeping rows in {str(self.folder)!r}") from error


def _sum(key: bytes, bad: bool, text: str) -> int:
    return zlib.crc32(key + bytes([bool(bad)]) + text.encode())


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF

"""One process at a time: a lock that the operating system gives back when its process ends, however it ends."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Self

from ..errors import StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TRIES = 100  # of a file that goes as often as it is opened


class Lock:
    """A file that one process at a time holds locked; its text says which. Raises StorageError where another does.

    The file is removed with `release`. Whoever opened it just before holds a file without a name then, and has to try
    again, so the file's identity is compared after locking. instead: what the second run may be given.
    """

    def __init__(self, path: Path, what: str, instead: str = "another output") -> None:
        self.path = path
        for _ in range(TRIES):
            self._file = self._opened()
            if not _locked(self._file):
                holder = _said(self.path)
                os.close(self._file)
                raise StorageError(
                    f"Another run{holder} is writing {what}. Wait until it is done, or give {instead}; nothing of it "
                    "was changed."
                )
            if self._current():
                os.ftruncate(self._file, 0)
                os.lseek(self._file, 1, os.SEEK_SET)  # Windows keeps the locked first byte to its holder
                os.write(self._file, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return
            os.close(self._file)
        raise StorageError(f"{path} goes as often as it is made: is something else clearing that folder?")

    def release(self) -> None:
        """Remove the file, then let go of it; on Windows the other way round. Once: it may be another's afterwards."""
        if self._file < 0:
            return
        file, self._file = self._file, -1
        try:
            self.path.unlink(missing_ok=True)
        except PermissionError:
            os.close(file)
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
            return
        except OSError:  # its folder has become unreachable; the lock goes all the same
            pass
        os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _opened(self) -> int:
        for _ in range(TRIES):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # its folder went in between
                continue
        return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)

    def _current(self) -> bool:
        try:
            mine, there = os.fstat(self._file), os.stat(self.path)
        except FileNotFoundError:
            return False
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _locked(file: int) -> bool:
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _said(path: Path) -> str:
    try:
        text = path.read_bytes()[1:].decode("utf-8", "replace").strip("\0 ")
    except OSError:  # it has just gone, or Windows keeps it to its holder
        return ""
    return f" ({text})" if text else ""

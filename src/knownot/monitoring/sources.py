"""Where a stream of image files comes from: a folder that fills, or lines of paths."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import ImagesError
from ..images.file_types import is_image_file

SETTLE = 0.5  # seconds that a file has to be untouched, so that it is not read half written


class FolderSource:
    """Images of a folder and its sub-folders in the order in which they came (time of last change, then name)."""

    def __init__(self, folder: str | Path, done: tuple[int, str] = (-1, "")) -> None:
        """done: (time in ns, path) of the last image that is done with."""
        self.folder, self.done = os.fspath(folder), done
        if not os.path.isdir(self.folder):
            raise ImagesError(f"There is no folder {self.folder!r} to watch.")

    def batches(self, size: int, *, whole: bool = False) -> list[list[tuple[int, str]]]:
        """What has come and is untouched for half a second (whole=True: everything), in batches of (time, path)."""
        latest = None if whole else time.time_ns() - int(SETTLE * 1e9)
        found: list[tuple[int, str]] = []
        for here, folders, names in os.walk(self.folder, followlinks=False):
            folders[:] = [f for f in folders if not f.startswith(".")]
            for name in names:
                path = os.path.join(here, name)
                if name.startswith("."):
                    continue
                try:
                    changed = os.stat(path).st_ctime_ns
                except OSError:  # gone meanwhile
                    continue
                if (changed, path) > self.done and (latest is None or changed <= latest) and is_image_file(Path(path)):
                    found.append((changed, path))
        found.sort()
        return [found[i : i + size] for i in range(0, len(found), size)]


class LineSource:
    """Paths, one a line, from a file descriptor; a batch is what has come when no more is waiting."""

    def __init__(self, descriptor: int, wait: Callable[[int], None] | None = None) -> None:
        self._descriptor, self._rest, self.ended = descriptor, b"", False
        self._wait = wait or (lambda fd: select.select([fd], [], []) and None)

    def batch(self, size: int) -> list[str]:
        """Up to `size` paths; empty only at the end."""
        while True:
            *lines, rest = self._rest.split(b"\n")
            paths = [os.fsdecode(line.rstrip(b"\r")) for line in lines if line.strip()]
            if self.ended and rest.strip():
                paths, rest = [*paths, os.fsdecode(rest)], b""
            if len(paths) >= size or (paths and (self.ended or not self._more())):
                keep = [os.fsencode(p) for p in paths[size:]]
                self._rest = b"".join(line + b"\n" for line in keep) + rest
                return paths[:size]
            if self.ended:
                return []
            self._read()

    def _more(self) -> bool:
        return bool(select.select([self._descriptor], [], [], 0.05)[0])

    def _read(self) -> None:
        self._wait(self._descriptor)
        data = os.read(self._descriptor, 1 << 16)
        self.ended = not data
        self._rest += data

"""The members of a model file, as torch itself will see them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ...errors import ModelError


@contextmanager
def private(path: Path) -> Iterator[Path]:
    """A copy that nobody else can change: what is checked is what is then loaded.

    A copy on the disk, not in memory: torch would copy bytes twice more while it reads them.
    """
    with tempfile.TemporaryDirectory(prefix="knownot-", ignore_cleanup_errors=True) as folder:
        own = Path(folder) / ("model" + (".pt2" if path.suffix.lower() == ".pt2" else ".pt"))
        shutil.copyfile(path, own)
        yield own


class Archive:
    """A zip archive. names: of its members, without the folder that they all are in.

    Python's reader and torch's may see different members in one file, of the same name, of a name in another case, or
    of a second table of contents. torch.export.load uses both readers, so an archive has to look the same to both.
    """

    def __init__(self, path: Path, shown: str) -> None:
        with zipfile.ZipFile(path) as archive:
            inside = [info for info in archive.infolist() if not info.filename.endswith("/")]
        self.whole = whole = [info.filename for info in inside]
        for info in inside:
            self._refuse_odd(info, shown)
        again = [name for name, times in Counter(name.casefold() for name in whole).items() if times > 1]
        if again:
            raise ModelError(f"{shown!r} holds the member {again[0]!r} twice; it is not opened. Write it again.")
        roots = {name.partition("/")[0] for name in whole}
        self.path, self.rooted = path, len(roots) == 1 and all("/" in name for name in whole)
        self.names = [name.partition("/")[2] for name in whole] if self.rooted else whole
        self._root = f"{whole[0].partition('/')[0]}/" if self.rooted else ""
        self._reader: Any = None
        with contextlib.suppress(RuntimeError):  # not of torch's kind: the zip archives of torch.export before 2.8
            self._reader = torch._C.PyTorchFileReader(str(path))
        if self._reader is not None:
            theirs = {name for name in self._reader.get_all_records() if not name.endswith("/")}
            if theirs != set(self.names):
                odd = sorted(theirs ^ set(self.names))
                raise ModelError(
                    f"{shown!r} shows different members to different readers ({odd[0]!r}); it is not opened. "
                    "Write it again."
                )

    @staticmethod
    def _refuse_odd(info: zipfile.ZipInfo, shown: str) -> None:
        name = info.orig_filename
        plain = name.isascii() and name.isprintable() and "\\" not in name and name == info.filename
        if not plain or name.startswith("/") or ".." in name.split("/"):
            raise ModelError(f"{shown!r} holds a member with the odd name {name!r}; it is not opened.")

    def read(self, name: str) -> bytes:
        if self._reader is not None:
            return bytes(self._reader.get_record(name))
        with zipfile.ZipFile(self.path) as archive:
            return archive.read(self._root + name)

    def agrees(self, name: str) -> bool:
        """Whether both readers find the same bytes under this name."""
        with zipfile.ZipFile(self.path) as archive:
            return archive.read(self._root + name) == self.read(name)

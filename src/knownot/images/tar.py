"""Tar shards in the layout of WebDataset: `0001.jpg` and, beside it, `0001.cls` or `0001.json` with the label."""

from __future__ import annotations

import glob
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ..arrays import InputSpec
from ..errors import ImagesError
from .base import Images
from .batching import Entries, Entry, common_size
from .file_types import ENDINGS
from .files import FileImages, in_list
from .labels import Names, index_of, names_of
from .remote import TRIES, is_url, open_url, patiently

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
LABELS = (".cls", ".json", ".txt")
SAMPLED = 8  # shards that a sample is taken from


class TarImages(Entries):
    """Shards, read one after the other without being unpacked. Ids are "<shard>/<name in it>".

    How many images there are is not known before they are walked over.
    """

    def __init__(self, files: Sequence[str], names: Names) -> None:
        self._files, self.class_names = list(files), names
        first = next(self._in(self._files[0]), None) if self._files else None
        self.labelled = first is not None and first.label >= 0
        self._first = first

    @property
    def count(self) -> None:
        return None

    @property
    def size(self) -> tuple[int, int] | None:
        return None if self._first is None else common_size([self._first.image])

    @property
    def ready(self) -> bool:
        return False

    def equals(self, other: Images) -> bool:
        return isinstance(other, TarImages) and self._files == other._files

    def entries(self, start: int, spec: InputSpec | None) -> Iterator[Entry]:
        at = 0
        for file in self._files:
            for entry in self._in(file):
                if at >= start:
                    yield entry
                at += 1

    def part(self, i: int, of: int) -> Images:
        if len(self._files) < of or not 0 <= i < of:
            return super().part(i, of)
        n = len(self._files)
        made = TarImages(self._files[n * i // of : n * (i + 1) // of], self.class_names)
        made.labelled = self.labelled
        return made

    def sample(self, n: int, seed: int = 0) -> FileImages:
        """Some of the first images of some shards."""
        chosen = np.random.default_rng(seed).permutation(len(self._files))[:SAMPLED]
        each = -(-n // len(chosen))
        kept: list[Entry] = []
        for number in np.sort(chosen):
            kept += islice(self._in(self._files[number]), each)
        kept = kept[:n]
        labels = [entry.label for entry in kept]
        some = in_list([e.id for e in kept], [e.image for e in kept], labels, self.class_names)
        some.names_are_hints = self.names_are_hints
        return some

    def _in(self, file: str) -> Iterator[Entry]:
        """The images of a shard: members of one name (up to its first dot) belong together."""
        shard = os.path.basename(file.partition("?")[0])
        name, image, ending, label = "", None, "", -1
        for member, data in members(file):
            stem, ending_ = _split(member)
            if stem != name:
                if image is not None:
                    yield Entry(f"{shard}/{name}{ending}", label, image)
                name, image, label = stem, None, -1
            if ending_ in ENDINGS:
                image, ending = data, ending_
            elif ending_ in LABELS and label < 0:
                label = self._label(data, ending_)
        if image is not None:
            yield Entry(f"{shard}/{name}{ending}", label, image)

    def _label(self, data: bytes, ending: str) -> int:
        text: Any = data.decode("utf-8", "replace").strip()
        if ending == ".json":
            try:
                found = json.loads(text)
            except ValueError:
                return -1
            keys = [key for key in ("label", "cls", "class") if isinstance(found, dict) and key in found]
            text = found[keys[0]] if keys else -1
        try:
            return int(text)
        except (TypeError, ValueError):
            known = ending != ".txt" and self.class_names and isinstance(text, str)
            return index_of(text, self.class_names) if known and self.class_names else -1


def members(file: str) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each file in a tar, plain or compressed; behind a URL, a broken connection is tried again from
    the member that it broke in. Raises ImagesError."""
    done, left = 0, TRIES
    while True:
        try:
            with (
                patiently(lambda: open_url(file), file) if is_url(file) else open(file, "rb") as raw,
                tarfile.open(fileobj=raw, mode="r|*") as archive,
            ):
                for number, member in enumerate(archive):
                    if not member.isfile() or number < done:
                        continue
                    inside = archive.extractfile(member)
                    data = b"" if inside is None else inside.read()
                    if len(data) != member.size:
                        raise tarfile.ReadError("it ends in the middle of a file")
                    yield member.name, data
                    done = number + 1
            return
        except (tarfile.TarError, OSError, EOFError) as error:
            left -= 1
            if is_url(file) and left > 0 and not isinstance(error, FileNotFoundError):
                continue
            why = str(error).splitlines() or [type(error).__name__]
            shard = file.partition("?")[0]
            raise ImagesError(f"The shard {shard!r} cannot be read after {done} files: {why[0][:200]}.") from error


def _split(name: str) -> tuple[str, str]:
    folder, base = os.path.split(name)
    stem, dot, ending = base.partition(".")
    return os.path.join(folder, stem), (dot + ending).lower()


def opened(source: Any, labels: Any, class_names: Sequence[str] | None) -> TarImages | None:
    """Reads tar files: one, a list, a glob, a range {000..999}, also behind URLs; None for anything else."""
    files = found(source)
    if not files:
        return None
    if labels is not None:
        raise ImagesError("Labels of tar shards are inside them, as .cls or .json beside an image: leave out labels=.")
    return TarImages(files, names_of(class_names))


def found(source: Any) -> list[str]:
    """The tar files that a source names; none if it names others too."""
    if isinstance(source, list | tuple):
        each = [found(one) if isinstance(one, str | os.PathLike) else [] for one in source]
        return [file for files in each for file in files] if each and all(each) else []
    if not isinstance(source, str | os.PathLike):
        return []
    text = os.fspath(source)
    if not _is_tar(text):
        return []
    if span := RANGE.search(text):
        low, high = span[1], span[2]
        numbers = (str(k).zfill(len(low)) for k in range(int(low), int(high) + 1))
        return [text[: span.start()] + k + text[span.end() :] for k in numbers]
    if is_url(text) or os.path.exists(text):
        return [text]
    return sorted(glob.glob(text, recursive=True))


def _is_tar(text: str) -> bool:
    return text.partition("?")[0].lower().endswith((".tar", ".tar.gz", ".tgz"))

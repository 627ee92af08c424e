"""Image files: a folder (with classes as sub-folders, or without), a list of paths, one file, a glob."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import InputSpec
from ..errors import ImagesError, LabelsError
from .base import Images
from .batching import Entries, Entry, choice, common_size
from .file_types import ENDINGS, is_image_file, unread
from .image_arrays import as_numpy, is_array
from .labels import Names, names_of, renumbered, resolve
from .names import file_state, stamp_of
from .remote import is_url, listed

PROOFS, FEW = 32, 8  # files compared by content before the walk; from how many on they prove anything
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "calibration", "dev"}


class FileImages(Entries):
    """Files, read when their turn comes."""

    def __init__(
        self,
        ids: list[str],
        files: Sequence[str | bytes],
        labels: np.ndarray | None,
        names: Names,
        *,
        skipped: int = 0,
        label_notes: tuple[str, ...] = (),
    ) -> None:
        self._ids, self._files, self._labels, self.class_names = ids, files, labels, names
        self.labelled = labels is not None
        self.skipped, self.label_notes = skipped, label_notes
        self._size: tuple[int, int] | str | None = "not looked at"

    @property
    def count(self) -> int:
        return len(self._ids)

    @property
    def size(self) -> tuple[int, int] | None:
        if isinstance(self._size, str):
            self._size = common_size(self._files[:: max(1, len(self._files) // 32)])
        return self._size

    @property
    def ready(self) -> bool:
        return False

    def places(self) -> Iterator[str]:
        real: dict[str, str] = {}  # of folders, asked once
        for file in self._files:
            if isinstance(file, str):
                folder, name = os.path.split(file)
                if folder not in real:
                    real[folder] = os.path.realpath(folder)
                yield os.path.join(real[folder], name)

    def equals(self, other: Images) -> bool:
        if not isinstance(other, FileImages):
            return False
        mine = [self._files[i] for i in choice(len(self._files), PROOFS, 0)]
        return len(mine) >= FEW and same_files(mine, other._files)

    def entries(self, start: int, spec: InputSpec | None) -> Iterator[Entry]:
        for i in range(start, len(self._ids)):
            yield Entry(self._ids[i], -1 if self._labels is None else int(self._labels[i]), self._files[i])

    def stamps(self) -> Iterator[bytes] | None:
        return None if any(map(is_url, self._files)) else self._stamps()

    def _stamps(self) -> Iterator[bytes]:
        places = self.places()
        for name, file in zip(self._ids, self._files, strict=True):
            yield stamp_of(file) if isinstance(file, bytes) else stamp_of(name, next(places), file_state(file))

    def shuffled(self, seed: int = 0) -> FileImages:
        made = self.only(np.random.default_rng([seed, 6]).permutation(len(self._ids)))
        made.mixed = True
        return made

    def sample(self, n: int, seed: int = 0) -> FileImages:
        return self.only(choice(len(self._ids), n, seed))

    def only(self, rows: np.ndarray) -> FileImages:
        labels = None if self._labels is None else self._labels[rows]
        return FileImages(
            [self._ids[i] for i in rows],
            [self._files[i] for i in rows],
            labels,
            self.class_names,
            label_notes=self.label_notes,
        )


def opened(source: Any, labels: Any, class_names: Sequence[str] | None) -> FileImages | None:
    """Reads a folder, a file, a glob, or a list (also an array or a table's column) of paths or of files' bytes."""
    names = names_of(class_names)
    if isinstance(source, str | os.PathLike):
        if not os.fspath(source):
            raise ImagesError("An empty text names no images. Give a folder, a file or a glob; '.' is this folder.")
        if is_url(source) and not str(source).startswith(("http:", "https:")):
            return _elsewhere(str(source), labels, names)
        path = Path(source)
        if os.path.isdir(path):
            return _folder(path, labels, names)
        if not os.path.lexists(path) and glob.has_magic(str(path)):
            return _glob(str(path), labels, names)
        if not os.path.lexists(path):
            away = " Addresses are not fetched: download the images first." if "://" in str(source) else _near(path)
            raise ImagesError(f"There is no file or folder {str(source)!r}.{away}")
        return _list([source], labels, names)
    if is_array(source):
        source = as_numpy(source).reshape(-1).tolist()
    elif type(source).__name__ in ("Series", "Index"):
        source = source.tolist()
    if isinstance(source, list | tuple) and all(isinstance(x, str | os.PathLike | bytes) for x in source):
        if not source:
            raise ImagesError("The list of images is empty.")
        return _list(list(source), labels, names)
    return None


def same_files(some: Sequence[str | bytes], others: Sequence[str | bytes]) -> bool:
    """Whether every one of `some` (paths or bytes) has the content of one of `others`. Only files of equal size are
    read."""
    size = {f: _length(f) for f in some}
    by_size: dict[int, set[bytes]] = {n: set() for n in size.values() if n > 0}
    for file in others:
        if (n := _length(file)) in by_size:
            by_size[n].add(_digest(file))
    return all(n > 0 and _digest(f) in by_size[n] for f, n in size.items())


def _length(file: str | bytes) -> int:
    try:
        return len(file) if isinstance(file, bytes) else os.stat(file).st_size
    except OSError:
        return -1


def _digest(file: str | bytes) -> bytes:
    try:
        data = file if isinstance(file, bytes) else Path(file).read_bytes()
    except OSError:
        return b""
    return hashlib.blake2b(data, digest_size=16).digest()


def _near(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return f" Its folder {str(parent)!r} does not exist either."
    return ""


def _list(paths: list[Any], labels: Any, names: Names, skipped: int = 0) -> FileImages:
    if any(not isinstance(path, bytes) and not os.fspath(path) for path in paths):
        raise ImagesError("One of the paths is an empty text, which names no image. Leave it out.")
    ids = [f"#{i}" if isinstance(path, bytes) else os.fspath(path) for i, path in enumerate(paths)]
    files = [path if isinstance(path, bytes) else os.fspath(path) for path in paths]
    return in_list(ids, files, labels, names, skipped)


def in_list(ids: list[str], files: Sequence[str | bytes], labels: Any, names: Names, skipped: int = 0) -> FileImages:
    """Files under these ids, with labels as `open_images` takes them."""
    keys = [(name, os.path.basename(name), Path(name).stem) for name in ids]
    numbers, names = resolve(labels, len(ids), names, keys)
    return FileImages(ids, files, numbers, names, skipped=skipped)


def _glob(pattern: str, labels: Any, names: Names) -> FileImages:
    found = [Path(p) for p in glob.glob(pattern, recursive=True)]
    files = sorted({p for p in found if not p.is_dir() or p.suffix.lower() in ENDINGS}, key=lambda p: p.parts)
    images = [p for p in files if is_image_file(p)]
    if not images:
        what = "only folders; end it with /*.png, say" if found and not files else "nothing"
        what = f"{len(files)} files, but no images" if files else what
        raise ImagesError(f"The pattern {pattern!r} matches {what}.")
    return _list([str(p) for p in images], labels, names, skipped=len(files) - len(images))


def _folder(root: Path, labels: Any, names: Names) -> FileImages:
    """Classes are the sub-folders of the first level, in plain sorted order as in torchvision and Keras."""
    found, skipped = _walk_folder(root)
    if found and all(unread(parts[-1]) for parts in found):
        why = unread(found[0][-1])
        raise ImagesError(f"The folder {str(root)!r} holds only images that cannot be read: {found[0][-1]} is {why}.")
    if not found:
        other = f" ({skipped} files are there, but none is an image)" if skipped else ""
        raise ImagesError(
            f"The folder {str(root)!r} holds no images{other}. Images are searched for in its sub-folders too."
        )
    ids = ["/".join(parts) for parts in found]
    files = [os.path.join(root, *parts) for parts in found]
    if labels is not None:
        keys = [(i, file, parts[-1], Path(parts[-1]).stem) for i, file, parts in zip(ids, files, found, strict=True)]
        numbers, names = resolve(labels, len(ids), names, keys)
        return FileImages(ids, files, numbers, names, skipped=skipped)
    classes = sorted(e.name for e in os.scandir(root) if _is_class(e))
    if not classes:
        return FileImages(ids, files, None, names, skipped=skipped)
    if set(map(str.lower, classes)) <= SPLITS and len(classes) > 1:
        raise ImagesError(
            f"The sub-folders of {str(root)!r} are {', '.join(classes)}: parts of a data set, not classes. "
            f"Give one of them, such as {str(root / classes[0])!r}."
        )
    return _by_class(ids, files, [parts[0] if len(parts) > 1 else None for parts in found], classes, names, skipped)


def _elsewhere(url: str, labels: Any, names: Names) -> FileImages:
    """A folder behind a URL: classes are its sub-folders of the first level."""
    root = url.partition("?")[0].rstrip("/")
    files = [(file, file.partition("?")[0][len(root) + 1 :] or os.path.basename(root)) for file in listed(url)]
    found = [(file, name) for file, name in files if Path(name).suffix.lower() in ENDINGS]
    if not found:
        raise ImagesError(f"The folder {root!r} holds no images ({len(files)} other files).")
    urls, ids = [file for file, _ in found], [name for _, name in found]
    groups = [name.partition("/")[0] if "/" in name else None for name in ids]
    classes = sorted({group for group in groups if group is not None})
    if labels is not None or not classes:
        return in_list(ids, urls, labels, names, len(files) - len(found))
    return _by_class(ids, urls, groups, classes, names, len(files) - len(found))


def _by_class(
    ids: list[str], files: list[str], groups: list[str | None], classes: list[str], names: Names, skipped: int
) -> FileImages:
    names = names or tuple(classes)
    try:
        found = renumbered(tuple(classes), names).tolist()
        number: dict[str | None, int] = dict(zip(classes, found, strict=True))
    except LabelsError as e:
        raise LabelsError(f"The sub-folder {e} Rename it, or give labels=...") from None
    number[None] = -1
    loose = sum(group is None for group in groups)
    notes = (f"{loose} images lie beside the class folders; they have no label.",) if loose else ()
    numbers = np.array([number[group] for group in groups], dtype=np.int64)
    return FileImages(ids, files, numbers, names, skipped=skipped, label_notes=notes)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "__pycache__", "@eaDir")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_class(entry: os.DirEntry[str]) -> bool:
    return _is_folder(entry) and not _hidden(entry.name) and Path(entry.name).suffix.lower() not in ENDINGS


def _walk_folder(root: Path) -> tuple[list[tuple[str, ...]], int]:
    """(paths of all images below root, as parts, sorted; how many files were passed over).

    Links are followed, every real folder once, so that a loop ends. A folder that cannot be listed is a row of its
    own, and so is a folder named like an image: reading it gives the reason.
    """
    found: list[tuple[str, ...]] = []
    skipped = 0
    seen: set[tuple[int, int]] = set()
    todo: list[tuple[str, ...]] = [()]
    while todo:
        parts = todo.pop()
        here = os.path.join(root, *parts)
        try:
            status = os.stat(here)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            children = sorted(os.scandir(here), key=lambda e: e.name, reverse=True)
        except OSError as e:
            if not parts:
                raise ImagesError(f"The folder {here!r} cannot be listed: {e.strerror}.") from e
            found.append(parts)
            continue
        for child in children:
            path = (*parts, child.name)
            if _hidden(child.name):
                skipped += not _is_folder(child)
            elif _is_folder(child) and Path(child.name).suffix.lower() not in ENDINGS:
                todo.append(path)
            elif is_image_file(Path(child.path)) or unread(child.name):
                found.append(path)
            else:
                skipped += 1
    return sorted(found), skipped

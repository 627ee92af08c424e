"""Image lists: text files with a line "path label" for each image, as OpenOOD, SCOOD and Caffe write them."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import ImagesError, LabelsError
from .file_types import ENDINGS
from .files import FileImages, in_list
from .labels import names_of

LISTS = (".txt", ".lst")
# Folders of OpenOOD's layout: data/benchmark_imglist/<benchmark>/test_<set>.txt, images in data/images_classic/<set>/…
BESIDE = (".", "images", "images_classic", "images_largescale")
LOOKED = 8  # first paths of a list, one of which has to be there


def read_list(
    file: str | Path, labels: Any = None, class_names: Sequence[str] | None = None, *, root: str | Path | None = None
) -> FileImages:
    """The images of a list, in its order; their ids are the paths as they stand there.

    Lines are "path label", "path" alone, or OpenOOD's "path {'label': 3, …}". A label is a number (-1 for none) or the
    name of a class. root: the folder that paths begin in. Without it, it is searched for: the current folder, that of
    the list and those above it, and the folders `BESIDE` in them, the first that holds one of the first images.

    Raises ImagesError when the list is empty or no folder holds its images, LabelsError for a line whose label is
    neither, with its number.
    """
    file = Path(file)
    paths, own = _parsed(file)
    if not paths:
        raise ImagesError(f"The image list {str(file)!r} has no lines.")
    base = _root(file, paths) if root is None else Path(root)
    found = paths if base == Path() else [os.path.join(base, path) for path in paths]
    return in_list(paths, found, own if labels is None else labels, names_of(class_names))


def opened(source: Any, labels: Any, class_names: Sequence[str] | None) -> FileImages | None:
    """Reads an image list; None for anything else, also for a text that is none."""
    if not isinstance(source, str | os.PathLike) or not os.fspath(source).lower().endswith(LISTS):
        return None
    if not os.path.isfile(source) or not _is_list(Path(source)):
        return None
    return read_list(Path(source), labels, class_names)


def _is_list(file: Path) -> bool:
    """Whether its first line names an image."""
    line = next(_lines(file), (0, ""))[1]
    path, _ = _split(line)
    return bool(path) and Path(path).suffix.lower() in ENDINGS


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            yield from ((number, line.strip()) for number, line in enumerate(lines, 1) if line.strip())
    except OSError as error:
        raise ImagesError(f"The image list {str(file)!r} cannot be read: {error.strerror}.") from error


def _parsed(file: Path) -> tuple[list[str], list[Any] | None]:
    """(paths, labels): numbers, or names where not all are numbers; None where no line has one."""
    paths: list[str] = []
    labels: list[int | str | None] = []
    for number, line in _lines(file):
        path, label = _split(line)
        paths.append(path)
        try:
            labels.append(_label(label))
        except (ValueError, SyntaxError):
            raise LabelsError(
                f'Line {number} of {str(file)!r} ends in {label[:60]!r}, which is no label. Expected "path label", '
                "with a number (-1 for none) or the name of a class."
            ) from None
    if not any(isinstance(label, str) for label in labels):
        return paths, None if all(label is None for label in labels) else [-1 if x is None else x for x in labels]
    return paths, [None if label in (None, -1) else str(label) for label in labels]


def _split(line: str) -> tuple[str, str]:
    """(path, label or ""). Paths may have spaces; labels only where they are dicts or come after a tab."""
    if "\t" in line:
        path, _, label = line.partition("\t")
    elif line.endswith("}") and " {" in line:
        path, _, label = line.partition(" {")
        label = "{" + label
    elif os.path.splitext(line)[1].lower() in ENDINGS or " " not in line:
        path, label = line, ""
    else:
        path, _, label = line.rpartition(" ")
    return path.strip(), label.strip()


def _label(text: str) -> int | str | None:
    if not text:
        return None
    if text.startswith("{"):
        found = ast.literal_eval(text)
        label = found.get("label", -1) if isinstance(found, dict) else text
        return int(label)
    try:
        return int(text)
    except ValueError:
        return text


def _root(file: Path, paths: Sequence[str]) -> Path:
    first = [path for path in paths[:LOOKED] if not os.path.isabs(path)]
    if not first or any("://" in path for path in first):
        return Path()
    folders = [Path(), *(Path(above, name) for above in file.absolute().parents for name in BESIDE)]
    found = next((folder for folder in folders if any(os.path.exists(folder / path) for path in first)), None)
    if found is None:
        raise ImagesError(
            f"The images of the list {str(file)!r} are not there: {first[0]!r} is neither in the current folder, nor "
            f"beside the list, nor in a folder {', '.join(BESIDE[1:])} above it. Run this in the folder that the "
            "paths begin in, or give root= to knownot.images.lists.read_list."
        )
    return found

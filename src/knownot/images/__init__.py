"""One reader per kind of source; `open_images` finds the one that reads what it is given."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..arguments import public
from ..arrays import ImagesLike, LabelsLike
from ..errors import ImagesError, KnownotError
from ..plugins import loaded
from .base import Batch, Images
from .disjoint import check_disjoint
from .file_types import is_image_file

__all__ = ["Batch", "Images", "check_disjoint", "open_images"]

READERS: tuple[
    str, ...
] = (  # asked in turn; each module has `opened(source, labels, class_names)`, None if not its kind
    "parquet",
    "array",
    "lists",
    "tar",
    "files",
    "stream",  # last: any iterable
)


GROUP = "knownot.readers"  # entry points by which other packages add readers: `opened`, or a module that has it

MANY = (
    "Give an array, a folder, a list of paths, a glob, an image list, a parquet file, a DataLoader, a tf.data.Dataset, "
    "or another iterable of batches"
)


@public
def open_images(source: ImagesLike, labels: LabelsLike = None, *, class_names: Sequence[str] | None = None) -> Images:
    """Open images for reading: nothing is decoded yet, and nothing of the source is changed.

    Parameters
    ----------
    source : ImagesLike
        An array, raw uint8 or uint16 [n, h, w, 3] (also grey, alpha, channels first) or float, the classifier's own
        input; a pair (array, labels); a folder, with classes as sub-folders or without; a file; a glob; a list of paths
        (or of files' bytes); an image list, a .txt or .lst file with a line "path label" for each image; tar shards of
        WebDataset, such as "train-{000..099}.tar"; parquet files with image bytes; a folder of Hugging Face's
        `save_to_disk`, or its .arrow files; a torch DataLoader or Dataset, a tf.data.Dataset, any iterable of batches:
        arrays, (images, labels), or dicts with "image" and "label"; what readers of other packages read. Folders,
        files, shards and parquet files may be behind URLs (s3://, gs://, hf://).
    labels : LabelsLike, optional
        Integers [n] (-1 for none), class names [n], one-hot [n, c], or {file name or path: label}; instead of the
        source's own.
    class_names : sequence of str, optional
        The classes in the classifier's order; the source's own names are numbered accordingly. Without it sub-folders
        are numbered in sorted order.

    Returns
    -------
    Images

    Raises
    ------
    ImagesError
        The source cannot be read.
    LabelsError
        Labels do not fit.
    MissingExtraError
        Parquet or Arrow is given and pyarrow is not installed.

    Examples
    --------
    >>> images = knownot.open_images("data/val")
    >>> images.count, images.class_names
    (600, ('blue', 'columns', 'red', 'stripes'))
    """
    if isinstance(source, Images):
        if labels is not None or class_names is not None:
            raise ImagesError("These images are open already: give labels and class_names when opening them.")
        return source
    if type(source).__name__ == "DataFrame":
        raise ImagesError(
            "A DataFrame is no source of images: give its column of paths or of files' bytes, frame['path']."
        )
    # Plug-ins are asked for what knownot itself does not read. `files` would call any file an image, if a broken one.
    late = READERS[-2:] if _of_other_files(source) else READERS[-1:]
    found: Images | None = None
    refused: ImagesError | None = None
    for name in READERS[: -len(late)]:
        try:
            found = _reader(name)(source, labels, class_names)
        except ImagesError as error:
            refused = error
            break
        if found is not None:
            return found
    found, troubles = _by_plugins(source, labels, class_names)
    if found is None and refused is not None:
        raise ImagesError(" ".join([str(refused), *troubles])) from refused
    for name in late:
        found = _reader(name)(source, labels, class_names) if found is None else found
    if found is not None:
        return found
    one = type(source).__module__.startswith("PIL.") or isinstance(source, bytes | bytearray)
    raise ImagesError(
        f"{type(source).__name__} {'is one image' if one else 'is no source of images'}. "
        f"{' '.join([('Give a list: [image]' if one else MANY) + '.', *troubles])}"
    )


def _reader(name: str) -> Any:
    return importlib.import_module(f".{name}", __name__).opened


def _of_other_files(source: Any) -> bool:
    """Whether it is a file, or a list of files, of which none is an image that knownot reads."""
    paths = source if isinstance(source, list | tuple) else [source]
    return bool(paths) and all(
        isinstance(path, str | os.PathLike) and os.path.isfile(path) and not is_image_file(Path(path)) for path in paths
    )


def _by_plugins(source: Any, labels: Any, class_names: Sequence[str] | None) -> tuple[Images | None, list[str]]:
    """The images as the first plug-in reads them that does, and sentences on plug-ins that could not be asked."""
    troubles: list[str] = []
    for plugin in loaded(GROUP):
        read, why = getattr(plugin.thing, "opened", plugin.thing), plugin.trouble
        try:
            found = None if why else read(source, labels, class_names)
        except KnownotError:
            raise
        except Exception as error:  # of foreign code, which may not break sources that others read
            found, why = None, f"{type(error).__name__}: {error}"
        if isinstance(found, Images):
            return found, troubles
        if found is not None:
            why = f"it returned a {type(found).__name__}, not an Images."
        if why:
            troubles.append(f"The reader {plugin.name!r} of the package {plugin.package!r} could not be asked: {why}")
    return None, troubles

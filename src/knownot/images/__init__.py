"""One reader per kind of source; `open_images` finds the one that reads what it is given."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from ..errors import ImagesError
from .apart import apart
from .base import Batch, Images

__all__ = ["Batch", "Images", "apart", "open_images"]

READERS: tuple[
    str, ...
] = (  # asked in turn; each module has `opened(source, labels, class_names)`, None if not its kind
    "parquet",
    "array",
    "files",
    "stream",  # last: any iterable
)


MANY = (
    "Give an array, a folder, a list of paths, a glob, a parquet file, a DataLoader, a tf.data.Dataset, or another "
    "iterable of batches"
)


def open_images(source: Any, labels: Any = None, *, class_names: Sequence[str] | None = None) -> Images:
    """Open images for reading: nothing is decoded yet, and nothing of the source is changed.

    source: an array, raw uint8 [n, h, w, 3] (also grey, alpha, channels first) or float, the classifier's own input;
        a pair (array, labels); a folder, with classes as sub-folders or without; a file; a glob; a list of paths (or of
        files' bytes); parquet files with image bytes; a torch DataLoader or Dataset, a tf.data.Dataset, any iterable of
        batches: arrays, (images, labels), or dicts with "image" and "label".
    labels: integers [n] (-1 for none), class names [n], one-hot [n, c], or {file name or path: label}; instead of the
        source's own.
    class_names: the classes in the classifier's order; the source's own names are numbered accordingly. Without
        it sub-folders are numbered in sorted order.

    Raises ImagesError when the source cannot be read, LabelsError when labels do not fit, MissingExtraError when
    parquet is given and pyarrow is not installed.
    """
    if isinstance(source, Images):
        if labels is not None or class_names is not None:
            raise ImagesError("These images are open already: give labels and class_names when opening them.")
        return source
    if type(source).__name__ == "DataFrame":
        raise ImagesError(
            "A DataFrame is no source of images: give its column of paths or of files' bytes, frame['path']."
        )
    for name in READERS:
        found: Images | None = importlib.import_module(f".{name}", __name__).opened(source, labels, class_names)
        if found is not None:
            return found
    one = type(source).__module__.startswith("PIL.") or isinstance(source, bytes | bytearray)
    raise ImagesError(
        f"{type(source).__name__} {'is one image' if one else 'is no source of images'}. "
        f"{'Give a list: [image]' if one else MANY}."
    )

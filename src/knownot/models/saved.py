"""A classifier in a folder, with a file that says how it is opened: what `knownot.remedies` saves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..arrays import Preprocess
from ..errors import ModelError, UnsafeError
from .base import Model

FILE = "model.json"


def write(folder: Path, model: Model, file: str, preprocess: Preprocess | None, names: tuple[str, ...]) -> None:
    """Say of `file`, in the folder already, how `in_folder` is to open it."""
    said = {
        "file": file,
        "opened_with": dict(model.opened_with),
        "class_names": list(names),
        "preprocess": None if preprocess is None else vars(preprocess),
    }
    (folder / FILE).write_text(json.dumps(said, indent=1, allow_nan=False), encoding="utf-8")


def in_folder(folder: Path, given: Mapping[str, Any], opening: Callable[..., Model]) -> Model:
    """The classifier, opened as the folder says. given: options of the caller, of which there may be none.

    Raises ModelError when the folder says nothing, or something senseless. No code of it is run.
    """
    path = folder / FILE
    if not path.is_file():
        raise ModelError(
            f"{str(folder)!r} is a folder without {FILE}: no retrained classifier. Give a model file (.onnx, .keras, "
            ".h5, .pt2); a saved open-set classifier is opened by knownot.load."
        )
    if given:
        raise ModelError(f"The folder {str(folder)!r} says how its classifier is opened; leave out {', '.join(given)}.")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        file, options, names, way = (said[key] for key in ("file", "opened_with", "class_names", "preprocess"))
        options = {**options}
        options.pop("unsafe_pickle", None)  # a file must not make pickles run
        if options.get("size"):
            options["size"] = tuple(options["size"])
        preprocess = None if way is None else Preprocess(**{k: _tupled(v) for k, v in way.items()})
        plain = isinstance(file, str) and Path(file).name == file and "\\" not in file
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} does not say how the classifier is opened: {error!r}. Copy the folder again."
        ) from error
    if not plain:
        raise ModelError(f"{path} names a model outside its folder: {file!r}. Do not use this folder.")
    try:
        opened = opening(folder / file, **options)
    except UnsafeError as error:
        raise UnsafeError(
            f"{error} A folder cannot be permitted that: give its file {str(folder / file)!r}."
        ) from error
    if names and len(names) == opened.offers.classes:
        opened.class_names = tuple(map(str, names))
    opened.preprocess = preprocess or opened.preprocess
    return opened


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

"""A classifier in a folder, with a file that says how it is opened: what `knownot.remedies` saves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..arrays import Preprocess
from ..errors import ModelError, UnsafeError
from .base import Model
from .refused import folder_refusal, json_refusal

FILE = "model.json"
KEYS = {"file", "opened_with", "class_names", "preprocess", "checksum", "digest"}


def write(folder: Path, model: Model, file: str, preprocess: Preprocess | None, names: tuple[str, ...]) -> None:
    """Say of `file`, in the folder already, how `in_folder` is to open it."""
    said: dict[str, Any] = {
        "file": file,
        "opened_with": dict(model.opened_with),
        "class_names": list(names),
        "preprocess": None if preprocess is None else vars(preprocess),
    }
    said["checksum"] = _checksum(folder / file)
    said["digest"] = _digest(said)
    (folder / FILE).write_text(json.dumps(said, indent=1, allow_nan=False), encoding="utf-8")


def in_folder(folder: Path, given: Mapping[str, Any], opening: Callable[..., Model]) -> Model:
    """The classifier, opened as the folder says. given: options of the caller, of which there may be none.

    Raises ModelError when the folder says nothing, or something senseless. No code of it is run.
    """
    path = folder / FILE
    if not path.is_file() or json_refusal(path):
        raise ModelError(
            json_refusal(path)
            or folder_refusal(folder)
            or f"{str(folder)!r} is a folder without {FILE}: no retrained classifier. Give a model file (.onnx, "
            ".keras, .h5, .pt2); a saved open-set classifier is opened by knownot.load."
        )
    if given:
        raise ModelError(f"The folder {str(folder)!r} says how its classifier is opened; leave out {', '.join(given)}.")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        file, options, names, way = (said[key] for key in ("file", "opened_with", "class_names", "preprocess"))
        options = permitted({**options})
        preprocess = None if way is None else Preprocess(**{k: _tupled(v) for k, v in way.items()})
        plain = isinstance(file, str) and Path(file).name == file and "\\" not in file
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} does not say how the classifier is opened: {error!r}. Copy the folder again."
        ) from error
    if not plain or not (folder / file).resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"{path} names a model outside its folder: {file!r}. Do not use this folder.")
    _check_unchanged(folder, said)
    try:
        opened = opening(folder / file, **options)
    except UnsafeError as error:
        raise UnsafeError(
            f"{error} A folder cannot be permitted that: give its file {str(folder / file)!r}."
        ) from error
    if names and len(names) == opened.capabilities.classes:
        opened.class_names = tuple(map(str, names))
    opened.preprocess = preprocess or opened.preprocess
    return opened


HARMLESS = {  # options of an execution provider that choose how it computes, and name no file and no library
    "arena_extend_strategy", "cudnn_conv_algo_search", "cudnn_conv_use_max_workspace", "device_id", "device_type",
    "do_copy_in_default_stream", "enable_cuda_graph", "gpu_mem_limit", "num_of_threads", "precision", "use_tf32",
}  # fmt: skip


def permitted(said: Any) -> dict[str, Any]:
    """What `open_model` was given at fit time, as a file says it, without what a file may not ask for.

    Raises ModelError for options that name files or libraries to load, TypeError for what are no options.
    """
    options = {str(name): value for name, value in dict(said or {}).items()}
    options.pop("unsafe_pickle", None)  # a file must not make pickles run
    if options.get("size"):
        options["size"] = tuple(options["size"])
    for provider in options.get("providers") or ():
        own = {} if isinstance(provider, str) else dict(provider[1])
        if strange := own.keys() - HARMLESS:
            raise ModelError(
                f"The folder asks for the option {min(strange)!r} of an execution provider, which may load code. Open "
                "the classifier yourself and give it: load(folder, model=knownot.open_model(file, providers=…))."
            )
    return options


def _check_unchanged(folder: Path, said: Mapping[str, Any]) -> None:
    """Raises ModelError where a digest differs; files of earlier versions have none."""
    if strange := said.keys() - KEYS:
        raise ModelError(f"{folder / FILE} has the entry {min(strange)!r}, which no knownot writes. Copy it again.")
    if ("digest" in said or "checksum" in said) and said.get("digest") != _digest(said):
        raise ModelError(f"{folder / FILE} is not the file that was saved: it was changed. Copy the folder again.")
    if (
        "checksum" in said
        and (folder / said["file"]).is_file()
        and _checksum(folder / said["file"]) != said["checksum"]
    ):
        raise ModelError(
            f"{folder / said['file']} is not the file that was saved: truncated or changed. Copy it again."
        )


def _digest(said: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in said.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

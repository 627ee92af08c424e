"""Open a Keras file without running any code that is in it."""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import keras

from ...errors import ModelError, missing_extra
from .refusals import LAMBDA, checked, translate_error
from .safety import check_description, check_links

MOVED = re.compile(rb'"(?:tf_)?keras\.src\.engine\.(functional|sequential|training)"')  # modules of Keras 2


def load(path: Path) -> tuple[keras.Model, tuple[str, ...]]:
    """The model in a .keras or .h5 file, uncompiled, and notes. Raises ModelError with reason and cure."""
    start = _start(path)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        try:
            from . import legacy_h5
        except ImportError as error:
            raise missing_extra("h5py", "keras", "A .h5 file") from error
        return legacy_h5.load(path)
    if start.startswith(b"PK"):
        return _load_keras(path), ()
    size = f"its {path.stat().st_size} bytes do not start as either does" if start else "it is empty"
    raise ModelError(
        f"{path.name} is neither a .keras file (a zip) nor an HDF5 file: {size}. It may have been truncated, or be a "
        "download page. Save the model again with model.save('model.keras')."
    )


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error}.") from error


def _load_keras(path: Path) -> keras.Model:
    if path.suffix != ".keras":
        raise ModelError(f"{path.name} is a zip archive, as .keras files are. Rename it to end in .keras.")
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise ModelError(f"{path.name} is damaged or truncated: {error}. Save or copy it again.") from error
    if broken:
        raise ModelError(f"{path.name} is damaged: its part {broken!r} fails its checksum. Save or copy it again.")
    if absent := {"config.json", "model.weights.h5"} - names:
        raise ModelError(f"{path.name} has no {' and no '.join(sorted(absent))}, so it is no complete Keras model.")
    _check_safe(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        model = _of_keras_2(path)
        if model is None:
            raise translate_error(path, error) from error
    return checked(path, model)


def _of_keras_2(path: Path) -> keras.Model | None:
    """The model of a .keras file that Keras 2.12 to 2.15 wrote, its classes named where Keras 3 has them; None for
    other files, and where that is not enough. The file is not written to."""
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        try:
            version = str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
        except (KeyError, ValueError, AttributeError):
            return None
        if not version.startswith("2."):
            return None
        mended = Path(folder) / "model.keras"
        with zipfile.ZipFile(mended, "w") as copy:
            for name in archive.namelist():
                data = archive.read(name)
                data = MOVED.sub(rb'"keras.src.models.\1"', data) if name == "config.json" else data
                copy.writestr(name, data)
        try:
            return keras.saving.load_model(mended, compile=False, safe_mode=True)
        except Exception:  # the error of the file as it is says more
            return None


def _check_safe(path: Path) -> None:
    """Raises ModelError for a description or weights that reach beyond the file."""
    import h5py

    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            if isinstance(config, dict):
                config.pop("compile_config", None)  # which is not read
            names = code_in(config)
            if names is not None:
                raise ModelError(LAMBDA.format(name=path.name, which=names))
            check_description(config, path.name)
            with archive.open("model.weights.h5") as inner, h5py.File(inner, "r") as weights:
                check_links(weights, path.name)
    except ModelError:
        raise
    except Exception as error:  # h5py and json raise nearly anything for a damaged file
        raise ModelError(f"{path.name} is damaged: {error!r:.200}. Save or copy it again.") from error


def code_in(config: Any) -> str | None:
    """Of the Lambda layers and serialised functions anywhere in it: their names in words, None if there are none."""
    found, waiting = [], [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if part.get("class_name") in ("Lambda", "__lambda__"):
                inner = part.get("config")
                found.append(str(inner.get("name", "")) if isinstance(inner, dict) else "")
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    names = sorted({name for name in found if name})
    return None if not found else f" ({', '.join(map(repr, names))})" if names else ""

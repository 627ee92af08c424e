"""A saved open-set classifier: one folder of data that cannot run code.

    manifest.json       format version, structure of every object, checksums of the other files and of itself
    state.safetensors   every array
    model.<ending>      the classifier itself (unless left out)

The structure is written generically: a frozen dataclass is {"kind": class name, "fields": {...}}, an array is
{"array": its name in state.safetensors}. Only classes of the list given to `read` are ever made, and those
of installed plug-ins, which are named with their package (see `detectors.plugged`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from .detectors.plugged import saved_class, saved_name
from .errors import KnownotError, SavedError, StorageError

FORMAT = 3
READ = (2, 3)  # format 2 has no checksum of the manifest itself
KEYS = {"format", "about", "files", "things", "digest"}
PLUGGED = re.compile(r"[A-Za-z0-9][\w.-]{0,200}:[A-Za-z_]\w{0,200}")  # "package:Class"
CLASSIFIER = "saved open-set classifier"
MANIFEST, STATE = "manifest.json", "state.safetensors"


def write(folder: Path, things: Mapping[str, Any], *, about: Mapping[str, Any], files: tuple[str, ...] = ()) -> None:
    """Write `things` (dataclasses, arrays and plain values, nested) and checksums of `files`, already in the folder.

    The manifest comes last and at once, so that a folder with a manifest is whole.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays: dict[str, np.ndarray] = {}
    tree = {name: _pack(thing, name, arrays) for name, thing in things.items()}
    try:
        save_file(arrays, folder / STATE)
    except SafetensorError as error:
        raise StorageError(
            f"{folder / STATE} cannot be written: {error}. Is there space, and a right to write?"
        ) from error
    manifest = {
        "format": FORMAT,
        "about": dict(about),
        "files": {name: _checksum(folder / name) for name in (STATE, *files)},
        "things": tree,
    }
    manifest["digest"] = _digest(manifest)
    draft = folder / (MANIFEST + ".new")
    draft.write_text(json.dumps(manifest, indent=1, allow_nan=False), encoding="utf-8")
    os.replace(draft, folder / MANIFEST)


def read(
    folder: Path, kinds: Mapping[str, type], holds: str = CLASSIFIER
) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """(things, about, names of the further files) of a folder written by `write`; `kinds`: classes by name.

    holds: what its "about" has to say that it is.

    Raises SavedError for a folder that is no saved classifier, another format, a missing, truncated or changed
    file, or a class that is neither in `kinds` nor of an installed plug-in.
    """
    manifest = _manifest(folder)
    try:
        files = {str(name): str(checksum) for name, checksum in manifest["files"].items()}
        about, tree = dict(manifest["about"]), dict(manifest["things"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SavedError(f"{folder / MANIFEST} is not complete: {error!r}. Save the classifier again.") from error
    if (found := about.get("holds", CLASSIFIER)) != holds:
        cure = " 'knownot merge' makes a classifier of all parts." if holds == CLASSIFIER else ""
        raise SavedError(f"{str(folder)!r} holds a {found}, not a {holds}.{cure}")
    for name, checksum in files.items():
        parts = PurePosixPath(name).parts
        if (
            not name
            or ".." in parts
            or "\\" in name
            or PureWindowsPath(name).drive
            or PurePosixPath(name).is_absolute()
        ):
            raise SavedError(f"The manifest names a file outside its folder: {name!r}. Do not use this folder.")
        if not (folder / name).is_file():
            raise SavedError(f"{folder} lacks the file {name!r}. Copy the whole folder again.")
        _check_inside(folder, name)
        if _checksum(folder / name) != checksum:
            raise SavedError(f"{folder / name} is not the file that was saved: truncated or changed. Copy it again.")
    if STATE not in files:
        raise SavedError(f"{folder / MANIFEST} is not complete: it has no checksum of {STATE}. Copy the folder again.")
    arrays = _arrays(folder / STATE)
    try:
        things = {name: _unpack(thing, arrays, kinds) for name, thing in tree.items()}
    except SavedError:  # says by itself what to do
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, KnownotError) as error:
        raise SavedError(f"{folder / MANIFEST} does not describe a saved classifier: {error!r}.") from error
    return things, about, tuple(name for name in files if name != STATE)


def digest(things: Mapping[str, Any], *more: str) -> str:
    """SHA-256 of `things` as `write` would write them: the same after saving and reading, another for any other."""
    arrays: dict[str, np.ndarray] = {}
    tree = {name: _pack(thing, name, arrays) for name, thing in things.items()}
    found = hashlib.sha256(json.dumps([tree, more]).encode())
    for name, x in arrays.items():
        found.update(f"{name} {x.dtype.str} {x.shape};".encode())
        found.update(np.ascontiguousarray(x).data.cast("B") if x.size else b"")
    return found.hexdigest()


def _manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        cure = (
            " It is a file; what 'knownot fit' or save() wrote is a folder. A classifier that is not fitted goes to "
            "knownot.fit."
            if folder.is_file()
            else ""
        )
        raise SavedError(f"There is no folder {str(folder)!r}.{cure}")
    if not (folder / MANIFEST).is_file():
        raise SavedError(f"{str(folder)!r} is no saved open-set classifier: it has no {MANIFEST}.")
    _check_inside(folder, MANIFEST)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"), parse_constant=_no_number)
        version = manifest["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SavedError(f"{folder / MANIFEST} cannot be read: {error}. Copy the folder again.") from error
    if type(version) is not int or version not in READ:
        raise SavedError(
            f"{str(folder)!r} is of format {version!r}; this knownot reads the formats {' and '.join(map(str, READ))}. "
            "Use the knownot version that saved it, or fit and save again."
        )
    if strange := manifest.keys() - KEYS:
        raise SavedError(f"{folder / MANIFEST} has the entry {min(strange)!r}, which no knownot writes. Copy it again.")
    if (version > 2 or "digest" in manifest) and manifest.get("digest") != _digest(manifest):
        raise SavedError(f"{folder / MANIFEST} is not the file that was saved: it was changed. Copy the folder again.")
    return manifest


def _digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of all of a manifest but this digest, however its JSON is laid out."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _no_number(text: str) -> float:
    raise ValueError(f"it holds {text}, which is no number")


def _check_inside(folder: Path, name: str) -> None:
    """Raises SavedError for a link, of a file or of a folder on the way to it, that leaves the folder."""
    real = (folder / name).resolve()
    if not real.is_relative_to(folder.resolve()):
        raise SavedError(
            f"{folder / name} is a link to {str(real)!r}, outside its folder. Do not use this folder, or copy it with "
            "what its links point to (cp -rL)."
        )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise SavedError(f"{path} cannot be read: {error}.") from error


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pack(thing: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(thing, np.ndarray):
        arrays[path] = np.ascontiguousarray(thing)
        return {"array": path}
    if is_dataclass(thing) and not isinstance(thing, type):
        packed = {f.name: _pack(getattr(thing, f.name), f"{path}.{f.name}", arrays) for f in fields(thing)}
        return {"kind": saved_name(type(thing)), "fields": packed}
    if isinstance(thing, tuple | list):
        return {"items": [_pack(x, f"{path}.{i}", arrays) for i, x in enumerate(thing)]}
    if isinstance(thing, Mapping):
        return {"mapping": [[k, _pack(x, f"{path}.{k}", arrays)] for k, x in thing.items()]}
    if isinstance(thing, np.generic):
        return thing.item()
    if thing is None or isinstance(thing, str | int | float | bool):
        return thing
    raise TypeError(f"{path} is a {type(thing).__name__}, which is no data to save")


def _unpack(tree: Any, arrays: Mapping[str, np.ndarray], kinds: Mapping[str, type]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        return arrays[tree["array"]]
    if "items" in tree:
        return tuple(_unpack(x, arrays, kinds) for x in tree["items"])
    if "mapping" in tree:
        return {k: _unpack(x, arrays, kinds) for k, x in tree["mapping"]}
    kind = _class(tree["kind"], kinds)
    given = {name: _unpack(x, arrays, kinds) for name, x in tree["fields"].items()}
    for f in fields(kind):
        if f.name in given and not _is_of(given[f.name], str(f.type)):
            raise TypeError(f"{tree['kind']}.{f.name} is {given[f.name]!r:.80}, no {f.type}")
    return kind(**given)


PLAIN: dict[str, tuple[type, ...]] = {
    "int": (int,), "float": (int, float), "str": (str,), "bool": (bool,), "np.ndarray": (np.ndarray,),
    "Array": (np.ndarray,), "None": (type(None),),
}  # fmt: skip


def _is_of(value: Any, said: str) -> bool:
    """Whether a value is what a field's annotation says, as far as that is a plain one; True for others."""
    if inner := re.fullmatch(r"tuple\[(\w[\w.]*), \.\.\.\]", said):
        return isinstance(value, tuple) and all(_is_of(x, inner[1]) for x in value)
    names = said.split(" | ")
    if not all(name in PLAIN for name in names):
        return True
    allowed = {kind for name in names for kind in PLAIN[name]}
    return type(value) in allowed


def _class(name: str, kinds: Mapping[str, type]) -> type:
    if name in kinds:
        return kinds[name]
    if PLUGGED.fullmatch(name):
        return saved_class(name)
    raise SavedError(
        f"The manifest does not describe a saved classifier that can be loaded here: it names the class {name!r}, "
        "which is neither knownot's own nor one of an installed plug-in. A class that you gave to fit yourself has to "
        "come from a package with an entry point of the group 'knownot.detectors'."
    )

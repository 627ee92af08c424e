"""Reading model files of torch without running code from them."""

from __future__ import annotations

import json
import threading
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...arrays import Preprocess
from ...errors import ModelError, UnsafeError
from . import program, script
from .archive import Archive, private

SAID = "knownot.json"  # what knownot writes beside the weights: names of head and stages, size, class names

ONE = threading.Lock()  # torch.export.load refuses to be at work in two threads


def read(path: Path, *, unsafe_pickle: bool) -> tuple[Any, Mapping[str, Any], str]:
    """The ExportedProgram, ScriptModule or (unsafe_pickle) nn.Module of a file, what knownot said in it, and a note.

    Told by its contents, not its ending. Raises ModelError with the cure for anything else; UnsafeError for what is
    opened with unsafe_pickle only.
    """
    if not path.is_file():
        raise ModelError(f"{path.name!r} is no file; a model file is expected (.pt2 of torch.export, or TorchScript).")
    if path.stat().st_size == 0:
        raise ModelError(f"{path.name!r} is empty (0 bytes). Copy or download the model file again.")
    try:
        with warnings.catch_warnings(), private(path) as own:
            warnings.simplefilter("ignore")
            archive = _archive(own, path.name)
            kind = _kind(archive, path.name)
            if archive is None or kind == "pickle":
                return _load_pickle(own, path.name, unsafe_pickle), {}, ""
            thing, said, foreign = (_program if kind == "program" else _script)(archive, path.name, unsafe_pickle)
            return thing, said, _note(foreign) if foreign else ""
    except ModelError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise ModelError(f"{path.name!r} cannot be read by torch {torch.__version__}: {text}") from error


def told(preprocess: Preprocess | None, **said: Any) -> str:
    """What knownot writes into a model file, as JSON."""
    return json.dumps({**said, "preprocess": vars(preprocess) if preprocess else None})


def _said(text: str | bytes) -> dict[str, Any]:
    try:
        said = json.loads(text or "{}")
    except ValueError:
        return {}
    if not isinstance(said, dict):
        return {}
    for key in ("stages", "size", "class_names"):
        said[key] = tuple(said[key]) if said.get(key) is not None else None
    if said.get("preprocess"):
        fields: Any = said["preprocess"]
        said["preprocess"] = Preprocess(**{k: _tupled(v) for k, v in fields.items()})
    return said


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _archive(path: Path, shown: str) -> Archive | None:
    """The zip archive that the file is, or None for the pickle of torch < 1.6. Raises ModelError for all else."""
    with path.open("rb") as file:
        start = file.read(8)
    if zipfile.is_zipfile(path) and start[:2] == b"PK":  # with something before the archive it would be two things
        return Archive(path, shown)
    if start[:2] == b"PK":
        raise ModelError(f"{shown!r} is cut short: it begins as a model archive and has no end. Copy it again.")
    if start[:1] == b"\x80":
        return None
    raise ModelError(
        f"{shown!r} is no model file of torch: it begins with {start!r}. Those read are torch.export (.pt2) "
        "and TorchScript files."
    )


def _kind(archive: Archive | None, shown: str) -> str:
    """ "program", "script" or "pickle"."""
    inside = [name.casefold() for name in archive.names] if archive else ["data.pkl"]
    if "archive_format" in inside or any(name.startswith("serialized_exported_program") for name in inside):
        return "program"
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        return "script"
    if "data.pkl" in inside:
        return "pickle"
    names = ", ".join(archive.whole[:5]) if archive else ""
    raise ModelError(f"{shown!r} is a zip archive, but no model file of torch. It holds: {names}.")


def _program(archive: Archive, shown: str, unsafe: bool) -> tuple[Any, Mapping[str, Any], set[str]]:
    foreign = program.refuse_code(archive, shown)
    _permitted(foreign, shown, unsafe)
    extra = {SAID: ""}
    with ONE:
        loaded = torch.export.load(str(archive.path), extra_files=extra)
    return loaded, _said(extra[SAID]), foreign


def _script(archive: Archive, shown: str, unsafe: bool) -> tuple[Any, Mapping[str, Any], set[str]]:
    foreign = script.in_source(archive)
    _permitted(foreign, shown, unsafe)
    extra = {SAID: ""}
    loaded = torch.jit.load(str(archive.path), map_location="cpu", _extra_files=extra)
    foreign |= script.in_graphs(loaded)
    _permitted(foreign, shown, unsafe)
    return loaded, _said(extra[SAID]), foreign


def _permitted(foreign: set[str], shown: str, unsafe: bool) -> None:
    """Raise UnsafeError when a file computes what is not on the list, unless that is permitted."""
    if foreign and not unsafe:
        raise UnsafeError(
            f"{shown!r} holds what is not on the list of operators that only compute: {_some(foreign)}. Such can write "
            "files or run code, so it was not opened. Export the classifier without it, or, if you trust where the "
            "file is from, pass unsafe_pickle=True (--unsafe-pickle). The list is knownot.models.torch.operators."
        )


def _note(foreign: set[str]) -> str:
    return (
        f"Opened with unsafe_pickle: it holds {_some(foreign)}. knownot.load does not open such a file from a folder; "
        "give it the classifier: load(folder, model=open_model(file, unsafe_pickle=True))."
    )


def _some(names: set[str], most: int = 5) -> str:
    return ", ".join(sorted(names)[:most]) + (" …" if len(names) > most else "")


def _load_pickle(path: Path, shown: str, unsafe_pickle: bool) -> Any:
    """The nn.Module of a pickle, if allowed. Raises ModelError for a state dict, and without permission."""
    try:
        thing = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if "nsupported" not in str(error) and "eights" not in str(error):  # not about forbidden classes: damaged
            raise
        if not unsafe_pickle:
            raise UnsafeError(
                f"{shown!r} is a pickled object. Opening it would run whatever code it holds, so it was not. "
                "Save the model as torch.export.save(torch.export.export(model, (images,)), 'model.pt2'), or, if you "
                "trust where the file is from, pass unsafe_pickle=True (--unsafe-pickle)."
            ) from error
        thing = torch.load(path, map_location="cpu", weights_only=False)
    if isinstance(thing, torch.nn.Module):
        return thing
    what = f"a {type(thing).__name__}"
    if isinstance(thing, Mapping):
        what = f"weights without a network (a state dict: {', '.join(map(str, list(thing)[:3]))} …)"
    inner = next((f"[{k!r}]" for k, v in thing.items() if isinstance(v, Mapping)), "") if what[0] == "w" else ""
    raise ModelError(
        f"{shown!r} holds {what}. Build the nn.Module in Python, load the weights into it with "
        f"model.load_state_dict(torch.load({shown!r}){inner}), and give the module (on the command line "
        "MODULE:NAME, a Python function of yours that returns it)."
    )

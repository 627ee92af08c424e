"""Reading model files of torch without running code from them."""

from __future__ import annotations

import json
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ...arrays import Preprocess
from ...errors import ModelError

SAID = "knownot.json"  # what knownot writes beside the weights: names of head and stages, size, class names


def read(path: Path, *, unsafe_pickle: bool) -> tuple[Any, Mapping[str, Any]]:
    """The ExportedProgram, ScriptModule or (unsafe_pickle) nn.Module of a file, and what knownot said in it.

    Told by its contents, not its ending. Raises ModelError with the cure for anything else.
    """
    if not path.is_file():
        raise ModelError(f"{path.name!r} is no file; a model file is expected (.pt2 of torch.export, or TorchScript).")
    if path.stat().st_size == 0:
        raise ModelError(f"{path.name!r} is empty (0 bytes). Copy or download the model file again.")
    kind = _kind(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "program":
                return _program(path)
            if kind == "script":
                extra = {SAID: ""}
                script = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
                return script, _said(extra[SAID])
            return _pickled(path, unsafe_pickle), {}
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


def _kind(path: Path) -> str:
    """ "program", "script" or "pickle"."""
    with path.open("rb") as file:
        start = file.read(8)
    if not zipfile.is_zipfile(path):
        if start[:2] == b"PK":
            raise ModelError(f"{path.name!r} is cut short: it begins as a model archive and has no end. Copy it again.")
        if start[:1] == b"\x80":  # the pickle of torch < 1.6
            return "pickle"
        raise ModelError(
            f"{path.name!r} is no model file of torch: it begins with {start!r}. Those read are torch.export (.pt2) "
            "and TorchScript files."
        )
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    inside = {name.partition("/")[2] for name in names}
    if "archive_format" in inside or any(n.startswith("serialized_exported_program") for n in names):
        return "program"
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        return "script"
    if "data.pkl" in inside:
        return "pickle"
    raise ModelError(f"{path.name!r} is a zip archive, but no model file of torch. It holds: {', '.join(names[:5])}.")


def _program(path: Path) -> tuple[Any, Mapping[str, Any]]:
    _refuse_code(path)
    extra = {SAID: ""}
    with _weights_only():
        program = torch.export.load(str(path), extra_files=extra)
    return program, _said(extra[SAID])


@contextmanager
def _weights_only() -> Iterator[None]:
    """torch.export.load falls back to full unpickling; this switch of torch's forbids it."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


# torch.export.load evaluates sizes as Python, and finds operators as a path of attributes from torch: both are strings
# of the file. What is left of a size without these words is code; an operator is one of torch.ops, or arithmetic.
EXPRESSION = re.compile(
    r"Symbol\('[a-z]+\d+'(, \w+=(True|False))*\)|[\s\d()+\-*/%,<>=!&|~]|\d\.\d|\b([suz]f?\d+|zuf\d+|Max|Min|Mod|"
    r"PythonMod|FloorDiv|CleanDiv|CeilDiv|ModularIndexing|Eq|Ne|And|Or|Not|true|false|True|False|oo|int_oo|IntTrueDiv|"
    r"FloatTrueDiv|ToFloat|TruncToInt|FloorToInt|CeilToInt|Where|PowByNatural|Integer|Float|Rational|Add|Mul|Pow|"
    r"Equality|Unequality|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|Identity)\b"
)
OPERATOR = re.compile(
    r"torch\.ops\.[A-Za-z]\w*\.\w+(\.\w+)?|_operator\.[a-z]+|math\.[a-z]+|torch\.sym_[a-z]+|torch\._check"
)
UNSAFE = re.compile(r"(^|/)data/(aotinductor/.|constants/(opaque_obj|custom_obj))")


def _refuse_code(path: Path) -> None:
    """Raise ModelError for an export file that holds compiled code, pickled objects, or strings that would run."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if UNSAFE.search(name):
                raise ModelError(f"{path.name!r} holds compiled code or pickled objects ({name}); it is not opened.")
            if name.endswith(".json"):
                for key, value in _strings(json.loads(archive.read(name) or b"{}"), ""):
                    bad = key == "expr_str" and EXPRESSION.sub("", value)
                    if bad or (key == "target" and not OPERATOR.fullmatch(value)):
                        raise ModelError(
                            f"{path.name!r} holds the {key} {value[:80]!r}, which is none of a plain exported "
                            "classifier and could run code; it is not opened."
                        )


def _strings(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, key)


def _pickled(path: Path, unsafe_pickle: bool) -> Any:
    """The nn.Module of a pickle, if allowed. Raises ModelError for a state dict, and without permission."""
    try:
        thing = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if "nsupported" not in str(error) and "eights" not in str(error):  # not about forbidden classes: damaged
            raise
        if not unsafe_pickle:
            raise ModelError(
                f"{path.name!r} is a pickled object. Opening it would run whatever code it holds, so it was not. "
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
        f"{path.name!r} holds {what}. Build the nn.Module in Python, load the weights into it with "
        f"model.load_state_dict(torch.load({path.name!r}){inner}), and give the module (on the command line "
        "MODULE:NAME, a Python function of yours that returns it)."
    )

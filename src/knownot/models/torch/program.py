"""What a torch.export file would run, looked through before torch sees it.

torch.export.load and the program's first call turn strings of the file into Python: sizes and guards are evaluated,
names become source text, operators are looked up along attributes of torch, tree specifications import modules, and
some members are unpickled. Each kind of string has to look like what it should be; a string of no kind is a name.
"""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from ...errors import ModelError
from .archive import Archive
from .operators import ALLOWED, PYTHON

# What is left of a size or a guard without these words is code.
FUNCTIONS = (
    "Max|Min|max|min|abs|Abs|round|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|ModularIndexing|Eq|Ne|And|Or|Not|and|or|not|"
    "true|false|True|False|oo|int_oo|inf|IntTrueDiv|FloatTrueDiv|ToFloat|TruncToInt|FloorToInt|CeilToInt|RoundToInt|"
    "TruncToFloat|Where|PowByNatural|FloatPow|LShift|RShift|Integer|Float|Rational|Add|Mul|Pow|Equality|Unequality|"
    "StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|Identity|floor|ceiling|"
    r"math\.(floor|ceil|trunc|sqrt|pow|inf|isnan)"
)
EXPRESSION = re.compile(
    r"Symbol\('[a-z]+\d+'(, \w+=(True|False))*\)|[\s\d()+\-*/%,<>=!&|~]|\d\.\d|\b([suz]f?\d+|zuf\d+|"
    + FUNCTIONS
    + r")\b"
)
GUARD = re.compile(
    r"L(\['\w+'\]|\[\d+\])+(\.(size|stride)\(\)\[\d+\]|\.storage_offset\(\))?|[\s\d()+\-*/%,<>=!&|~]|\d\.\d|\b("
    + FUNCTIONS
    + r")\b",
    re.ASCII,
)
NAME = re.compile(r"\w*", re.ASCII)  # of a node, an argument: it becomes Python as it is
PATH = re.compile(r"[^\"'\\\x00-\x1f\x7f]*")  # of a layer or a weight: it becomes the text of a Python string
FREE = {
    "as_string",
    "as_strings",
    "stack_trace",
    "nn_module_stack",
    "source_fn_stack",
    "torch_fn",
    "from_node",
    "custom",
}
NODES = {"name", "as_name", "forward_arg_names", "in_spec", "import"}
UNSAFE = re.compile(r"(^|/)data/(aotinductor/.|constants/(opaque_obj|custom_obj))", re.IGNORECASE)
PICKLES = re.compile(r".*\.pt|serialized_(state_dict|constants|example_inputs)\.\w+", re.IGNORECASE | re.DOTALL)


def refuse_code(archive: Archive, shown: str) -> set[str]:
    """The operators of a torch.export archive that are not on the list.

    Raises ModelError when it holds compiled code, a pickle of more than tensors, or a string that would run.
    """
    foreign: set[str] = set()
    for name in archive.names:
        if UNSAFE.search(name):
            raise ModelError(f"{shown!r} holds compiled code or pickled objects ({name}); it is not opened.")
        low = name.casefold()
        if PICKLES.fullmatch(name):
            _refuse_pickle(archive.read(name), name, shown)
        elif low.startswith(("models/", "serialized_exported_program")) or low.endswith("_config.json"):
            if not archive.agrees(name):
                raise ModelError(f"{shown!r} shows {name} differently to different readers; it is not opened.")
            for key, value in _strings(json.loads(archive.read(name) or b"{}"), ""):
                foreign |= _foreign(key, value, shown)
    return foreign


def _refuse_pickle(data: bytes, name: str, shown: str) -> None:
    """torch.export.load unpickles in full what it cannot read as tensors alone."""
    if not data:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"{shown!r} cannot be read: its member {name} is damaged, or holds pickled objects beside tensors, which "
            "could run code."
        ) from error


def _foreign(key: str, value: Any, shown: str) -> set[str]:
    """The operator named here if it is not on the list. Raises ModelError for what is no operator, name or size."""
    if key in ("target", "as_operator"):
        operator = re.fullmatch(r"torch\.ops\.([A-Za-z]\w*)\.(\w+)(\.\w+)?", value, re.ASCII)
        if operator:
            name = f"{operator[1]}::{operator[2]}"
            return set() if name in ALLOWED else {name}
        fine = value in PYTHON
    elif key == "expr_str":
        fine = not EXPRESSION.sub("", value)
    elif key == "guards_code":
        fine = not GUARD.sub("", value)
    elif key == "use_pickle":
        fine = value is False
    elif key in NODES:
        fine = NAME.fullmatch(value) is not None
    else:
        fine = key in FREE or PATH.fullmatch(value) is not None
    if not fine:
        raise ModelError(
            f"{shown!r} holds the {key or 'name'} {str(value)[:80]!r}, which is none of a plain exported "
            "classifier and could run code; it is not opened."
        )
    return set()


def _strings(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every string of a JSON value, names of fields too, with the name of the field that it is in."""
    if key in ("in_spec", "out_spec") and isinstance(value, str):
        yield from _spec(json.loads(value), key)
    elif isinstance(value, str) or key == "use_pickle":
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield "", name
            yield from _strings(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, key)


def _spec(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The strings of a tree specification: types, and keys of dicts, which in the input's are names of arguments."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in ("__enum__", "default_factory_module"):  # these import a module
                yield "import", f"{name}: {inner}"
            elif name == "context" and isinstance(inner, str):
                yield from _spec(_parsed(inner), key)
            elif name != "type":
                yield from _spec(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _spec(inner, key)
    elif isinstance(value, str):
        yield ("in_spec" if key == "in_spec" else "keys of the output"), value


def _parsed(context: str) -> Any:
    try:
        return json.loads(context)
    except ValueError:
        return context  # the name of a type

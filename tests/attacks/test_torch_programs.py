"""torch.export files whose operators, strings or members would write a file or run code: refused, nothing run."""

import contextlib
import io
import json
import os
import threading
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._export.serde.schema import SCHEMA_VERSION as SCHEMA

from helpers.torch_files import BEFORE, Net, argument, changed, exported, mapping, nodes, pickled, refused
from knownot.errors import KnownotError, ModelError
from knownot.models import open_model
from knownot.models.torch import files


class Branches(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cond(x.sum() > 0, lambda x: x.relu(), lambda x: x.abs(), (self.conv(x),))
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("kind", [Net, Branches])
def test_programs_with_an_operator_that_writes(kind, victim, tmp_path):
    refused(tmp_path / "m.pt2", mapping(victim, kind), victim, "holds what is not on the list.*aten::from_file")
    with contextlib.suppress(KnownotError):  # its sizes are wrong; the file is written all the same
        open_model(tmp_path / "m.pt2", unsafe_pickle=True)
    assert kind is Branches or victim.read_bytes() != BEFORE  # the proof that it would have written


def test_the_unedited_programs_open(tmp_path):
    for kind in (Net, Branches):
        (tmp_path / "m.pt2").write_bytes(exported(kind))
        assert files.read(tmp_path / "m.pt2", unsafe_pickle=False)[2] == ""
    (tmp_path / "m.pt2").write_bytes(exported())
    assert open_model(tmp_path / "m.pt2").capabilities.classes == 4


def call(function: str) -> Callable[[dict[str, Any]], None]:
    def edit(program: dict[str, Any]) -> None:
        node = next(n for n in nodes(program) if n["target"] == "torch.ops.aten.relu.default")
        node["target"] = "_operator.call" if function != "cond" else "torch.ops.higher_order.cond"
        node["inputs"] = [argument("", as_operator="torch.os.system"), argument("", as_string="touch MARK")]

    return edit


def signature(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda program: program["graph_module"]["module_call_graph"][0]["signature"].update(fields)


def spec(context: Any, kind: str) -> str:
    return json.dumps([1, {"type": kind, "context": context, "children_spec": []}])


def rename(program: dict[str, Any]) -> None:
    node = next(n for n in nodes(program) if n["target"] == "torch.ops.aten.relu.default")
    node["name"] = f"relu = {TOUCH}; y"


def weight(program: dict[str, Any]) -> None:
    first = next(s for s in program["graph_module"]["signature"]["input_specs"] if "parameter" in s)
    first["parameter"]["parameter_name"] = f'a"), {TOUCH}, str("'


FACTORY = {"default_factory_module": "m", "default_factory_name": "x", "dict_context": []}
TOUCH = "__import__('pathlib').Path('MARK').touch()"
STRINGS = {
    "guards": (lambda p: p.update(guards_code=[f"{TOUCH} is None"]), "guards_code"),
    "guards, hidden": (lambda p: p.update(guards_code=["L['x'].size.__self__ is None"]), "guards_code"),
    "guards, quotes": (lambda p: p.update(guards_code=["L['x\"']"]), "guards_code"),
    "a function": (call("call"), "target '_operator.call'"),
    "an operator as an argument": (call("cond"), "as_operator 'torch.os.system'"),
    "names of arguments": (signature(forward_arg_names=[f"x={TOUCH}"]), "forward_arg_names"),
    "keys of the input": (signature(in_spec=spec(json.dumps([TOUCH]), "builtins.dict")), "in_spec"),
    "enum": (signature(out_spec=spec('[{"__enum__": true, "fqn": "m:X", "name": "x"}]', "builtins.dict")), "import"),
    "factory": (signature(out_spec=spec(FACTORY, "collections.defaultdict")), "import"),
    "name of a node": (rename, "name"),
    "name of a weight": (weight, "parameter_name"),
}  # fmt: skip


@pytest.mark.parametrize("where", STRINGS)
def test_strings_that_become_python(where, victim, tmp_path):
    edit, match = STRINGS[where]
    data = exported(edit=edit)
    mark = tmp_path / "mark"
    data = changed(data, lambda n, d: d.replace(b"MARK", str(mark).encode()) if n.endswith("model.json") else d)
    for options in ({}, {"unsafe_pickle": True}):  # the switch is for operators
        (tmp_path / "m.pt2").write_bytes(data)
        with pytest.raises(ModelError, match=f"holds the {match}.*could run code"):
            open_model(tmp_path / "m.pt2", **options)
    assert not mark.exists()


# -- archives that show different things to different readers, or at different times ----------------------------------


def test_what_is_checked_is_what_is_loaded(tmp_path, monkeypatch):
    """The file is replaced between the two."""
    path, mark = tmp_path / "m.pt2", tmp_path / "mark"
    hostile = changed(exported(), lambda n, d: pickled(mark) if "sample_inputs" in n else d)
    path.write_bytes(exported())
    check = files.program.refuse_code

    def swapped(*given: Any) -> set[str]:
        found = check(*given)
        path.write_bytes(hostile)
        return found

    monkeypatch.setattr(files.program, "refuse_code", swapped)
    assert open_model(path).capabilities.classes == 4
    assert not mark.exists()
    monkeypatch.undo()
    with pytest.raises(ModelError, match="pickled objects"):
        open_model(path)


def test_two_threads_at_once(tmp_path, monkeypatch):
    """No guard is a variable of the process: each thread's file is looked through for itself."""
    marks = [tmp_path / f"mark{i}" for i in range(4)]
    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    monkeypatch.delenv(switch, raising=False)
    before, seen, refusals = dict(os.environ), [], []
    refused_all = threading.Event()
    load = torch.export.load

    def waiting(*args: Any, **kwargs: Any) -> Any:
        seen.append(os.environ.get(switch))
        refused_all.wait(timeout=30)  # the other threads open theirs while this one is at it
        return load(*args, **kwargs)

    monkeypatch.setattr(torch.export, "load", waiting)

    def run(i: int) -> None:
        try:
            files.read(tmp_path / f"{i}.pt2", unsafe_pickle=False)
        except ModelError as error:
            refusals.append(str(error))
            if len(refusals) == 2:
                refused_all.set()

    for i, mark in enumerate(marks):
        data = exported()
        hostile = changed(data, lambda n, d, mark=mark: pickled(mark) if "sample_inputs" in n else d)
        (tmp_path / f"{i}.pt2").write_bytes(hostile if i % 2 else data)
    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refusals) == 2
    assert all("pickled objects" in text for text in refusals)
    assert not any(mark.exists() for mark in marks)
    assert seen == [None, None]
    assert dict(os.environ) == before


def added(archive: bytes, *names: str) -> bytes:
    out = io.BytesIO(archive)
    with zipfile.ZipFile(out, "a") as new, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the same name twice
        for name in names:
            new.writestr(name, b"{}")
    return out.getvalue()


def test_members_that_readers_disagree_on(tmp_path, victim):
    good, path = exported(), tmp_path / "m.pt2"
    root = zipfile.ZipFile(io.BytesIO(good)).namelist()[0].partition("/")[0]
    for name, match in {
        f"{root}/models/model.json": "twice",
        f"{root}/models/MODEL.JSON": "twice",
        f"{root}/../x": "odd name",
        "/etc/x": "odd name",
        f"{root}/a\\b": "odd name",
        f"{root}/mod\u00e8le": "odd name",
        "elsewhere/x": "readers|not in a subdirectory",
    }.items():
        refused(path, added(good, name), victim, match, ModelError)
    refused(path, b"x" * 100 + good, victim, "no model file of torch", ModelError)


def test_two_tables_of_contents(tmp_path, victim):
    """Python takes the table before the end of the file; torch takes the one that the end names."""
    good, bad = exported(), mapping(victim)
    at, end = bad.rindex(b"PK\x05\x06"), good.rindex(b"PK\x05\x06")
    other = good[int.from_bytes(good[end + 16 : end + 20], "little") : end]
    ending = bad[at:]
    assert len(other) == int.from_bytes(ending[12:16], "little")
    refused(tmp_path / "m.pt2", bad[:at] + other + ending, victim, "aten::from_file|readers|cannot be read", ModelError)
    other = other.replace(b"byteorder", b"byteolder")
    refused(tmp_path / "m.pt2", bad[:at] + other + ending, victim, "different members to different readers", ModelError)


def test_the_old_format_of_exported_programs(tmp_path, victim):
    """torch 2.6 wrote the members side by side, three of them pickles."""

    def old(state: bytes, edit: Callable[[dict[str, Any]], None] | None = None) -> bytes:
        out, inside = io.BytesIO(), zipfile.ZipFile(io.BytesIO(exported(edit=edit)))
        program = next(inside.read(n) for n in inside.namelist() if n.endswith("model.json"))
        with zipfile.ZipFile(out, "w") as new:
            new.writestr("serialized_exported_program.json", program)
            new.writestr("serialized_state_dict.pt", state)
            new.writestr("serialized_constants.pt", saved({}))
            new.writestr("serialized_example_inputs.pt", saved(((torch.rand(2, 3, 16, 16),), {})))
            new.writestr("version", f"{SCHEMA[0]}.{SCHEMA[1]}")
        return out.getvalue()

    def saved(thing: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(thing, buffer)
        return buffer.getvalue()

    path, mark = tmp_path / "m.pt2", tmp_path / "mark"
    weights = saved(dict(Net().named_parameters()))
    path.write_bytes(old(weights))
    assert open_model(path).capabilities.classes == 4
    refused(path, old(pickled(mark)), victim, "serialized_state_dict.pt is damaged, or holds pickled", ModelError)
    refused(path, old(weights, STRINGS["guards"][0]), victim, "guards_code", ModelError)
    assert not mark.exists()

"""Files that are no classifier of torch, or are one with something hidden in it: each a clear error, no code run."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from knownot.errors import KnownotError, ModelError
from knownot.models import open_model


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def pt2() -> bytes:
    program = torch.export.export(
        Net().eval(), (torch.rand(2, 3, 16, 16),), dynamic_shapes=({0: torch.export.Dim.AUTO},)
    )
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def script() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Net().eval()), buffer)
    return buffer.getvalue()


def saved(thing: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer, **options)
    return buffer.getvalue()


def changed(archive: bytes, change: Callable[[str, bytes], bytes | None], **added: bytes) -> bytes:
    """The archive with each member made anew by `change(name, data)`; None leaves it out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
        for name, data in added.items():
            new.writestr(f"{root}/{name}", data)
    return out.getvalue()


def in_graph(archive: bytes, edit: Callable[[str], str]) -> bytes:
    return changed(archive, lambda name, data: edit(data.decode()).encode() if name.endswith("model.json") else data)


def refused(path: Path, data: bytes, match: str, **options: object) -> None:
    path.write_bytes(data)
    with pytest.raises(ModelError, match=match) as caught:
        open_model(path, **options)
    assert path.name in str(caught.value)


def test_the_unchanged_files_open(pt2, script, tmp_path):
    for name, data in {"a.pt2": pt2, "b.pt2": changed(pt2, lambda n, d: d), "c.pt": script, "d.pt2": script}.items():
        (tmp_path / name).write_bytes(data)
        model = open_model(tmp_path / name, size=(16, 16))  # told by the contents, whatever the ending
        assert model.capabilities.classes == 3
        assert model.activations(np.zeros((2, 3, 16, 16), np.float32)).features.shape == (2, 4)


@pytest.mark.parametrize("ending", [".pt2", ".pt", ".pth", ".ts", ".th"])
def test_empty_garbage_and_text(ending, tmp_path):
    path = tmp_path / f"m{ending}"
    refused(path, b"", "empty")
    refused(path, np.random.default_rng(0).bytes(5000), "no model file of torch")
    refused(path, b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer")
    refused(path, b"PK\x03\x04" + b"\0" * 100, "cut short")


def test_a_folder_and_nothing(tmp_path):
    (tmp_path / "folder.pt2").mkdir()
    with pytest.raises(ModelError, match="is a folder without"):
        open_model(tmp_path / "folder.pt2")
    with pytest.raises(ModelError, match="no file"):
        open_model(tmp_path / "nothing.pt2")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files(share, pt2, script, tmp_path):
    for name, data in {"a.pt2": pt2, "b.pt": script, "c.pt": saved(Net().state_dict())}.items():
        refused(tmp_path / name, data[: int(share * len(data))], "cut short|cannot be read")


def test_another_zip_archive(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("word/document.xml", "<w/>")
    refused(tmp_path / "m.pt2", out.getvalue(), "no model file of torch. It holds: word/document.xml")


def test_members_missing_or_damaged(pt2, script, tmp_path):
    refused(tmp_path / "m.pt2", changed(pt2, lambda n, d: None if "weight_0" in n else d), "cannot be read")
    refused(tmp_path / "m.pt2", changed(pt2, lambda n, d: None if n.endswith("model.json") else d), "cannot be read")
    refused(tmp_path / "m.pt2", in_graph(pt2, lambda text: text[:500]), "cannot be read")
    refused(tmp_path / "m.pt2", changed(pt2, lambda n, d: d[:3] if "weight_0" in n else d), "cannot be read")
    refused(tmp_path / "m.pt", changed(script, lambda n, d: None if "/code/" in n else d), "cannot be read")


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}], ids=["bare", "checkpoint"])
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_without_a_network(wrap, zipped, tmp_path):
    data = saved(wrap(Net().state_dict()), _use_new_zipfile_serialization=zipped)
    for options in ({}, {"unsafe_pickle": True}):
        refused(tmp_path / "m.pth", data, r"weights without a network.*model.load_state_dict", **options)


def test_a_tensor_and_a_list(tmp_path):
    refused(tmp_path / "m.pt", saved(torch.rand(3)), "holds a Tensor")
    refused(tmp_path / "m.pt", saved([1, 2]), "holds a list")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module_runs_only_with_permission(zipped, tmp_path):
    mark = tmp_path / "ran"
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    module.bomb = Bomb(mark)
    data = saved(module, _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "m.pt", data, r"pickled object.*torch.export.save.*unsafe_pickle=True")
    assert not mark.exists()
    model = open_model(tmp_path / "m.pt", unsafe_pickle=True)
    assert mark.exists()  # the proof that the file would have run something
    assert model.capabilities.classes == 3
    assert model.save(tmp_path / "saved") == "model.pt2"  # never a pickle again


def test_a_plain_pickle_does_not_run(tmp_path):
    mark = tmp_path / "ran"
    refused(tmp_path / "m.pt", pickle.dumps(Bomb(mark), protocol=2), "pickled object|cannot be read")
    refused(tmp_path / "m.pt", pickle.dumps([Bomb(mark)], protocol=4), "pickled object|cannot be read")
    assert not mark.exists()


# torch.export.load evaluates strings of the file, and unpickles members of it.


def expression(text: str, code: str) -> str:
    graph = json.loads(text)

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if "expr_str" in value:
                value["expr_str"] = code
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(graph)
    return json.dumps(graph)


@pytest.mark.parametrize(
    "code",
    ["__import__('pathlib').Path({mark!r}).touch()", "s0.__class__", "exec(chr(49))", "[x for x in s0]", "lambda: 0"],
)
def test_sizes_that_are_code(code, pt2, tmp_path):
    mark = tmp_path / "ran"
    text = code.format(mark=str(mark))
    refused(tmp_path / "m.pt2", in_graph(pt2, lambda graph: expression(graph, text)), "expr_str.*could run code")
    assert not mark.exists()


@pytest.mark.parametrize(
    "target",
    ["torch.os.system", "torch.hub.load", "torch.ops.load_library", "_operator.__class__", "math.__loader__.x"],
)
def test_operators_that_are_none(target, pt2, tmp_path):
    data = in_graph(pt2, lambda graph: graph.replace("torch.ops.aten.relu.default", target))
    refused(tmp_path / "m.pt2", data, f"target {target!r}.*could run code")


@pytest.mark.parametrize(
    "member", ["data/constants/opaque_obj_0", "data/constants/custom_obj_0", "data/aotinductor/m/m.so"]
)
def test_members_that_are_code(member, pt2, tmp_path):
    mark = tmp_path / "ran"
    data = changed(pt2, lambda n, d: d, **{member: pickle.dumps(Bomb(mark))})
    refused(tmp_path / "m.pt2", data, "compiled code or pickled objects")
    assert not mark.exists()


def test_weights_that_are_pickles_do_not_run(pt2, tmp_path):
    """torch.export.load would unpickle them in full."""
    mark = tmp_path / "ran"

    def change(name: str, data: bytes) -> bytes:
        if name.endswith("weights_config.json"):
            config = json.loads(data)
            for entry in config["config"].values():
                entry["use_pickle"] = True
            return json.dumps(config).encode()
        return saved(Bomb(mark)) if "/weights/weight_" in name else data

    refused(tmp_path / "m.pt2", changed(pt2, change), "holds the use_pickle")
    refused(
        tmp_path / "m.pt2",
        changed(pt2, lambda n, d: saved(Bomb(mark)) if "sample_inputs" in n else d),
        "pickled objects",
    )
    assert not mark.exists()


def test_what_knownot_wrote_into_a_file_is_not_trusted(pt2, tmp_path):
    for said in (
        b"[1]",
        b"{",
        b'{"head": "nothing"}',
        b'{"stages": 3}',
        b'{"size": "ab"}',
        b'{"preprocess": {"x": 1}}',
    ):
        (tmp_path / "m.pt2").write_bytes(changed(pt2, lambda n, d: d, **{"extra/knownot.json": said}))
        with contextlib.suppress(KnownotError):  # no other exception
            open_model(tmp_path / "m.pt2")

"""Model files of torch that would write a file, and what is done with them."""

import io
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from knownot.errors import UnsafeError
from knownot.models import open_model

BEFORE = b"not to be touched"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))


# The file to be written is VICTIM in the source; `compiled` puts the real path there.


class Maps(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        file = torch.from_file("VICTIM", True, 9, dtype=torch.uint8)
        file.copy_(torch.full([9], 65, dtype=torch.uint8))
        return self.fc(self.conv(x).relu().mean((2, 3))) + 0 * file.sum()


class Prints(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("VICTIM")
        return self.fc(self.conv(x).relu().mean((2, 3)))


def compiled(kind: type[nn.Module], victim: Path, edit: Callable[[str], str] = str) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(kind().eval()), buffer)
    return changed(
        buffer.getvalue(),
        lambda name, data: edit(data.decode()).replace("VICTIM", str(victim)).encode() if name[-3:] == ".py" else data,
    )


def changed(archive: bytes, change: Callable[[str, bytes], bytes], rename: Callable[[str], str] = str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(rename(name), change(name, old.read(name)))
    return out.getvalue()


def exported(kind: type[nn.Module] = Net, edit: Callable[[dict[str, Any]], None] | None = None) -> bytes:
    """The .pt2, its graph edited."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.cond's own
        torch.export.save(torch.export.export(kind().eval(), (torch.rand(2, 3, 16, 16),)), buffer)

    def change(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json") or edit is None:
            return data
        program = json.loads(data)
        edit(program)
        return json.dumps(program).encode()

    return changed(buffer.getvalue(), change)


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "target" in value:
            yield value
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def argument(name: str, **value: Any) -> dict[str, Any]:
    return {"name": name, "arg": value, "kind": 1}


def mapping(victim: Path, kind: type[nn.Module] = Net) -> bytes:
    """A .pt2 whose relu is a from_file that makes the file longer."""

    def edit(program: dict[str, Any]) -> None:
        node = next(n for n in nodes(program) if n["target"] == "torch.ops.aten.relu.default")
        node["target"] = "torch.ops.aten.from_file.default"
        node["inputs"] = [
            argument("filename", as_string=str(victim)),
            argument("shared", as_bool=True),
            argument("size", as_int=64),
        ]

    return exported(kind, edit)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def pickled(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Bomb(mark), buffer)
    return buffer.getvalue()


def refused(path: Path, data: bytes, victim: Path, match: str, kind: type[Exception] = UnsafeError) -> None:
    path.write_bytes(data)
    with pytest.raises(kind, match=match) as caught:
        open_model(path, size=(16, 16))
    assert path.name in str(caught.value)
    assert victim.read_bytes() == BEFORE

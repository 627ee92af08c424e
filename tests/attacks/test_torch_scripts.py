"""TorchScript files whose operators or source would write a file: refused by name, nothing written."""

import contextlib
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from helpers.torch_files import BEFORE, Maps, Net, Prints, changed, compiled, refused
from knownot.errors import KnownotError
from knownot.models import open_model
from knownot.models.torch import script as looked
from knownot.models.torch.operators import ALLOWED

# The file to be written is VICTIM in the source; `compiled` puts the real path there.


def strike() -> torch.Tensor:
    return torch.from_file("VICTIM", True, 9, dtype=torch.uint8).fill_(65).sum().float()


class Striker:
    def __init__(self) -> None:
        self.times = 1

    def strike(self) -> torch.Tensor:
        return torch.from_file("VICTIM", True, 9, dtype=torch.uint8).fill_(65).sum().float()

    def __lt__(self, other: "Striker") -> bool:
        return bool(torch.from_file("VICTIM", True, 9, dtype=torch.uint8).fill_(65).sum() > 0)

    def __enter__(self):
        self.times = int(torch.from_file("VICTIM", True, 9, dtype=torch.uint8).fill_(65).sum())

    def __exit__(self, type: Any, value: Any, tb: Any):
        pass


class Saves(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "VICTIM")
        return self.fc(self.conv(x).relu().mean((2, 3)))


class Helper(nn.Module):
    def deep(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(x.size(1)):
            if i == 1:
                x = x + 0 * torch.from_file("VICTIM", True, 9, dtype=torch.uint8).fill_(65).sum()
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.deep(x)


class Nested(Net):
    def __init__(self) -> None:
        super().__init__()
        self.helper = Helper()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.helper(self.conv(x).relu()).mean((2, 3)))


class ByFunction(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3))) + 0 * strike()


class ByClass(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3))) + 0 * Striker().strike()


class BySorting(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3))) + 0 * len(sorted([Striker(), Striker()]))


class ByWith(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with Striker():
            x = self.conv(x)
        return self.fc(x.relu().mean((2, 3)))


def strike_beside(x: torch.Tensor) -> torch.Tensor:
    return 0 * x + torch.from_file("VICTIM", True, 9, dtype=torch.uint8).fill_(65).sum()


class ByFork(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).relu().mean((2, 3))
        return self.fc(torch.jit.wait(torch.jit.fork(strike_beside, x)))


class Aside(Net):
    @torch.jit.export
    def other(self) -> torch.Tensor:
        return strike()


class Seeds(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return self.fc(self.conv(x).relu().mean((2, 3)))


COMPILED = {
    Maps: "aten::from_file",
    Saves: "aten::save",
    Prints: "prim::Print",
    Nested: "aten::from_file",
    ByFunction: "aten::from_file",
    ByClass: "aten::from_file",
    BySorting: "aten::from_file",
    ByWith: "aten::from_file",
    ByFork: "aten::from_file",
    Aside: "aten::from_file",
    Seeds: "aten::manual_seed",
}
UNTIL = {Maps, Saves, Nested, ByFunction, ByClass, BySorting, ByWith, ByFork}  # those write when they are run


@pytest.mark.parametrize("kind", COMPILED, ids=lambda k: k.__name__)
def test_torchscript_that_does_more_than_compute(kind, victim, tmp_path):
    data = compiled(kind, victim)
    refused(tmp_path / "m.pt", data, victim, f"holds what is not on the list.*{COMPILED[kind]}.*unsafe_pickle=True")
    model = open_model(tmp_path / "m.pt", size=(16, 16), unsafe_pickle=True)
    assert any(COMPILED[kind] in note and "load(folder, model=" in note for note in model.notes)
    assert (victim.read_bytes() != BEFORE) == (kind in UNTIL)  # the proof that it would have written


@pytest.mark.parametrize("kind", COMPILED, ids=lambda k: k.__name__)
def test_each_graph_is_refused_also_where_the_source_passes(kind, victim, tmp_path, monkeypatch):
    """Two locks: the second one, on the graphs as torch compiled them, holds alone."""
    monkeypatch.setattr(looked, "in_source", lambda archive: set())
    names = {BySorting: "aten::sorted? by a method", ByWith: "prim::Enter"}  # called by the operator: not inlined
    refused(tmp_path / "m.pt", compiled(kind, victim), victim, names.get(kind, COMPILED[kind]))


@pytest.mark.parametrize("kind", COMPILED, ids=lambda k: k.__name__)
def test_the_source_is_refused_before_it_is_loaded(kind, victim, tmp_path, monkeypatch):
    """The first lock holds alone too."""
    monkeypatch.setattr(torch.jit, "load", None)
    refused(tmp_path / "m.pt", compiled(kind, victim), victim, COMPILED[kind])


STRIKE = 'torch.fill_(torch.from_file("VICTIM", True, 1, dtype=0), 65)'
NAMED = "aten::from_file"

# (what stands in the source, what stands there instead, the name in the message): run by torch.jit.load itself.
LOADING = {
    "default argument": ("x: Tensor)", f"x: Tensor, y: int=int(torch.item({STRIKE})))", NAMED),
    "constant of a class": (
        "  training : bool",
        f"  k : Final[int] = int(torch.item({STRIKE}))\n  training : bool",
        NAMED,
    ),
    "state": (
        "  def forward(",
        "  def __getstate__(self: __torch__.NAME) -> Dict[str, Tensor]:\n    return annotate(Dict[str, Tensor], {})\n"
        "  def __setstate__(self: __torch__.NAME,\n    s: Dict[str, Tensor]) -> NoneType:\n"
        f"    self.training = bool(torch.item({STRIKE}))\n    return None\n  def forward(",
        NAMED,
    ),
}
# Ways to write an operator's name that a search for it could miss.
HIDDEN = {
    "comment in the name": ("y: int=int(torch.item({}))", STRIKE.replace("torch.from", "torch.  # a\n  from"), NAMED),
    "line break in the name": ("y: int=int(torch.item({}))", STRIKE.replace("torch.from", "torch\n  .\n from"), NAMED),
    "getattr": ("y: int=int(torch.item({}))", STRIKE.replace("torch.from_file", 'getattr(torch, "from_file")'), NAMED),
    "getattr, escaped": (
        "y: int=int(torch.item({}))", STRIKE.replace("torch.from_file", 'getattr(torch, "from\\137file")'), "getattr",
    ),
    "self is another": (
        'y: int=0) -> int:\n    for self, i in zip(["VICTIM"], [1]):\n      self.from_file(True, 1)\n    return 1\n'
        "  def last(self: __torch__.NAME", "", NAMED,
    ),
    "in another namespace": ("y: int=int(torch.item({}))", STRIKE.replace("torch.from", "ops.aten.from"), NAMED),
    "of no known namespace": ('y: int=ops.mine.run("VICTIM")', "", "mine::run"),
    "namespace by another name": ("y: int=int(torch.item((ops).aten.from_file('VICTIM', True, 1)))", "", "ops"),
    "objects of C++": ("y: int=__torch__.torch.classes.c10d.Work().x()", "", "__torch__.torch.classes.c10d.Work"),
    "objects of C++, by another name": ("y: int=(__torch__.torch).classes.c10d.Work().x()", "", "__torch__.torch"),
}  # fmt: skip


@pytest.mark.parametrize("attack", [*LOADING, *HIDDEN])
def test_source_that_loading_runs(attack, victim, tmp_path):
    def edit(text: str) -> str:
        if "class Net(" not in text:
            return text
        where = text.partition("self: __torch__.")[2].partition(",")[0]
        old, new, _ = LOADING.get(attack, ("x: Tensor)", "", ""))
        if attack in HIDDEN:
            new = "x: Tensor, " + HIDDEN[attack][0].format(HIDDEN[attack][1]) + ")"
        assert old in text
        return text.replace(old, new, 1).replace("NAME", where)

    data = compiled(Net, victim, edit)
    refused(tmp_path / "m.pt", data, victim, (LOADING | HIDDEN)[attack][2])
    if attack in LOADING:
        with contextlib.suppress(KnownotError):
            open_model(tmp_path / "m.pt", size=(16, 16), unsafe_pickle=True)
        assert victim.read_bytes() != BEFORE  # the proof that loading alone would have written


def test_a_member_in_another_case_is_looked_through(victim, tmp_path, monkeypatch):
    """torch finds `code/x.py` under `CODE/X.PY`."""
    monkeypatch.setattr(looked, "in_graphs", lambda script: set())
    data = changed(compiled(Maps, victim), lambda n, d: d, lambda n: n.replace("code/", "CODE/").replace(".py", ".PY"))
    refused(tmp_path / "m.pt", data, victim, NAMED)


def test_objects_of_other_c_classes_are_refused(victim, tmp_path):
    for name in (b"torch.classes.c10d\nWork", b"torch\nclasses.c10d.Work", b"torch.classes\nc10d.Work"):
        data = changed(
            compiled(Net, victim), lambda n, d, name=name: d[:2] + b"c__torch__." + name + b"\n0" + d[2:]
            if n.endswith("data.pkl") else d,
        )  # fmt: skip
        refused(tmp_path / "m.pt", data, victim, "objects of torch.classes")


def test_python_operators_are_refused():
    """torch cannot save them; a graph in memory shows that the second lock knows them."""

    class Calls(Net):
        @torch.jit.ignore
        def outside(self, x: torch.Tensor) -> torch.Tensor:
            return x

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.outside(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.script(Calls())
    assert looked.foreign(module.inlined_graph) == {"prim::PythonOp"}
    assert looked.in_graphs(module) == {"prim::PythonOp"}


def test_what_is_on_the_list():
    out = [
        "from_file",
        "save",
        "manual_seed",
        "seed",
        "set_",
        "set_data",
        "resize_",
        "record_stream",
        "backward",
        "_print",
        "set_grad_enabled",
    ]
    assert not {f"aten::{name}" for name in out} & ALLOWED
    assert not {f"prim::{name}" for name in ("Print", "PythonOp", "CallFunction", "Enter", "rpc_sync")} & ALLOWED
    assert {name.partition("::")[0] for name in ALLOWED} == {
        "aten", "prim", "prims", "quantized", "quantized_decomposed", "higher_order",
    }  # fmt: skip
    known = {schema.name for schema in torch._C._jit_get_all_schemas()}
    assert len({n for n in ALLOWED if n.startswith("aten::")} - known) < 5  # names of another torch, no misspelt ones


def test_ordinary_names_are_no_operators(tmp_path, victim):
    """A layer called `save` or `resize` is no operator of that name."""

    class Named(Net):
        def __init__(self) -> None:
            super().__init__()
            self.save, self.resize, self.set = nn.ReLU(), nn.Upsample(scale_factor=2.0), 3

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.dim() == 4, "no print, no save, no set"
            return self.fc(self.save(self.conv(self.resize(x))).mean((2, 3))) * self.set

    (tmp_path / "m.pt").write_bytes(compiled(Named, victim))
    assert open_model(tmp_path / "m.pt", size=(16, 16)).capabilities.classes == 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(Named().eval(), torch.rand(2, 3, 16, 16)), tmp_path / "t.pt")
    assert open_model(tmp_path / "t.pt", size=(16, 16)).capabilities.classes == 4

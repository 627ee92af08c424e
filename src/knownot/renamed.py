"""Names that have changed: an old one works in this version, with a DeprecationWarning that names the new one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "audit.helping": "audit.recommendations",
    "audit.look": "audit.notes",
    "audit.strange": "audit.unknown_images",
    "arena": "selection.scoreboard",
    "choosing": "selection.choice",
    "classifier": "openset.classifier",
    "evidence": "selection.diagnostics",
    "fooling.chain": "fooling.pixels",
    "fooling.sight": "fooling.objective",
    "gallery": "fitting.thumbnails",
    "images.ahead": "images.prefetch",
    "images.apart": "images.disjoint",
    "images.kinds": "images.file_types",
    "images.numbers": "images.image_arrays",
    "images.quiet": "images.silence",
    "images.ready": "images.model_input",
    "images.rows": "images.batching",
    "modelfile": "models.reopen",
    "models.folder": "models.saved",
    "models.onnx_file": "models.onnx.file",
    "models.onnx_graph": "models.onnx.graph",
    "models.onnx_head": "models.onnx.head",
    "models.onnx_input": "models.onnx.inputs",
    "models.onnx_look": "models.onnx.probe",
    "models.onnx_stages": "models.onnx.stages",
    "preprocessing": "fitting.preprocessing",
    "remedies.adversarial": "remedies.methods.discriminator",
    "remedies.against": "remedies.training.adversary",
    "remedies.beside": "remedies.methods.none_head",
    "remedies.comparing": "remedies.comparison.compare",
    "remedies.data": "remedies.training.data",
    "remedies.frameworks": "remedies.training.frameworks",
    "remedies.gradients": "remedies.training.gradients",
    "remedies.half": "remedies.training.mixed_precision",
    "remedies.keras_joint": "remedies.keras.joint",
    "remedies.keras_surgery": "remedies.keras.surgery",
    "remedies.keras_training": "remedies.keras.training",
    "remedies.layers": "remedies.training.mlp",
    "remedies.loop": "remedies.training.loop",
    "remedies.losses": "remedies.training.losses",
    "remedies.measuring": "remedies.comparison.measure",
    "remedies.norms": "remedies.methods.logitnorm",
    "remedies.outcome": "remedies.comparison.result",
    "remedies.page": "remedies.comparison.page",
    "remedies.plan": "remedies.training.batches",
    "remedies.seen": "remedies.training.activations",
    "remedies.splits": "remedies.comparison.splits",
    "remedies.torch_joint": "remedies.torch.joint",
    "remedies.torch_surgery": "remedies.torch.surgery",
    "remedies.torch_training": "remedies.torch.training",
    "remedies.tuned": "remedies.training.fine_tuning",
    "remedies.virtual": "remedies.methods.vos",
    "remedies.wild": "remedies.methods.stream",
    "ruling": "selection.combination",
    "second": "fitting.auxiliary",
    "selecting": "selection.stepwise",
    "steps": "openset.steps",
    "verdicts": "openset.verdicts",
    "walk": "fitting.extraction",
    "weighing": "selection.stacking",
}
METHODS = "detectors."  # each detector's module is in detectors.methods now


def new_name(name: str) -> str | None:
    """Where the module of this old name, within knownot, is now; None for one that has not moved."""
    if name.startswith(METHODS) and name.count(".") == 1:
        return f"detectors.methods.{name.removeprefix(METHODS)}"
    return MOVED.get(name)


class Finder:
    """Asked last, so only for modules that are not there. Also its own loader."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        new = new_name(fullname.removeprefix("knownot.")) if fullname.startswith("knownot.") else None
        if new is None or fullname == f"knownot.{new}":
            return None
        try:
            there = importlib.util.find_spec(f"knownot.{new}")
        except ModuleNotFoundError:
            return None
        return ModuleSpec(fullname, Finder) if there else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        new = f"knownot.{new_name(spec.name.removeprefix('knownot.'))}"
        warnings.warn(f"{spec.name} is {new} now; the old name goes in the next version.", DeprecationWarning, 3)
        return Renamed(spec.name, importlib.import_module(new))

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Everything is in the module of the new name."""


class Renamed(ModuleType):
    """A module by its old name: its attributes are those of the module of the new one."""

    def __init__(self, name: str, new: ModuleType) -> None:
        super().__init__(name, new.__doc__)
        self.__dict__["_new"] = new

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_new"], name)


class OldName:
    """An attribute by its old name, in a class: reading it gives what the new one holds."""

    def __init__(self, new: str) -> None:
        self.new, self.old = new, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.old = name

    def __get__(self, thing: Any, owner: type) -> Any:
        _warn(f"{owner.__name__}.{self.old}", self.new)
        return getattr(owner if thing is None else thing, self.new)


class OldAttribute(OldName):
    """The same of an attribute that instances set."""

    def __set__(self, thing: Any, value: Any) -> None:
        _warn(f"{type(thing).__name__}.{self.old}", self.new)
        setattr(thing, self.new, value)


def take_old_names(cls: type) -> None:
    """What a class defines under old names of its base classes becomes what it defines under the new ones."""
    for name in [name for name in vars(cls) if name not in vars(cls).get("__annotations__", {})]:
        old = next((vars(base)[name] for base in cls.__mro__[1:] if isinstance(vars(base).get(name), OldName)), None)
        if old is not None:
            _warn(f"{cls.__name__}.{name}", old.new)
            setattr(cls, old.new, vars(cls)[name])
            delattr(cls, name)


def old_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """`__getattr__` of a module some of whose names have changed: {old: new}."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name}", names[name])
        return getattr(sys.modules[module], names[name])

    return find


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is {new} now; the old name goes in the next version.", DeprecationWarning, 3)


def install() -> None:
    if Finder not in sys.meta_path:
        sys.meta_path.append(Finder)

"""One adapter per framework; `open_model` finds the one that reads what it is given."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..arguments import public
from ..arrays import ModelLike
from ..errors import ModelError, missing_extra
from .base import Model
from .embedding import Embedding
from .names_beside import names_beside
from .none_classes import NoneClasses
from .refused import is_hugging_face, json_refusal, refusal, refuse
from .saved import in_folder

__all__ = ["Model", "open_model"]


@dataclass(frozen=True)
class Opener:
    """Where an adapter lives and what it reads. Its module has `opened(thing, *, head, stages, size, **options)`."""

    module: str
    suffixes: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()  # packages whose classes it reads, looked up along the object's base classes


EXTRAS = {"torch": "torch", "keras": "keras", "h5py": "keras"}  # packages: the extra that has them

OPENERS: tuple[Opener, ...] = (
    Opener("onnx", (".onnx",), ("onnx",)),
    Opener("keras", (".keras", ".h5", ".hdf5"), ("keras", "tf_keras")),
    Opener("torch", (".pt2", ".pt", ".pth", ".ts", ".th", ".jit", ".torchscript"), ("torch",)),
    Opener("ensemble", (".json",)),  # and lists
    Opener("function"),  # last: any callable images -> probabilities
)


@public
def open_model(
    thing: ModelLike,
    *,
    head: str | None = None,
    stages: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    embedding: bool = False,
    none_classes: int | Sequence[int] | None = None,
    **options: Any,
) -> Model:
    """Open a trained image classifier for reading; it is left bit for bit as it was.

    Parameters
    ----------
    thing : ModelLike
        A path to a .onnx, .keras, .h5, .pt2 (torch.export) or TorchScript file, a `keras.Model`, a torch `nn.Module`,
        an `onnx.ModelProto`, or a Python function images [n, h, w, k] -> probabilities [n, c]; or a list of several, as
        one (see `models.ensemble`); or the folder of a retrained classifier (`knownot.remedies`), which says how it is
        opened; or the folder of a Hugging Face image classifier (`save_pretrained`).
    head : str, optional
        The name of the last linear layer, when it is not found by itself.
    stages : sequence of str, optional
        Names of layers to read as stages, instead of those found (the last of each spatial resolution).
    size : (int, int), optional
        Height and width of the input in pixels, when the classifier does not say it.
    embedding : bool, default False
        It is no classifier: its output [n, d] is taken as features (for `fit(…, features=…)`).
    none_classes : int, optional
        How many of its outputs, the last ones, are no class but say "none of these"; the others are its classes, and
        what these say is shown to detectors (see `models.none_classes`).
    **options
        Of the framework's opener, for example unsafe_pickle=True for a torch file that may run code.

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        The thing is no classifier or cannot be read; with the reason and the cure.
    MissingExtraError
        Its framework is not installed.

    Examples
    --------
    >>> model = knownot.open_model("model.onnx")
    >>> model.capabilities.classes, model.input.height
    (4, 16)
    """
    if isinstance(thing, Model):
        if head is not None or stages is not None or size is not None or embedding or none_classes or options:
            raise ModelError("This model is open already: give head, stages and size when opening it.")
        return thing
    if isinstance(thing, str | os.PathLike) and Path(thing).is_dir() and not is_hugging_face(Path(thing)):
        given = {"head": head, "stages": stages, "size": size, "embedding": embedding, "none_classes": none_classes}
        return in_folder(Path(thing), {name: x for name, x in {**given, **options}.items() if x}, open_model)
    # Never remembered: a saved classifier must not open pickles because its first one was.
    asked = {"head": head, "stages": None if stages is None else list(stages), "size": size, **options}
    asked.pop("unsafe_pickle", None)
    opener = _opener(thing)
    if embedding:
        if head is not None:
            raise ModelError("An embedding network has no head: leave out head=, or embedding=True.")
        if none_classes is not None:
            raise ModelError("An embedding network has no classes, so none of them can be none-classes.")
        asked["embedding"] = True
        inner = opener.opened(thing, stages=stages or (), size=size, embedding=True, **options)
        opened: Model = Embedding(inner, bool(stages))
    else:
        opened = opener.opened(thing, head=head, stages=stages, size=size, **options)
        if none_classes is not None:
            asked["none_classes"] = none_classes
            opened = NoneClasses(opened, none_classes)
    on_disk = isinstance(thing, str | os.PathLike) and Path(thing).is_file()
    if opened.class_names is None and opened.capabilities.classes and on_disk:
        names, note = names_beside(Path(thing), opened.capabilities.classes)
        opened.class_names = names
        opened.notes = (*opened.notes, note) if note else opened.notes
    opened.opened_with = {name: value for name, value in asked.items() if value is not None}
    return opened


def _opener(thing: Any) -> Any:
    if isinstance(thing, str | os.PathLike):
        path = Path(thing)
        found = [o for o in OPENERS if path.suffix.lower() in o.suffixes]
        if path.is_dir():
            found = [Opener("torch.hugging_face")]
        if not path.exists():
            hub = len(path.parts) == 2 and not path.suffix and not path.parent.exists()
            more = " If it is a name on the Hugging Face Hub: hf download it, and give the folder." if hub else ""
            raise ModelError(f"There is no file {str(path)!r}.{more}")
        if not found:
            known = ", ".join(s for o in OPENERS for s in o.suffixes)
            raise refuse(path, known)
        if not path.is_dir() and (why := json_refusal(path) if path.suffix.lower() == ".json" else refusal(path)):
            raise ModelError(why)
    else:
        roots = {base.__module__.partition(".")[0] for base in type(thing).__mro__}
        found = [o for o in OPENERS if roots & set(o.roots)]
        if isinstance(thing, list | tuple):
            found = [o for o in OPENERS if o.module == "ensemble"]
        if not found and callable(thing):
            found = [OPENERS[-1]]
        if not found and isinstance(thing, Mapping):
            raise ModelError(
                "A dict of weights (a state dict) is no classifier: there is no network in it. Build the network, load "
                "the weights into it with model.load_state_dict(…), and give the network."
            )
        if not found:
            raise ModelError(
                f"A {type(thing).__name__} is no classifier that knownot reads. Give a model file (.onnx, .keras, .h5, "
                ".pt2), a keras.Model, a torch nn.Module, or a function images -> probabilities."
            )
    try:
        return importlib.import_module(f".{found[0].module}", __name__)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise missing_extra(package, EXTRAS[package], "Opening this classifier") from error

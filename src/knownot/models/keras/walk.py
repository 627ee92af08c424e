"""Run a Keras model in inference, call by call, on its own layers and weights."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
from keras.src.models.functional import Functional  # its graph is not public

Op = Any  # a keras.Layer, or a keras.Operation such as `x / 255` in a functional model


@dataclass(frozen=True)
class Call:
    """One call of one layer or operation. The same layer called twice is two calls."""

    path: str  # "mobilenetv2/block_1_expand"
    op: Op
    args: tuple[Any, ...]
    output: Any

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


See = Callable[[Call], None]
Instead = Callable[[Op, tuple[Any, ...]], Any]  # what to give in the place of a call, None for what it gives itself
_patching = threading.RLock()
_switching = threading.RLock()  # held while modes of wrapped torch modules are other than the user's


def is_graph(op: Op) -> bool:
    """Whether `op` is a Functional or Sequential model that Keras runs as it stands: its calls can be seen."""
    return isinstance(op, Functional | keras.Sequential) and type(op).call in (Functional.call, keras.Sequential.call)


def is_foreign(op: Op) -> bool:
    """Whether `op` is a user's own layer or model with layers inside, whose calls only show when it runs."""
    return (
        isinstance(op, keras.Layer)
        and not is_graph(op)
        and not type(op).__module__.startswith("keras.src.layers")
        and bool(sublayers(op))
    )


def sublayers(layer: keras.Layer) -> list[keras.Layer]:
    return list(layer._flatten_layers(include_self=False, recursive=False))


def run(model: keras.Model, x: Any, see: See, instead: Instead = lambda op, args: None) -> Any:
    """`model(x, training=False)`, telling `see` of every call in the order of computation.

    Functional and Sequential models, nested ones included, are walked along their graph; nothing of theirs is
    touched. In a subclassed model the `call` of each inner layer is wrapped for the duration of this run.
    """
    hidden: list[tuple[str, keras.Layer]] = []
    _collect(model, "", hidden, opaque=False)
    with _modes_kept(model):
        if not hidden:
            return _op(model, "", see, instead, (x,), {})
        with _patching, _wrap(hidden, see, instead):
            return _op(model, "", see, instead, (x,), {})


@contextmanager
def _modes_kept(model: keras.Model) -> Iterator[None]:
    """A torch module wrapped as a layer is set to eval() when Keras runs it in inference; here, it is set back."""
    wrappers = [layer for layer in model._flatten_layers() if type(layer).__name__ == "TorchModuleWrapper"]
    if not wrappers:
        yield
        return
    with _switching:  # or one thread would take the other's mode for the user's
        yield from _set_back(wrappers)


def _set_back(wrappers: list[Any]) -> Iterator[None]:
    modes = [(module, module.training) for wrapper in wrappers for module in wrapper.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _collect(op: Op, path: str, hidden: list[tuple[str, keras.Layer]], opaque: bool) -> None:
    """The layers inside foreign ones, by path; they are seen by wrapping."""
    if is_graph(op):
        inner = op.operations if isinstance(op, Functional) else op.layers
        opaque_below = opaque
    elif is_foreign(op):
        inner, opaque_below = sublayers(op), True
    else:
        return
    for child in inner:
        below = f"{path}/{child.name}".lstrip("/")
        if opaque_below and not is_graph(child):
            hidden.append((below, child))
        _collect(child, below, hidden, opaque_below)


@contextmanager
def _wrap(hidden: list[tuple[str, keras.Layer]], see: See, instead: Instead) -> Iterator[None]:
    me = threading.get_ident()
    undo: list[tuple[dict[str, Any], Any]] = []

    def wrap(path: str, layer: keras.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            mine = threading.get_ident() == me
            output = instead(layer, args) if mine and args else None
            output = call(*args, **kwargs) if output is None else output
            if mine:
                see(Call(path, layer, args or tuple(kwargs.values()), output))
            return output

        return wrapper

    missing = object()
    try:
        seen: set[int] = set()
        for path, layer in hidden:
            if id(layer) not in seen:
                seen.add(id(layer))
                # Straight into __dict__: Keras' own __setattr__ would track the function as part of the layer.
                undo.append((layer.__dict__, layer.__dict__.get("call", missing)))
                layer.__dict__["call"] = wrap(path, layer, layer.call)
        yield
    finally:
        for attributes, before in undo:
            if before is missing:
                del attributes["call"]
            else:
                attributes["call"] = before


def _op(op: Op, path: str, see: See, instead: Instead, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not is_graph(op):
        if getattr(op, "_call_has_training_arg", False):
            kwargs = {**kwargs, "training": False}
        output = instead(op, args)
        output = op(*args, **kwargs) if output is None else output
        see(Call(path or op.name, op, args or tuple(kwargs.values()), output))
        return output

    def inner(child: Op) -> Callable[..., Any]:
        below = f"{path}/{child.name}".lstrip("/")
        return lambda *a, **k: _op(child, below, see, instead, a, k)

    if isinstance(op, keras.Sequential) and op._functional is None:
        (x,) = args
        for layer in op.layers:
            x = inner(layer)(x)
        return x
    graph = op._functional if isinstance(op, keras.Sequential) else op
    outputs = graph._run_through_graph(graph._standardize_inputs(args[0]), operation_fn=inner)
    return outputs[0] if isinstance(outputs, list | tuple) and len(outputs) == 1 else outputs

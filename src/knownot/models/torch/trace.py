"""Watching one forward pass from outside: what it computes, step by step, and the few steps that are kept.

A dispatch mode sees every ATen operation of an nn.Module, of TorchScript's interpreter and of an exported program
alike, and leaves nothing on the model.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ...errors import ModelError
from . import ops
from .layout import layout_after
from .network import address_of


@dataclass(eq=False)
class Node:
    """One operation of a recorded pass.

    step: its place among the computing steps, None for a view. layer: the module whose weights it reads, "".
    depends: on the images. layout: meaning of the axes of its output, "" when not known.
    """

    name: str
    func: Any = None
    given: dict[str, Any] = field(default_factory=dict)
    parents: list[Node] = field(default_factory=list)
    out: torch.Tensor | None = None
    outs: list[torch.Tensor] = field(default_factory=list)
    shape: tuple[int, ...] = ()  # of `out` when it was made
    step: int | None = None
    layer: str = ""
    depends: bool = False
    layout: str = ""

    @property
    def sources(self) -> list[Node]:
        """Its parents that depend on the images."""
        return [p for p in self.parents if p.depends]

    def ancestors(self) -> set[Node]:
        found: set[Node] = set()
        waiting = list(self.sources)
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting += node.sources
        return found


class Watcher(TorchDispatchMode):
    """A mode into which torch.compile does not look.

    torch sees to that by importing torch._dynamo at the first operation, which takes seconds; here it is done only
    where that is imported already, as it is wherever something is compiled.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return "torch._dynamo" in sys.modules

    def __enter__(self) -> Any:
        kind: Any = type(self)
        if self._should_skip_dynamo() and not hasattr(kind.__torch_dispatch__, "__wrapped__"):
            kind.__torch_dispatch__ = torch._disable_dynamo(kind.__torch_dispatch__, recursive=True)
        return super().__enter__()


class Recorder(Watcher):
    """Keeps every operation and its output: for one small batch, at opening.

    Raises ModelError when the answer for an image would be random or depend on the other images of its batch.
    """

    def __init__(self, images: torch.Tensor, layout: str, layers: Mapping[int, str]) -> None:
        super().__init__()
        self.layers = layers
        self.input = Node("input", out=images, outs=[images], shape=tuple(images.shape), depends=True, layout=layout)
        self.nodes: list[Node] = []
        self.steps: list[Node] = []
        self._by_id: dict[int, Node] = {id(images): self.input}

    def node_of(self, tensor: torch.Tensor) -> Node | None:
        """What made this tensor (last, if it was changed in place)."""
        return self._by_id.get(id(tensor))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, given = ops.name_of(func), ops.bound(func, args, kwargs or {})
        _refuse_random(name, given, self.layers)
        result = func(*args, **(kwargs or {}))
        inputs = ops.tensors_in(given.values())
        parents = [self._by_id[id(t)] for t in inputs if id(t) in self._by_id]
        node = Node(name, func, given, parents, depends=any(p.depends for p in parents))
        node.outs = ops.tensors_in([result])
        node.out = node.outs[0] if node.outs else None
        node.shape = tuple(node.out.shape) if node.out is not None else ()
        node.layer = _layer(inputs, self.layers)
        node.layout = layout_after(node)
        if ops.is_step(name):
            node.step = len(self.steps)
            self.steps.append(node)
        self.nodes.append(node)
        self._by_id |= {id(t): node for t in node.outs}
        return result


@dataclass(frozen=True)
class Take:
    """What to keep of a step: made of its argument of that name, or of its output when `argument` is ""."""

    key: str
    argument: str
    make: Callable[[torch.Tensor], torch.Tensor]


class Reader(Watcher):
    """Keeps what `takes` makes of chosen steps, nothing else, and compares each step with those expected."""

    def __init__(
        self, expected: list[tuple[str, str]], takes: Mapping[int, Iterable[Take]], layers: Mapping[int, str]
    ) -> None:
        super().__init__()
        self.expected, self.takes, self.layers = expected, takes, layers
        self.kept: dict[str, torch.Tensor] = {}
        self.count = 0
        self.strange: str | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = ops.name_of(func)
        if not ops.is_step(name):
            return func(*args, **(kwargs or {}))
        step, self.count = self.count, self.count + 1
        given = ops.bound(func, args, kwargs or {})
        seen = (name, _layer(ops.tensors_in(given.values()), self.layers))
        if self.strange is None and (step >= len(self.expected) or self.expected[step] != seen):
            wanted = _words(self.expected[step]) if step < len(self.expected) else "the end"
            self.strange = f"step {step + 1} was {wanted}, now it is {_words(seen)}"
        takes = () if self.strange else self.takes.get(step, ())
        # At once: anything may be changed in place, arguments by the step itself, its output further on.
        self.kept |= {t.key: t.make(given[t.argument]) for t in takes if t.argument}
        result = func(*args, **(kwargs or {}))
        outs = ops.tensors_in([result]) if takes else []
        self.kept |= {t.key: t.make(outs[0]) for t in takes if not t.argument}
        return result

    def finish(self) -> dict[str, torch.Tensor]:
        """What was kept. Raises ModelError when this pass was not the one seen at opening."""
        if self.strange is None and self.count < len(self.expected):
            self.strange = f"it ended after {self.count} of {len(self.expected)} steps"
        if self.strange:
            raise ModelError(
                f"The classifier computed something else than when it was opened: {self.strange}. knownot reads "
                "features at fixed steps, so the computation has to be the same for every batch. There may be no "
                "random or data-dependent branches, and no layers replaced after opening (open it again if you "
                "changed it)."
            )
        return self.kept


def _words(step: tuple[str, str]) -> str:
    return f"{step[0]} of layer {step[1]!r}" if step[1] else step[0]


def _layer(tensors: Iterable[torch.Tensor], layers: Mapping[int, str]) -> str:
    for tensor in tensors:
        layer = layers.get(address_of(tensor))
        if layer is not None:
            return layer
    return ""


def _refuse_random(name: str, given: Mapping[str, Any], layers: Mapping[int, str]) -> None:
    if name in ops.DROPOUT and given.get("train") and given.get("p", 0) > 0:
        raise ModelError(
            f"Dropout is on although the classifier is in evaluation mode ({name}, p = {given.get('p')}), so its "
            "answers are random. In code: F.dropout(x, p, training=self.training), or nn.Dropout. A file traced or "
            "exported in training mode: call model.eval() first and write it again."
        )
    if "batch_norm" in name and "legit_no_training" not in name and given.get("training") is True:
        where = _layer(ops.tensors_in(given.values()), layers)
        raise ModelError(
            f"Batch normalisation{f' in layer {where!r}' if where else ''} uses the statistics of the batch although "
            "the classifier is in evaluation mode, so the answer for an image depends on the others in its batch. "
            "Track running statistics, or, for a file traced or exported in training mode, call model.eval() first."
        )

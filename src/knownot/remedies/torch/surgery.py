"""Copies of torch classifiers with another head, and both ends of it at hand while they are trained."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import nn

from ...errors import ModelError
from ...models import Model


def locate(opened: Any) -> str:
    """The name of the module that is the head, told by its weight. Raises ModelError when there is none of its own."""
    weight, bias = np.asarray(opened.head.weight), np.asarray(opened.head.bias)
    for name, module in opened.network.module.named_modules():
        own = getattr(module, "weight", None)
        if isinstance(own, torch.Tensor) and own.ndim == 2 and tuple(own.shape) == weight.shape:
            mine = getattr(module, "bias", None)
            bias_fits = np.array_equal(_numpy(mine), bias) if isinstance(mine, torch.Tensor) else not bias.any()
            if np.array_equal(_numpy(own), weight) and bias_fits:
                return str(name)
    raise ModelError(
        "The classifier's last linear layer is no nn.Linear whose weights are the head's, so it cannot be given more "
        "outputs. Something is scaled or added after it, or it is a convolution. Replace it by an nn.Linear that "
        "computes the same."
    )


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32).numpy()


def copied(opened: Model, weight: np.ndarray, bias: np.ndarray) -> tuple[nn.Module, str]:
    """(a copy of the user's module with this head, weight [m, d] and bias [m], the head's name). In evaluation mode."""
    network: Any = opened.network  # type: ignore[attr-defined]
    if network.kind == "script":
        raise ModelError(
            "A TorchScript module cannot be given another head. Give the nn.Module that it was made from, or a "
            "torch.export program (.pt2)."
        )
    name = locate(opened)
    module = _copy(network.module)
    holder = module.get_submodule(name)
    like = holder.weight
    for key, values in (("weight", weight), ("bias", bias)):
        tensor = torch.as_tensor(values.copy()).to(like.device, like.dtype)
        holder.register_parameter(key, nn.Parameter(tensor))
    if isinstance(holder, nn.Linear):
        holder.out_features = len(bias)
    for one in module.modules():
        one.training = False
    return module, name


def _copy(thing: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an exported program's copy warns of torch's own old names
        return copy.deepcopy(thing)


class Tap(ABC):
    """A module whose head shows what it reads and gives."""

    @abstractmethod
    def run(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(features [n, d], logits [n, c]) of a batch."""


class Hooked(Tap):
    """By a hook that is there during the pass."""

    def __init__(self, module: nn.Module, head: nn.Module) -> None:
        self.module, self.head = module, head

    def run(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        handle = self.head.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
        try:
            self.module(x)
        finally:
            handle.remove()
        features, logits = seen[-1]
        return features.reshape(len(x), -1), logits.reshape(len(x), -1)


class Graphed(Tap):
    """An exported program has no modules that are called: its graph is given other outputs, over the same weights."""

    def __init__(self, module: torch.fx.GraphModule, node: torch.fx.Node) -> None:
        graph = _copy(module.graph)
        twin = {n.name: n for n in graph.nodes}[node.name]
        (output,) = (n for n in graph.nodes if n.op == "output")
        with graph.inserting_before(output):
            graph.output((twin.args[0], twin))
        graph.erase_node(output)
        graph.set_codegen(torch.fx.graph.CodeGen())
        self.module = torch.fx.GraphModule(module, graph)

    def run(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features, logits = self.module(x)
        return features.reshape(len(x), -1), logits.reshape(len(x), -1)


def tap(module: nn.Module, name: str) -> Tap:
    """Of a module made by `copied`."""
    if not isinstance(module, torch.fx.GraphModule):
        return Hooked(module, module.get_submodule(name))
    return Graphed(module, _linear(module, name))


def _linear(module: torch.fx.GraphModule, name: str) -> torch.fx.Node:
    """The call that reads the head's weight. Raises ModelError unless there is one."""
    targets = {f"{name}.weight", f"{name}.weight".replace(".", "_")}
    for node in module.graph.nodes:
        reads = [a.target for a in node.args if isinstance(a, torch.fx.Node) and a.op == "get_attr"]
        if "linear" in str(node.target) and targets & set(map(str, reads)):
            found: torch.fx.Node = node
            return found
    raise ModelError("The head of this exported program is not one linear operation. Give the nn.Module instead.")

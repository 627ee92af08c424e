"""Stages and layers that the user names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

from ...errors import ModelError, unknown_name
from . import ops
from .network import Network
from .stages import AXES
from .trace import Node, Recorder


@contextmanager
def watching(network: Network, recorder: Recorder, names: Sequence[str]) -> Iterator[dict[str, Node]]:
    """Fills {name: what made the module's output} during one pass of an nn.Module. The hooks are gone afterwards."""
    seen: dict[str, Node] = {}
    handles = []
    if network.kind == "module" and names:
        modules = dict(network.module.named_modules())
        for name in names:
            if name not in modules:
                raise unknown_name("layer", name, (m for m in modules if m))
    try:
        if network.kind == "module":
            for name in names:
                handles.append(modules[name].register_forward_hook(_hook(name, seen, recorder)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, seen: dict[str, Node], recorder: Recorder) -> Any:
    def hook(module: Any, given: Any, out: Any) -> None:
        tensors = ops.tensors_in([out]) or ops.tensors_in(getattr(out, "values", tuple)())
        node = recorder.node_of(tensors[0]) if tensors else None
        if node is not None:
            seen[name] = node

    return hook


def named_stages(network: Network, recorder: Recorder, names: Sequence[str], seen: dict[str, Node]) -> dict[str, Node]:
    """{name: the computing step whose output is the layer's}.

    Raises OptionError for an unknown name, ModelError for a layer without maps.
    """
    if network.kind == "program":
        seen = _by_module_stack(network, recorder)
    elif network.kind == "script":
        seen = {node.layer: node for node in recorder.steps if node.layer}
    found = {}
    for name in names:
        if name not in seen and network.kind == "module":
            raise ModelError(f"Layer {name!r} did not run, or returns no tensor, so it cannot be a stage.")
        if name not in seen:
            raise unknown_name("layer", name, seen)
        node = seen[name]
        while node.step is None and len(node.sources) == 1 and node.sources[0].shape == node.shape:
            node = node.sources[0]  # a view of the same shape
        if node.step is None or node.layout not in AXES or prod(node.shape[1:]) == 0:
            raise ModelError(
                f"Layer {name!r} cannot be a stage: its output {node.shape} of {node.name} is no map [n, k, h, w] or "
                "[n, t, k] that was computed there. Name the layer before it."
            )
        found[name] = node
    return found


def _by_module_stack(network: Network, recorder: Recorder) -> dict[str, Node]:
    """{module path: its last computing step}, from what the exported graph tells of each operation."""
    found: dict[str, Node] = {}
    steps = iter(recorder.steps)
    for operation in network.thing.graph.nodes:
        schema = getattr(operation.target, "_schema", None)
        if operation.op != "call_function" or schema is None or not ops.is_step(ops.name_of(operation.target)):
            continue
        node = next(steps, None)
        if node is None or node.name != ops.name_of(operation.target):
            return {}
        for path, _ in (operation.meta.get("nn_module_stack") or {}).values():
            if path:
                found[path] = node
    return found

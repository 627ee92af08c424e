"""An ONNX graph read for what it computes: who makes a tensor, who reads it, what is constant. No image enters here."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnxruntime
from onnx import AttributeProto, ModelProto, NodeProto, helper

from ...errors import ModelError, unknown_name
from .file import OnnxFile, serialise

RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}


class Graph:
    """The main graph of a model. `proto` is the file's own copy, and is as it was after every call.

    nodes: in order of computation. producer: {tensor: node}. consumers: {tensor: nodes}. constants: tensors that no
    input reaches. inputs, outputs: [ValueInfoProto], initializers left out.
    """

    def __init__(self, file: OnnxFile) -> None:
        self.file, self.who = file, file.who
        self.proto = file.take()
        graph = self.proto.graph
        self.initializers = {t.name: t for t in graph.initializer}
        sparse = {t.values.name for t in graph.sparse_initializer}
        self.inputs = [v for v in graph.input if v.name not in self.initializers]
        self.outputs = list(graph.output)
        known = {v.name for v in self.inputs} | set(self.initializers) | sparse
        self.nodes = self.ordered(list(graph.node), known)
        self.producer = {out: node for node in self.nodes for out in node.output if out}
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.consumers[name].append(node)
        self.constants = set(self.initializers) | sparse
        for node in self.nodes:
            if (
                node.op_type not in RANDOM
                and not has_subgraph(node)
                and self.constants.issuperset(filter(None, node.input))
            ):
                self.constants.update(node.output)
        self.opset = max((o.version for o in self.proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
        if not self.opset:
            self.opset = 17
            self.proto.opset_import.append(helper.make_opsetid("", self.opset))
        self._values: dict[str, np.ndarray] = {}

    def ordered(self, nodes: list[NodeProto], known: set[str]) -> list[NodeProto]:
        """In order of computation, as the standard demands, so that walking back always ends."""
        known, done = {"", *known}, []
        while nodes:
            waiting = []
            for node in nodes:
                if known.issuperset(node.input):
                    if twice := known.intersection(filter(None, node.output)):
                        raise ModelError(f"{self.who} is damaged: {twice.pop()!r} is computed twice. Export it again.")
                    known.update(node.output)
                    done.append(node)
                else:
                    waiting.append(node)
            if len(waiting) == len(nodes):
                node = waiting[0]
                missing = next(name for name in node.input if name not in known)
                raise ModelError(
                    f"{self.who} is damaged: its node {node.name or node.op_type!r} reads {missing!r}, which nothing "
                    "computes before it. Export the classifier again."
                )
            nodes = waiting
        return done

    # -- asking ----------------------------------------------------------------------------------------------------

    def value(self, name: str) -> np.ndarray | None:
        """A constant tensor, computed if need be (dequantised, transposed, cast ...); None for one that is not."""
        if name not in self.constants:
            return None
        if name not in self._values:
            if name in self.initializers:
                self._values[name] = self.file.array(self.initializers[name])
            else:
                self._values[name] = self._computed(name)
        return self._values[name]

    def floats(self, name: str) -> np.ndarray:
        """The stored floating-point weights called `name`, none for integers."""
        array = self.file.array(self.initializers[name])
        return array if array.dtype.kind == "f" else np.zeros(0)

    def _computed(self, name: str) -> np.ndarray:
        keep = self.upstream([name])
        part = ModelProto(ir_version=self.proto.ir_version, opset_import=self.proto.opset_import)
        part.graph.name = "constant"
        part.graph.node.extend(n for n in self.nodes if keep.intersection(n.output))
        part.graph.initializer.extend(t for t in self.proto.graph.initializer if t.name in keep)
        part.graph.output.append(helper.make_empty_tensor_value_info(name))
        return np.asarray(session(part.SerializeToString(), self, optimise=False).run([name], {})[0])

    def upstream(self, names: Iterable[str]) -> set[str]:
        """The tensors that these are computed from, themselves included."""
        wanted = set(names)
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                wanted.update(filter(None, node.input))
                wanted.update(_list_captured(node))
        return wanted

    def only_consumer(self, name: str) -> NodeProto | None:
        readers = self.consumers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in {o.name for o in self.outputs} else None

    def tensor_of(self, name: str, kind: str, offered: Sequence[str]) -> str:
        """The tensor called `name`, or the first output of the node called so; else an OptionError, did you mean."""
        node = next((n for n in self.nodes if n.name == name), None)
        if name in self.producer or (node is None and name in {v.name for v in self.inputs}):
            return name
        if node is None:
            raise unknown_name(kind, name, offered)
        return str(node.output[0])

    def with_outputs(self, nodes: Sequence[NodeProto], names: Sequence[str]) -> bytes:
        """The model, serialised, with `nodes` added and `names` as its only outputs."""
        graph, count = self.proto.graph, len(self.proto.graph.node)
        kept = list(graph.output)
        graph.node.extend(nodes)
        del graph.output[:]
        graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
        try:
            return serialise(self.proto)
        finally:
            del graph.node[count:]
            del graph.output[:]
            graph.output.extend(kept)


def session(
    model: bytes, graph: Graph, *, providers: Sequence[Any] | None = None, threads: int = 0, optimise: bool = True
) -> onnxruntime.InferenceSession:
    """An onnxruntime session over the serialised model, with the external data of `graph`. Raises ModelError."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, and translated below
    options.use_deterministic_compute = True
    options.intra_op_num_threads = threads
    # Its threads would spin after each batch and take the cores from the scoring (measured: benchmarks/speed.py).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if graph.file.external:
        folder = os.path.abspath(graph.file.folder or ".")
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    try:
        devices = list(providers or ["CPUExecutionProvider"])
        return onnxruntime.InferenceSession(model, options, providers=devices, enable_fallback=0)
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise ModelError(
            f"onnxruntime {onnxruntime.__version__} cannot open {graph.who} (opset {graph.opset}): {error} "
            "If an operator or opset is unknown, update onnxruntime or export with an older opset; otherwise the file "
            "is damaged."
        ) from error


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def has_subgraph(node: NodeProto) -> bool:
    return any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute)


def _list_captured(node: NodeProto) -> Iterator[str]:
    """Names that sub-graphs of If, Loop and Scan read from outside (and some that are their own: harmless)."""
    for a in node.attribute:
        for inner in (*((a.g,) if a.HasField("g") else ()), *a.graphs):
            for n in inner.node:
                yield from filter(None, n.input)
                yield from _list_captured(n)
            yield from (o.name for o in inner.output)

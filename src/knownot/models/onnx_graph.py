"""An ONNX graph read for what it computes: who makes a tensor, who reads it, what is constant. No image enters here."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import onnxruntime
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ..errors import ModelError, unknown_name

LARGEST = 2**31 - 1  # bytes in one protobuf message
RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}


class Graph:
    """The main graph of a model, local functions inlined; the file or `ModelProto` it came from is never touched.

    nodes: in order of computation. producer: {tensor: node}. consumers: {tensor: nodes}. constants: tensors that no
    input reaches. inputs, outputs: [ValueInfoProto], initializers left out. folder: where external data lies.
    external: external data files, relative to `folder`.
    """

    def __init__(self, thing: str | os.PathLike[str] | ModelProto) -> None:
        self.path = None if isinstance(thing, ModelProto) else Path(thing)
        self.folder = self.path.parent if self.path else None
        self.stamp = stamp(self.path) if self.path else None
        self.bytes = _serialised(thing) if isinstance(thing, ModelProto) else None
        self.who = f"{self.path.name!r}" if self.path else "This onnx.ModelProto"
        proto = self._parsed(self.bytes) if self.bytes is not None else self._read()
        if not proto.HasField("graph") or not proto.graph.node:
            raise ModelError(f"{self.who} holds no ONNX graph. Export the classifier to ONNX again.")
        if not all(isinstance(name, str) for name in _names(proto.graph)):  # bytes that are no UTF-8
            raise ModelError(f"{self.who} is damaged: names in it are no text. Copy or export it again.")
        self.external = tuple(sorted({self._location(t) for t in tensors(proto.graph) if is_external(t)}))
        self.fingerprint = self._hash(proto)
        self.metadata = {p.key: p.value for p in proto.metadata_props}
        self.proto = _inlined(proto)
        graph = self.proto.graph
        self.initializers = {t.name: t for t in graph.initializer}
        sparse = {t.values.name for t in graph.sparse_initializer}
        self.inputs = [v for v in graph.input if v.name not in self.initializers]
        self.outputs = list(graph.output)
        known = {v.name for v in self.inputs} | set(self.initializers) | sparse
        self.nodes = self._ordered(list(graph.node), known)
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

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read(self) -> ModelProto:
        assert self.path is not None
        if not self.path.is_file():
            raise ModelError(f"There is no file {str(self.path)!r}.")
        data = self.path.read_bytes()
        if not data:
            raise ModelError(f"{self.who} is empty (0 bytes). Copy or export it again.")
        return self._parsed(data)

    def _parsed(self, data: bytes) -> ModelProto:
        proto = ModelProto()
        try:
            proto.ParseFromString(data)
        except Exception as error:  # google.protobuf's DecodeError, of whichever protobuf there is
            if data.startswith(b"version https://git-lfs"):
                raise ModelError(f"{self.who} is a Git LFS pointer, not the model. Fetch it: git lfs pull") from error
            raise ModelError(
                f"{self.who} is no ONNX model or is damaged ({len(data)} bytes, {error}). Copy or export it again."
            ) from error
        return proto

    def _location(self, tensor: TensorProto) -> str:
        """The external data file of a tensor, relative to the model's folder, inside it and there."""
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        if self.folder is None:
            raise ModelError(
                f"The weights of this onnx.ModelProto lie in another file ({location!r}) and a ModelProto does not say "
                "where. Give the path of the .onnx file, or load it with onnx.load(path)."
            )
        parts = PurePosixPath(location.replace("\\", "/")).parts
        outside = ".." in parts or PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive
        if not location or outside:
            raise ModelError(
                f"{self.who} keeps the weights of {tensor.name!r} in {location!r}, outside its own folder. Such a file "
                "is not read. Save the model with its external data beside it."
            )
        if not (self.folder / location).is_file():
            raise ModelError(
                f"{self.who} keeps its weights in {location!r} beside it, and that file is not there. Copy it into "
                f"{str(self.folder)!r}."
            )
        return location

    def _array(self, tensor: TensorProto) -> np.ndarray:
        try:
            return numpy_helper.to_array(tensor, base_dir=str(self.folder or ""))
        except Exception as error:
            raise ModelError(f"{self.who}: the weights {tensor.name!r} cannot be read ({error}).") from error

    def _hash(self, proto: ModelProto) -> str:
        """Of the computation and the weights, wherever those are kept; not of doc strings and metadata."""
        digest = hashlib.sha256()
        for o in sorted(proto.opset_import, key=lambda o: o.domain):
            digest.update(f"{o.domain}:{o.version};".encode())
        for tensor in proto.graph.initializer:
            array = self._array(tensor)
            digest.update(f"{tensor.name}:{tensor.data_type}:{list(tensor.dims)};".encode())
            digest.update(array.tobytes() if array.dtype != object else repr(array.tolist()).encode())
        for part in (*proto.graph.input, *proto.graph.output, *proto.functions):
            digest.update(part.SerializeToString(deterministic=True))
        for node in proto.graph.node:
            digest.update(repr((node.domain, node.op_type, list(node.input), list(node.output))).encode())
            for attribute in node.attribute:
                digest.update(attribute.SerializeToString(deterministic=True))
        return digest.hexdigest()

    def _ordered(self, nodes: list[NodeProto], known: set[str]) -> list[NodeProto]:
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
                self._values[name] = self._array(self.initializers[name])
            else:
                self._values[name] = self._computed(name)
        return self._values[name]

    def floats(self, name: str) -> np.ndarray:
        """The stored floating-point weights called `name`, none for integers."""
        array = self._array(self.initializers[name])
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
                wanted.update(_captured(node))
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
            return _serialised(self.proto)
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
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if graph.external:
        folder = os.path.abspath(graph.folder or ".")
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


def tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every stored tensor of a graph, those in attributes and sub-graphs included."""
    yield from graph.initializer
    for node in graph.node:
        for a in node.attribute:
            if a.HasField("t"):
                yield a.t
            yield from a.tensors
            for inner in (*((a.g,) if a.HasField("g") else ()), *a.graphs):
                yield from tensors(inner)


def _names(graph: GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.output, *graph.initializer):
        yield value.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute))


def is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file, to notice that it was replaced."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def has_subgraph(node: NodeProto) -> bool:
    return any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute)


def _captured(node: NodeProto) -> Iterator[str]:
    """Names that sub-graphs of If, Loop and Scan read from outside (and some that are their own: harmless)."""
    for a in node.attribute:
        for inner in (*((a.g,) if a.HasField("g") else ()), *a.graphs):
            for n in inner.node:
                yield from filter(None, n.input)
                yield from _captured(n)
            yield from (o.name for o in inner.output)


def _inlined(proto: ModelProto) -> ModelProto:
    if not proto.functions:
        return proto
    from onnx.inliner import inline_local_functions

    return inline_local_functions(proto)


def _serialised(proto: ModelProto) -> bytes:
    data, cause = b"", None
    try:
        data = proto.SerializeToString(deterministic=True)
    except Exception as error:  # protobuf refuses messages above 2 GB, each version with an error of its own
        cause = error
    if not data or len(data) > LARGEST:
        raise ModelError(
            "This onnx.ModelProto is empty, or larger than the 2 GB that one message can hold. Save it with "
            "onnx.save(proto, path, save_as_external_data=True) and give the path."
        ) from cause
    return data

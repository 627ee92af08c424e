"""An ONNX model as bytes: a file or a `ModelProto`, its external data found, its content hashed."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from ...errors import ModelError

DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"}
REACHING = {"EPContext", "PyOp", "PyOpScan"}  # compiled code from a file beside it; Python
LARGEST = 2**31 - 1  # bytes in one protobuf message


class OnnxFile:
    """A model file, or a `ModelProto` kept as bytes; neither is ever changed.

    path, folder: None for a `ModelProto`.
    external: external data files, relative to the folder, all of them there and inside it. who: for messages.
    """

    def __init__(self, thing: str | os.PathLike[str] | ModelProto) -> None:
        self.path = None if isinstance(thing, ModelProto) else Path(thing)
        self.folder = self.path.parent if self.path else None
        self.who = f"{self.path.name!r}" if self.path else "This onnx.ModelProto"
        self._bytes = serialise(thing) if isinstance(thing, ModelProto) else None
        proto = self._parsed(self._bytes) if self._bytes is not None else self._read()
        if not proto.HasField("graph") or not proto.graph.node:
            raise ModelError(f"{self.who} holds no ONNX graph. Export the classifier to ONNX again.")
        if not all(isinstance(name, str) for name in _names(proto.graph)):  # bytes that are no UTF-8
            raise ModelError(f"{self.who} is damaged: names in it are no text. Copy or export it again.")
        self.external = tuple(sorted({self._location(t) for t in _tensors(proto.graph) if is_external(t)}))
        self._stamp = _stamp(self.path) if self.path else None
        self.fingerprint = self._hash(proto)
        self.metadata = {p.key: p.value for p in proto.metadata_props}
        self._proto = _inline(proto)
        self._check_operators(self._proto.graph)

    def take(self) -> ModelProto:
        """The parsed model, local functions inlined: handed over once, so that its memory can be given back."""
        proto, self._proto = self._proto, ModelProto()
        return proto

    def again(self) -> OnnxFile:
        """The same model, parsed anew. Raises ModelError if the file is another one by now."""
        fresh = OnnxFile(self.path if self.path is not None else self._parsed(self._bytes or b""))
        if fresh.fingerprint != self.fingerprint:
            raise ModelError(f"{str(self.path)!r} has been changed since it was opened. Open it again.")
        return fresh

    def copy_to(self, folder: Path) -> str:
        """Write "model.onnx", byte for byte, and its external data; the name. Raises ModelError if it changed."""
        target = folder / "model.onnx"
        folder.mkdir(parents=True, exist_ok=True)
        if self.path is None:
            target.write_bytes(self._bytes or b"")
            return target.name
        if not self.path.is_file() or _stamp(self.path) != self._stamp:
            raise ModelError(f"{str(self.path)!r} has been changed or removed since it was opened. Open it again.")
        beside = [(self.path.parent / name, folder / name) for name in self.external]
        for source, copy in [(self.path, target), *beside]:
            if not source.is_file():
                raise ModelError(f"{str(source)!r} has been removed since it was opened. Open the model again.")
            if copy.exists() and copy.samefile(source):
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        return target.name

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
        real = (self.folder / location).resolve()
        if not real.is_relative_to(self.folder.resolve()):
            raise ModelError(
                f"{self.who} keeps the weights of {tensor.name!r} in {location!r}, a link to {str(real)!r}, outside "
                "its own folder. Such a file is not read. Save the model with its external data beside it."
            )
        return location

    def _check_operators(self, graph: GraphProto) -> None:
        """Raises ModelError for an operator that is neither of the standard nor of onnxruntime itself."""
        for node in graph.node:
            if node.domain not in DOMAINS or node.op_type in REACHING:
                raise ModelError(
                    f"{self.who} has the operator {node.op_type!r} of the domain {node.domain!r}. Computed are those "
                    "of the ONNX standard, of ai.onnx.ml and of onnxruntime (com.microsoft), but those that read "
                    "files; those of other libraries are code, and are not loaded. Export the classifier without it."
                )
            for inner in _subgraphs(node):
                self._check_operators(inner)

    def array(self, tensor: TensorProto) -> np.ndarray:
        try:
            return numpy_helper.to_array(tensor, base_dir=str(self.folder or ""))
        except Exception as error:
            raise ModelError(f"{self.who}: the weights {tensor.name!r} cannot be read ({error}).") from error

    def with_weights(self, data: bytes) -> ModelProto:
        """The model serialised in `data`, of this file's tensors, with all weights in it. Raises ModelError."""
        proto = self._parsed(data)
        outside = [t for t in _tensors(proto.graph) if is_external(t)]
        size = len(data)
        for tensor in outside:
            self._location(tensor)
            inside = numpy_helper.from_array(self.array(tensor), tensor.name)
            size += len(inside.raw_data)
            if size > LARGEST:
                raise ModelError(
                    f"{self.who} has weights of more than 2 GB, which one ONNX file cannot hold. Convert it to half "
                    "precision first, or run it with knownot itself."
                )
            tensor.CopyFrom(inside)
        return proto

    def _hash(self, proto: ModelProto) -> str:
        """Of the computation and the weights, wherever those are kept; not of doc strings and metadata."""
        digest = hashlib.sha256()
        for o in sorted(proto.opset_import, key=lambda o: o.domain):
            digest.update(f"{o.domain}:{o.version};".encode())
        for tensor in proto.graph.initializer:
            array = self.array(tensor)
            digest.update(f"{tensor.name}:{tensor.data_type}:{list(tensor.dims)};".encode())
            digest.update(array.tobytes() if array.dtype != object else repr(array.tolist()).encode())
        for part in (*proto.graph.input, *proto.graph.output, *proto.functions):
            digest.update(part.SerializeToString(deterministic=True))
        for node in proto.graph.node:
            digest.update(repr((node.domain, node.op_type, list(node.input), list(node.output))).encode())
            for attribute in node.attribute:
                digest.update(attribute.SerializeToString(deterministic=True))
        return digest.hexdigest()


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every stored tensor of a graph, those in attributes and sub-graphs included."""
    yield from graph.initializer
    for node in graph.node:
        for a in node.attribute:
            if a.HasField("t"):
                yield a.t
            yield from a.tensors
        for inner in _subgraphs(node):
            yield from _tensors(inner)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for a in node.attribute:
        if a.HasField("g"):
            yield a.g
        yield from a.graphs


def _names(graph: GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.output, *graph.initializer):
        yield value.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute))


def is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file, to notice that it was replaced."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _inline(proto: ModelProto) -> ModelProto:
    if not proto.functions:
        return proto
    from onnx.inliner import inline_local_functions

    return inline_local_functions(proto)


def serialise(proto: ModelProto) -> bytes:
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

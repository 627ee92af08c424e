"""ONNX classifiers: read from the graph, served by onnxruntime, everything wanted in one run per batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from array_api_compat import array_namespace
from onnx import ModelProto, TensorProto, helper

from ...arrays import Activations, Array, Capabilities, InputSpec, Preprocess
from ...errors import InputError, ModelError, OptionError, unknown_name
from ..base import Call, Model, probe, verify_head
from . import proof
from . import stages as onnx_stages
from .file import OnnxFile
from .graph import Graph, session
from .head import Found
from .inputs import check_task, class_names, declared, dtype_of, image_input, input_spec, preprocess, size_said
from .probe import Look, as_it_is, best, look, outputs, tensors_of, zip_names

PREFIX = "knownot/"  # of the tensors that are added

MOST_THREADS = 1024
HALF = {10, 16}  # TensorProto: float16, bfloat16


@dataclass(frozen=True)
class Reading:
    """What was found in a file, and how it is served. What has to be served again is parsed anew: it is not kept in
    memory for detectors that may never ask.

    layers: {stage: tensor}; tensors: {tensor: layout}. proven: whether the file has to agree with the logits.
    """

    file: OnnxFile
    chosen: Found
    layers: Mapping[str, str]
    tensors: Mapping[str, str]
    dtype: np.dtype
    providers: Sequence[Any] | None
    threads: int
    proven: bool

    def served(self, maps: Sequence[str]) -> tuple[bytes, Graph]:
        """The graph of the activations, with these maps among its outputs."""
        again = Graph(self.file.again())
        return _build_graph(again, self.chosen, self.layers, self.tensors, maps), again

    def serve(self, maps: Sequence[str]) -> onnxruntime.InferenceSession:
        """A session of that."""
        return session(*self.served(maps), providers=self.providers, threads=self.threads)

    def confirm(self, batch: np.ndarray) -> None:
        """Raise ModelError unless the logits of `batch` are what the file's own output says."""
        again = Graph(self.file.again())
        run = session(proof.graph_of(again, self.chosen), again, providers=self.providers, threads=self.threads)
        proof.confirmed(self.file.who, self.chosen, _asker(run, self.dtype), batch, proof.tolerance(again))

    def capabilities(self, classes: int, earlier: tuple[str, ...]) -> Capabilities:
        """earlier: the stages but for the last."""
        offered = {
            "probabilities": True,
            "logits": not (self.chosen.share or self.chosen.twice),
            "features": self.chosen.features is not None,
            "head": self.chosen.head is not None,
            "stages": bool(earlier),
            "maps": bool(self.layers),
        }
        kinds = frozenset(kind for kind, there in offered.items() if there)
        return Capabilities(kinds, classes, earlier, tuple(self.layers))


class OnnxModel(Model):
    """An ONNX classifier, open for reading. The file or proto is not changed; a copy in memory has more outputs.

    The logits are those that the last linear layer computes: in a quantised graph before they are rounded.
    """

    framework = "onnx"

    def __init__(
        self,
        reading: Reading,
        run: onnxruntime.InferenceSession,
        spec: InputSpec,
        capabilities: Capabilities,
        *,
        names: tuple[str, ...] | None = None,
        preprocess: Preprocess | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.input, self.capabilities, self.head, self.stage_layers = (
            spec,
            capabilities,
            reading.chosen.head,
            reading.layers,
        )
        self.class_names, self.preprocess, self.notes = names, preprocess, tuple(notes)
        self.stretches = spec.layout == "NHWC"  # such files come from Keras and TensorFlow
        self._reading, self._file, self._who = reading, reading.file, reading.file.who
        self._run, self._dtype = run, reading.dtype
        self.input_name = run.get_inputs()[0].name
        self._with_maps: tuple[tuple[str, ...], onnxruntime.InferenceSession] = ((), run)

    def forward(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        run = self._serving(tuple(maps))
        size = self.input.batch
        if not len(batch):
            raise InputError(f"A batch without images, of shape {batch.shape}, has no activations.")
        chunks = [batch] if size is None else [batch[i : i + size] for i in range(0, len(batch), size)]
        if size is not None and (short := size - len(chunks[-1])):
            chunks[-1] = np.concatenate([chunks[-1], np.repeat(chunks[-1][-1:], short, axis=0)])
        parts = [self._one(run, chunk) for chunk in chunks]
        rows = [
            np.concatenate(x)[: len(batch)] if len(parts) > 1 else x[0][: len(batch)] for x in zip(*parts, strict=True)
        ]
        wrong = next((x.shape for x in rows if len(x) != len(batch)), None)
        if wrong:
            raise ModelError(
                f"{self._who} gives an output of shape {wrong} for {len(batch)} images. Export it with a dynamic batch "
                "axis, or a fixed one."
            )
        names = [o.name.removeprefix(PREFIX) for o in run.get_outputs()]
        return Activations.of(dict(zip(names, rows, strict=True)))

    def confirm(self, batch: np.ndarray) -> None:
        size = self.input.batch
        if self._reading.proven and len(batch) >= (size or 1):
            self._reading.confirm(self.input.to_layout(batch if size is None else batch[:size]))

    def _serving(self, maps: tuple[str, ...]) -> onnxruntime.InferenceSession:
        """The session with these maps among its outputs, made when they are first asked for; the last one is kept."""
        if not maps:
            return self._run
        if self._with_maps[0] != maps:
            self._with_maps = (maps, self._reading.serve(maps))
        return self._with_maps[1]

    def _one(self, run: onnxruntime.InferenceSession, chunk: np.ndarray) -> list[np.ndarray]:
        chunk = _as_input(chunk, self._dtype)
        try:
            return list(run.run(None, {self.input_name: chunk}))
        except Exception as error:  # onnxruntime's errors share no base class of their own
            raise ModelError(
                f"onnxruntime could not run {self._who} on a batch of shape {chunk.shape} {chunk.dtype}: {error} "
                "If the classifier wants another size of image, give it: size=(height, width)."
            ) from error

    def as_onnx(self, folder: Path, size: tuple[int, int] | None = None) -> OnnxModel:
        return self

    def graph(self, maps: Sequence[str] = ()) -> ModelProto:
        """The graph of the activations, its outputs of known widths and called "knownot/" and as `Activations.named`
        calls them; the weights are in it, wherever the file keeps them. Raises ModelError above 2 GB."""
        data, source = self._reading.served(self.known_maps(maps))
        proto = source.file.with_weights(data)
        seen = self.forward(probe(self.input, self.input.batch or 1), self.known_maps(maps)).named()
        stored = {t.name for t in proto.graph.initializer} | {t.values.name for t in proto.graph.sparse_initializer}
        nodes = source.ordered(list(proto.graph.node), stored | {v.name for v in proto.graph.input})
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)  # as the standard demands, though onnxruntime does not
        del proto.graph.output[:]
        for path, x in seen.items():
            sizes = [None, *x.shape[1:]] if x.ndim == 2 or self.input.height else [None, x.shape[1], None, None]
            proto.graph.output.append(helper.make_tensor_value_info(PREFIX + path, TensorProto.FLOAT, sizes))
        return proto

    def record(self, x: Array, call: Call, maps: Sequence[str] = ()) -> Activations:
        xp = array_namespace(x)
        if self._dtype.kind in "iu":
            info = np.iinfo(self._dtype)
            x = xp.clip(xp.round(x), min=float(info.min), max=float(info.max))
        made = call(self.graph(maps), xp.astype(x, self._dtype))
        return Activations.of({name.removeprefix(PREFIX): value for name, value in made.items()})

    @property
    def fingerprint(self) -> str:
        return self._file.fingerprint

    def save(self, folder: Path) -> str:
        return self._file.copy_to(Path(folder))


def _check_options(providers: Sequence[Any] | None, threads: Any, others: Mapping[str, Any]) -> None:
    for name in others:
        raise unknown_name("option of ONNX models", name, ("head", "stages", "size", "layout", "providers", "threads"))
    if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= MOST_THREADS:
        raise OptionError(f"threads={threads!r}: expected 0, onnxruntime's own choice, or up to {MOST_THREADS:,}.")
    for given in providers or ():
        name = given if isinstance(given, str) else given[0]
        if name not in onnxruntime.get_available_providers():
            raise unknown_name("onnxruntime provider", str(name), onnxruntime.get_available_providers())


def opened(
    thing: Any,
    *,
    head: str | None = None,
    stages: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    layout: str | None = None,
    providers: Sequence[Any] | None = None,
    threads: int = 0,
    embedding: bool = False,
    **options: Any,
) -> OnnxModel:
    """Open an ONNX classifier: a path (external data beside it) or an `onnx.ModelProto`.

    head: name of the last linear layer's node or tensor, or of the output to use. stages: names of nodes or tensors.
    size: (height, width), when the graph leaves them open. layout: "NCHW" or "NHWC", when the shape does not tell.
    providers: of onnxruntime, the CPU's if none are given. threads: of onnxruntime, 0 for its own choice.
    embedding: the output as it is stands for the logits, whatever computes it.

    Raises ModelError when it is no classifier, cannot be read or its head does not reproduce its logits;
    OptionError for unknown names and options.
    """
    _check_options(providers, threads, options)
    file = OnnxFile(thing)
    graph = Graph(file)

    def opener(model: bytes, optimise: bool) -> onnxruntime.InferenceSession:
        return session(model, graph, providers=providers, threads=threads, optimise=optimise)

    check_task(file.metadata, file.who)
    value = image_input(graph)
    dtype = dtype_of(value)
    found = [as_it_is(f) for f in outputs(graph, head)] if embedding else outputs(graph, head)
    named = None if stages is None else [graph.tensor_of(s, "stage", _computed_names(graph)) for s in stages]
    candidates = onnx_stages.candidates(graph, [f.logits for f in found]) if named is None else named
    spec, said = input_spec(graph, value, size, layout), size_said(file.metadata)
    spec = replace(spec, height=spec.height or said[0], width=spec.width or said[1])
    seen = look(graph, [*tensors_of(found), *candidates], spec, dtype, opener)
    chosen, classes, notes = best(graph, found, seen)
    if not embedding:
        ask = _asker(opener(proof.graph_of(graph, chosen), False), dtype)
        chosen, more = proof.settled(graph, chosen, seen.spec, ask)
        notes += more
    tensors = _stage_layouts(graph, named, candidates, chosen, seen)
    layers = {f"stage{i}": tensor for i, tensor in enumerate(tensors, 1)}
    earlier = tuple(layers) if named is not None else tuple(layers)[:-1]
    if chosen.head is None:
        notes += (f"No head{'' if chosen.features else ' and no features'}: {chosen.why}.",)

    reading = Reading(
        file=file,
        chosen=chosen,
        layers=layers,
        tensors=tensors,
        dtype=dtype,
        providers=providers,
        threads=threads,
        proven=not embedding,
    )
    model = OnnxModel(
        reading, opener(_build_graph(graph, chosen, layers, tensors), True), seen.spec,
        reading.capabilities(classes, earlier),
        names=class_names(file.metadata, classes) or zip_names(graph, classes),
        preprocess=declared(file.metadata, seen.spec) or preprocess(graph, value, seen.spec),
        notes=(*seen.notes, *notes),
    )  # fmt: skip
    _check(model, graph, chosen)
    return model


def _as_input(chunk: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        chunk = np.clip(np.rint(chunk), info.min, info.max)
    return np.ascontiguousarray(chunk, dtype=dtype)


def _asker(run: onnxruntime.InferenceSession, dtype: np.dtype) -> proof.Run:
    name = run.get_inputs()[0].name
    return lambda batch: list(run.run(None, {name: _as_input(batch, dtype)}))


def _stage_layouts(
    graph: Graph, named: Sequence[str] | None, candidates: Sequence[str], chosen: Found, seen: Look
) -> dict[str, str]:
    """{tensor: layout} of the stages: those named, or those found upstream of the output."""
    layouts = onnx_stages.layouts(graph, seen.spec.layout)
    if named is None:
        upstream = graph.upstream([chosen.logits])
        shapes = {name: seen.shapes[name] for name in candidates if name in upstream}
        return onnx_stages.choose(graph, shapes, layouts, seen.n)
    found = {}
    for name in named:
        shape = seen.shapes[name]
        if len(shape) not in (3, 4) or shape[0] != seen.n:
            raise OptionError(
                f"stages: {name!r} has shape {shape} for {seen.n} images; a stage is [n, k, h, w] or tokens [n, t, d]."
            )
        found[name] = "NTC" if len(shape) == 3 else layouts.get(name, "NCHW")
    return found


def _build_graph(
    graph: Graph, chosen: Found, layers: Mapping[str, str], tensors: Mapping[str, str], maps: Sequence[str] = ()
) -> bytes:
    """The graph whose outputs are the activations."""
    nodes = {"logits": proof.logit_nodes(graph, chosen, f"{PREFIX}logits")}
    if chosen.features is not None:
        name = f"{PREFIX}features"
        pooled = onnx_stages.mean(chosen.features, name, "NCHW", graph.opset)
        nodes["features"] = pooled if chosen.pooled else onnx_stages.flat(chosen.features, name)
    for stage, tensor in layers.items():
        path = f"stages/{stage}"
        nodes[path] = onnx_stages.mean_and_std(tensor, PREFIX + path, tensors[tensor], graph.opset)
    for name in maps:
        path = f"maps/{name}"
        nodes[path] = onnx_stages.channels_first(layers[name], PREFIX + path, tensors[layers[name]], graph.opset)
    return graph.with_outputs([n for made in nodes.values() for n in made], [PREFIX + name for name in nodes])


def _computed_names(graph: Graph) -> list[str]:
    nodes = [n for n in graph.nodes if n.op_type in onnx_stages.COMPUTING and n.output[0] not in graph.constants]
    return [*(n.name for n in nodes if n.name), *(n.output[0] for n in nodes)]


def _check(model: OnnxModel, graph: Graph, chosen: Found) -> None:
    """Raise ModelError unless a probe gives finite logits that the head reproduces, image by image."""
    batch = probe(model.input)
    first = model.forward(batch)
    if not all(np.isfinite(x).all() for x in first.named().values()):
        bad = [name for name in graph.initializers if not np.isfinite(graph.floats(name)).all()]
        why = f"its weights {', '.join(map(repr, bad[:3]))} are not finite" if bad else "it overflows"
        raise ModelError(
            f"{graph.who} computes NaN or infinity for a random image: {why}. Export it again, or retrain it."
        )
    logits = first.logits
    if model.head is not None:
        half = any(t.data_type in HALF for t in graph.initializers.values())
        verify_head(model.head, first, tolerance=1e-2 if half else 1e-3)
    again = model.forward(np.stack([batch[0], batch[0]])).logits[0]
    if not np.allclose(again, logits[0], rtol=0, atol=1e-3 * max(1.0, float(np.abs(logits).max()))):
        raise ModelError(
            f"{graph.who} gives an image other scores when another image stands beside it in the batch (or the second "
            "time), as a graph exported in training mode does. Export it in evaluation mode: model.eval()."
        )

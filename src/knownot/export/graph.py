"""The graph of a whole decision: images in, verdicts out. Every formula is the one that Python runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import spox
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ..arrays import Activations, Preprocess, softmax
from ..calibration import Calibration, share
from ..detectors import to_namespace
from ..errors import UnsoundError
from ..fitting.thumbnails import embed
from ..models import Model
from ..models.none_classes import NONE
from ..openset.added import claim
from ..stats import maps_of, reduced
from . import namespace as xp
from .pixels import own_input
from .recorded import Recorded, argument, recording

if TYPE_CHECKING:
    from ..openset.classifier import OpenSetClassifier

IMAGES, THRESHOLD = "images", "p_threshold"
SLACK = np.float32(1e-6)  # of a p-value against a threshold, both rounded to float32; see `_decided`
OUTPUTS = {  # name: (type, what it has for each image)
    "label": (TensorProto.INT64, ()),
    "unknown": (TensorProto.BOOL, ()),
    "p_value": (TensorProto.FLOAT, ()),
    "score": (TensorProto.FLOAT, ()),
    "closed_label": (TensorProto.INT64, ()),
    "probabilities": (TensorProto.FLOAT, ("classes",)),
}
EXTRA_PASSES = (
    "{names} cannot be exported: {passes} looks at an image again, changed or with dropout at work, which one graph "
    "from pixels to verdict does not do. Every detector of the table without 'gradient' or 'dropout' among its "
    "needs can be exported (knownot detectors), for example 'default' or 'knn': fit again with one of these."
)


def build(osc: OpenSetClassifier, model: Model, second: Model | None, *, resize: bool = False) -> ModelProto:
    """The graph, without metadata. model, second: the networks of `osc` as ONNX (`Model.as_onnx`).

    Input "images" uint8 [n, h, w, 3] (float32 in the classifier's own layout where `osc` has no preprocessing), and
    "p_threshold", a number that may be left out. Raises UnsoundError for what no graph can say.
    """
    refuse(osc)
    with recording():
        images = argument(*_input(osc, model, resize))
        threshold = argument(np.float32, ())
        made = _decided(osc, _activations(osc, model, second, images, resize), threshold)
        proto = spox.build({IMAGES: images.var, THRESHOLD: threshold.var}, {name: x.var for name, x in made.items()})
    return _tidy_graph(proto, osc, model)


def refuse(osc: OpenSetClassifier) -> None:
    """Raise UnsoundError where the detector reads what one pass forward does not give."""
    if osc.detector.passes:
        names = ", ".join(osc.detector.members)
        passes = "; ".join(sorted({type(p).__name__ for p in osc.detector.passes}))
        raise UnsoundError(EXTRA_PASSES.format(names=names, passes=passes))


def _input(osc: OpenSetClassifier, model: Model, resize: bool) -> tuple[Any, tuple[int | str, ...]]:
    """Type and shape of the images."""
    spec, way = model.input, osc.preprocess
    n: int | str = spec.batch or "n"
    if way is None:
        sides = (spec.height or "h", spec.width or "w")
        k = spec.channels or 3
        return np.float32, (n, *sides, k) if spec.layout == "NHWC" else (n, k, *sides)
    if resize:
        return np.uint8, (n, "h", "w", 3)
    return np.uint8, (n, way.height or spec.height or "h", way.width or spec.width or "w", 3)


def _activations(
    osc: OpenSetClassifier, model: Model, second: Model | None, images: Recorded, resize: bool
) -> Activations:
    """What the networks show of the images."""
    reductions = osc.detector.map_reductions
    seen = model.record(_ready(images, osc.preprocess, model, resize), _called, model.known_maps(maps_of(reductions)))
    if reductions:
        seen = reduced(seen, reductions)
    if second is None:
        return seen
    assert osc.second is not None
    other = second.record(_ready(images, osc.second.preprocess, second, resize), _called).named()
    paths = [path.removeprefix("second/") for path in osc.second.paths]
    return Activations.of({**seen.named(), **{f"second/{path}": other[path] for path in paths}})


def _ready(images: Recorded, way: Preprocess | None, model: Model, resize: bool) -> Recorded:
    if way is None:
        return images
    if resize:
        from .resizing import resized

        images = resized(images, way)
    return own_input(images, way, model.input.layout)


def _called(graph: ModelProto, x: Recorded) -> dict[str, Recorded]:
    """An ONNX graph of one input, put into the one that is recorded."""
    stored = {t.name for t in graph.graph.initializer}
    (name,) = (value.name for value in graph.graph.input if value.name not in stored)
    return {output: Recorded(var) for output, var in spox.inline(graph)(**{name: x.var}).items()}


def _decided(osc: OpenSetClassifier, seen: Activations, threshold: Recorded) -> dict[str, Recorded]:
    """The outputs. An image of which anything is not a finite number is unknown, with a p-value of NaN."""
    score = to_namespace(osc.detector, xp, np.float32).score(seen)
    closed = xp.argmax(seen.logits, axis=-1)
    total = score + xp.sum(seen.logits, axis=-1)
    if seen.features is not None:
        total = total + xp.sum(seen.features, axis=-1)
    for path in ("features",) if seen.second else ():
        total = total + xp.sum(seen.second[path], axis=-1)
    p = _p_value(osc.calibration, len(osc.class_names), score, closed)
    p = p + total * 0.0  # NaN where it is NaN or an infinity
    # p and the threshold are of the form j / (m + 1), rounded: the slack keeps equal ones equal up to m = 500,000
    unknown = ~(p > threshold * (np.float32(1) + SLACK))
    label = xp.where(unknown, xp.asarray(np.int64(-1)), closed)
    if osc.added:
        which = claim(osc.added, embed(seen))
        label = xp.where(unknown & (which >= 0) & (p >= 0), which + len(osc.class_names), label)
        unknown = label < 0
    if osc.record.none_classes:  # as `OpenSetClassifier.decided`
        nothing = xp.max(seen.extra[NONE], axis=1) > xp.max(seen.logits, axis=1)
        label = xp.where(nothing, xp.asarray(np.int64(-1)), label)
        p = xp.where(nothing, xp.minimum(p, xp.asarray(np.float32(osc.least_p))), p)
        unknown = label < 0
    named = (label, unknown, p, score, closed, softmax(seen.logits))
    return dict(zip(OUTPUTS, named, strict=True))


def _p_value(calibration: Calibration, classes: int, score: Recorded, closed: Recorded) -> Recorded:
    sets = [_round_down(scores) for scores in calibration.references(classes)]
    if len(sets) == 1:
        above = len(sets[0]) - xp.astype(xp.searchsorted(xp.asarray(sets[0]), score, side="left"), np.float32)
        return share(above, float(len(sets[0])))
    table = np.full((classes, max(map(len, sets))), -np.inf, np.float32)  # what no score is below
    for row, scores in zip(table, sets, strict=True):
        row[: len(scores)] = scores
    sizes = np.array([len(scores) for scores in sets], np.float32)
    reached = xp.take(xp.asarray(table), closed, axis=0) >= score[:, None]
    return share(xp.sum(xp.astype(reached, np.float32), axis=1), xp.take(xp.asarray(sizes), closed, axis=0))


def _round_down(scores: np.ndarray) -> np.ndarray:
    """The largest float32 that is not above, so that a float32 score reaches the same ones."""
    down = scores.astype(np.float32)
    return np.where(down > scores, np.nextafter(down, np.float32(-np.inf)), down)


def _tidy_graph(proto: ModelProto, osc: OpenSetClassifier, model: Model) -> ModelProto:
    """Constants as initializers, no node that nothing is made of, a default for the threshold, and outputs of known
    shapes."""
    graph = proto.graph
    nodes = _keep_needed(_under_their_names(list(graph.node)))
    del graph.node[:]
    for node in nodes:
        value = next((a.t for a in node.attribute if a.name == "value"), None) if node.op_type == "Constant" else None
        if value is None:
            graph.node.append(node)
        else:
            value.name = node.output[0]
            graph.initializer.append(value)
    default = numpy_helper.from_array(np.asarray(osc.calibration.p_threshold, np.float32), THRESHOLD)
    graph.initializer.append(default)
    sizes = {"classes": model.capabilities.classes}
    del graph.output[:]
    for name, (kind, rest) in OUTPUTS.items():
        shape = [model.input.batch or "n", *(sizes[r] for r in rest)]
        graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    del graph.value_info[:]
    graph.name, proto.producer_name = "knownot", "knownot"
    onnx.checker.check_model(proto)
    return proto


def _under_their_names(nodes: list[Any]) -> list[Any]:
    """What makes an output under its name, without the Identity that spox puts behind it."""
    made = {output for node in nodes for output in node.output}
    names: dict[str, str] = {}
    for node in nodes:
        if node.op_type == "Identity" and node.output[0] in OUTPUTS and node.input[0] in made - names.keys():
            names[node.input[0]] = node.output[0]
    kept = [node for node in nodes if node.op_type != "Identity" or names.get(node.input[0]) != node.output[0]]
    for node in kept:
        for places in (node.input, node.output):
            for i, name in enumerate(places):
                places[i] = names.get(name, name)
    return kept


def _keep_needed(nodes: list[Any]) -> list[Any]:
    """Those that an output is made of: of the classifier's stages a detector may look at some only."""
    wanted, kept = set(OUTPUTS), list[Any]()
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            for part in node.attribute:
                wanted.update(name for inner in part.g.node for name in inner.input)
            kept.append(node)
    return kept[::-1]

"""One run of an ONNX graph on a probe: the shapes that its tensors have, and which output is the classifier's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnxruntime
from onnx import NodeProto, helper

from ...arrays import InputSpec
from ...errors import ModelError
from ..base import probe
from .graph import Graph, attribute
from .head import SIGMOIDS, Found, find, layer_names, whole_layer

FLOATS = {0, 1, 10, 11, 16}  # TensorProto: not said, float, float16, double, bfloat16
Opener = Callable[[bytes, bool], onnxruntime.InferenceSession]


@dataclass(frozen=True)
class Look:
    """n: images in the probe. shapes: {tensor: its shape}. spec: the input, its batch size corrected by what ran."""

    n: int
    shapes: Mapping[str, tuple[int, ...]]
    spec: InputSpec
    notes: tuple[str, ...] = ()


def outputs(graph: Graph, head: str | None) -> list[Found]:
    """What lies behind each output that may hold scores, or behind the layer named. Raises ModelError for none."""
    if head is not None and head not in {o.name for o in graph.outputs}:
        found = find(graph, whole_layer(graph, graph.tensor_of(head, "layer or tensor", layer_names(graph))))
        if found.features is None:
            raise ModelError(f"head={head!r} is no linear layer of {graph.who}: {found.why}.")
        return [found]
    wanted = [o for o in graph.outputs if head in (None, o.name)]
    floats = [o.name for o in wanted if o.type.HasField("tensor_type") and o.type.tensor_type.elem_type in FLOATS]
    floats += [str(node.input[0]) for o in wanted if (node := zip_map(graph, o.name)) is not None]
    computed = [name for name in floats if name in graph.producer and name not in graph.constants]
    if not computed:
        what = ", ".join(o.name for o in wanted) or "none"
        raise ModelError(
            f"{graph.who} has no output of floating-point scores that depends on the image (outputs: {what}). Export "
            "it with its class scores or probabilities [n, c] as an output, not only the label of the best class."
        )
    return [find(graph, name) for name in computed]


def zip_map(graph: Graph, output: str) -> NodeProto | None:
    """The node that makes {class: probability} of the scores, as scikit-learn's and Custom Vision's exports end."""
    node = graph.producer.get(output)
    return node if node is not None and node.op_type == "ZipMap" else None


def zip_names(graph: Graph, classes: int) -> tuple[str, ...] | None:
    """The names of the classes that such a node has."""
    for o in graph.outputs:
        if (node := zip_map(graph, o.name)) is not None:
            words = attribute(node, "classlabels_strings") or attribute(node, "classlabels_int64s") or ()
            names = tuple(w.decode() if isinstance(w, bytes) else str(w) for w in words)
            if len(names) == classes:
                return names
    return None


def as_it_is(found: Found) -> Found:
    """The output of an embedding network: nothing is looked for behind it, and it may be anything (as if a softmax)."""
    return Found(found.output, found.output, found.end, True)


def look(graph: Graph, tensors: Sequence[str], spec: InputSpec, dtype: np.dtype, opener: Opener) -> Look:
    """Run once on two images (or one fixed batch), reading only the shapes of `tensors`: no map leaves the graph."""
    names = list(dict.fromkeys(tensors))
    nodes = [helper.make_node("Shape", [name], [f"knownot/shape/{i}"]) for i, name in enumerate(names)]
    run = opener(graph.with_outputs(nodes, [n.output[0] for n in nodes]), False)
    notes: tuple[str, ...] = ()
    sizes = [spec.batch] if spec.batch else [2, 1]
    if spec.batch is None and any(n.op_type == "DynamicQuantizeLinear" for n in graph.nodes):
        spec, sizes = replace(spec, batch=1), [1]
        notes = (
            "Images are run one by one: with dynamic quantisation other images of a batch change an image's scores.",
        )
    for n in sizes:
        try:
            found = run.run(None, {run.get_inputs()[0].name: probe(spec, n).astype(dtype)})
        except Exception as error:  # onnxruntime's errors share no base class of their own
            failure = error
            continue
        if n == 1 and spec.batch is None:
            spec = replace(spec, batch=1)
            notes += ("Images are run one by one: the graph fails on a batch of two.",)
        shapes = {name: tuple(int(d) for d in shape) for name, shape in zip(names, found, strict=True)}
        return Look(n, shapes, spec, notes)
    raise ModelError(
        f"onnxruntime could not run {graph.who} on a random batch of shape {probe(spec, sizes[0]).shape}: {failure} "
        "If the classifier wants another size of image, give it: size=(height, width)."
    ) from failure


def best(graph: Graph, found: Sequence[Found], seen: Look) -> tuple[Found, int, tuple[str, ...]]:
    """The output that classifies, its number of classes, and a note when there was a choice: the deepest one that
    ends in a softmax or a linear layer, so that auxiliary heads, which branch off earlier, lose."""
    depth = _depths(graph)
    fitting = [f for f in found if _classes(seen.shapes[f.logits], seen.n) is not None]
    if not fitting:
        shapes = ", ".join(f"{f.output} {seen.shapes[f.output]}" for f in found)
        raise ModelError(
            f"{graph.who} gives no [n, c] class scores for {seen.n} images (outputs: {shapes}). knownot reads "
            "classifiers with one score per class; name another output or layer with head='<name>'."
        )
    chosen = max(fitting, key=lambda f: (f.softmax or f.features is not None, depth[f.output]))
    classes = _classes(seen.shapes[chosen.logits], seen.n) or 0
    if chosen.end in SIGMOIDS and not chosen.softmax:
        raise ModelError(
            f"{graph.who} ends in {chosen.end}: each of its {classes} outputs is a yes or no of its own. knownot needs "
            "classes that exclude each other, one softmax (or its logits) over at least two. "
            "For a yes-no classifier, give a function images -> [1 - p, p]."
        )
    if classes < 2:
        raise ModelError(
            f"{graph.who} gives one number per image ({chosen.output!r}); knownot needs scores of two classes or more. "
            "For a yes-no classifier, give a function images -> [1 - p, p]."
        )
    names = ", ".join(f.output for f in found)
    several = f"Of the outputs {names} the classifier's is taken to be {chosen.output!r}; head= names another."
    return _flat_only(chosen, seen, classes), classes, (several,) if len(found) > 1 else ()


def tensors_of(found: Sequence[Found]) -> list[str]:
    return [name for f in found for name in (f.output, f.logits, f.features) if name]


def _classes(shape: tuple[int, ...], n: int) -> int | None:
    """c of a shape [n, c], axes of length one aside; None for any other."""
    if len(shape) < 2 or shape[0] != n or sum(d > 1 for d in shape[1:]) > 1:
        return None
    return int(np.prod(shape[1:]))


def _flat_only(found: Found, seen: Look, classes: int) -> Found:
    """Without head and features when those are not one vector per image, as a layer applied to every token has."""
    if found.features is None:
        return found
    shape = seen.shapes[found.features]
    rows = shape[:2] if found.pooled else (shape[0], int(np.prod(shape[1:])))
    fits = len(shape) == 4 if found.pooled else True
    if found.head is not None:
        fits = fits and found.head.weight.shape == (classes, rows[1])
    if rows[0] == seen.n and fits:
        return found
    return replace(found, features=None, head=None, why=f"its last layer reads {shape}, not one vector per image")


def _depths(graph: Graph) -> dict[str, int]:
    depth: dict[str, int] = {}
    for node in graph.nodes:
        below = 1 + max((depth.get(name, 0) for name in node.input), default=0)
        depth.update(dict.fromkeys(node.output, below))
    return depth

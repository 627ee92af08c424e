"""Whether what is offered as logits is what the file's own output says, on images and in batches of several sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from onnx import NodeProto, TensorProto, helper

from ...arrays import InputSpec, softmax
from ...errors import ModelError
from ..base import probe
from . import stages as onnx_stages
from .graph import Graph
from .head import AFFINE, THROUGH, Found

LOGITS = "knownot/proof/logits"
ELEMENTWISE = (
    THROUGH | AFFINE | {"Neg", "Abs", "Pow", "Sqrt", "Exp", "Log", "Clip", "Max", "Min", "Reciprocal", "Round"}
)
Run = Callable[[np.ndarray], list[np.ndarray]]  # a batch -> [logits, output]
SMALL, HALF, ROUNDED = 2e-3, 2e-2, 0.3  # of a probability: by precision; by the rounding of int8 outputs, left out here
SMALLEST = float(np.finfo(np.float32).tiny)


def logit_nodes(graph: Graph, found: Found, name: str) -> Iterator[NodeProto]:
    """What makes the logits, float32 [n, c], of the file's own tensors."""
    if found.share:
        yield from onnx_stages.flat(found.output, f"{name}/flat")
        axes = [f"{name}/axes"] if graph.opset >= 13 else []
        if axes:
            one = helper.make_tensor(f"{name}/one", TensorProto.INT64, [1], [1])
            yield helper.make_node("Constant", [], axes, value=one)
        summed = helper.make_node("ReduceSum", [f"{name}/flat", *axes], [f"{name}/sum"], keepdims=1)
        if not axes:
            summed.attribute.append(helper.make_attribute("axes", [1]))
        yield summed
        yield helper.make_node("Div", [f"{name}/flat", f"{name}/sum"], [f"{name}/share"])
        least = helper.make_tensor(f"{name}/tiny", TensorProto.FLOAT, [], [SMALLEST])
        yield helper.make_node("Constant", [], [f"{name}/least"], value=least)
        yield helper.make_node("Max", [f"{name}/share", f"{name}/least"], [f"{name}/above"])
        yield helper.make_node("Log", [f"{name}/above"], [name])
        return
    tensor = found.logits
    if any(found.codes):
        tensor = f"{name}/decoded"
        yield helper.make_node("DequantizeLinear", [found.logits, *found.codes], [tensor])
    yield from onnx_stages.flat(tensor, name)


def graph_of(graph: Graph, found: Found) -> bytes:
    """The graph whose outputs are the logits and the file's own output."""
    return graph.with_outputs([*logit_nodes(graph, found, LOGITS)], [LOGITS, found.output])


def probes(spec: InputSpec) -> Iterator[np.ndarray]:
    """Batches of several sizes, of noise and of smooth pictures, in [0, 1] and in [0, 255]."""
    for i, n in enumerate((spec.batch,) if spec.batch else (2, 1, 5)):
        noise = probe(spec, n, seed=i)
        yield noise
        smooth = noise.mean(axis=(1, 2, 3), keepdims=True) + np.linspace(-0.4, 0.4, noise.size).reshape(noise.shape)
        yield np.float32(255) * np.clip(smooth, 0, 1).astype(np.float32)


def settled(graph: Graph, found: Found, spec: InputSpec, run: Run) -> tuple[Found, tuple[str, ...]]:
    """`found`, or what stands for it where its logits are not proven, and notes. Raises ModelError when nothing says
    what the file says."""
    seen = [run(batch) for batch in probes(spec)]
    z = np.concatenate([a for a, _ in seen]).astype(np.float64)
    own = np.concatenate([b.reshape(len(b), -1) for _, b in seen]).astype(np.float64)
    fine = np.isfinite(z).all(axis=1) & np.isfinite(own).all(axis=1)
    if not fine.any():
        return found, ()  # said elsewhere, with the weights at fault
    z, own = z[fine], own[fine]
    steady(graph.who, run, spec)
    shares = _shares(own)
    if not found.softmax:
        if shares is None and (op := _changed(graph, found.output)):
            raise ModelError(
                f"{graph.who} ends in {op} of a softmax, and what that gives are no classes' probabilities or logits. "
                "Export the classifier with its softmax as the output, or name the layer of its logits: "
                "head='<name of the last linear layer>'."
            )
        if shares is None:
            return found, ()
        why = f"its output is probabilities that come from {found.end}, not from a softmax"
        return _as_shares(found, shares, why)
    if not agrees(z, own, tolerance(graph)):
        if shares is None:
            raise ModelError(
                f"{graph.who} ends in a softmax, but its output is not that of what comes before it: it is changed "
                "afterwards, in a way that knownot does not follow. Export the classifier with its softmax as the "
                "output, or name the layer of its logits: head='<name>'."
            )
        return _as_shares(found, shares, "its output is not the softmax of what comes before it")
    if found.twice:
        most = np.e / (np.e + own.shape[1] - 1)
        return found, (
            f"Its output went through two softmaxes, one after the other: no confidence can be above {most:.1%}. Was "
            "it trained so by mistake, or was the second added at export?",
        )
    return found, ()


def confirmed(who: str, found: Found, run: Run, batch: np.ndarray, within: float) -> None:
    """Raise ModelError unless what is offered of real images is what the file says of them."""
    z, own = (x.reshape(len(x), -1).astype(np.float64) for x in run(batch))
    if found.softmax and np.isfinite(z).all() and np.isfinite(own).all() and not agrees(z, own, within):
        raise ModelError(
            f"The output of {who} for these images is not the softmax of what was found to be its logits, although for "
            "random images it is. Name the layer of its logits: head='<name of the last linear layer>'."
        )


def steady(who: str, run: Run, spec: InputSpec) -> None:
    """Raise ModelError when an image's output depends on the others of its batch while its logits do not."""
    if spec.batch:
        return
    batch = probe(spec, 3, seed=7)
    one, three = run(batch[:1]), run(batch)
    z, own = (abs(a[0].astype(np.float64) - b[0].astype(np.float64)).max() for a, b in zip(one, three, strict=True))
    if own > 0.05 and z < 0.05:
        raise ModelError(
            f"The softmax of {who} runs over the images of a batch, not over the classes: what it says of an image "
            "depends on the others (torch: nn.Softmax(dim=0)). Export it with nn.Softmax(dim=1), or without it; or "
            "name the layer of its logits, which is right: head='<name of the last linear layer>'."
        )


def agrees(z: np.ndarray, own: np.ndarray, within: float) -> bool:
    """Whether softmax(z) [n, c] is what `own` [n, c] says: as probabilities, of any unit, or as their logarithms."""
    p = np.asarray(softmax(z), dtype=np.float64)
    if own.shape != p.shape:
        return False
    shares = _shares(own)
    if shares is None:
        shares = _shares(np.exp(np.minimum(own, 50)))
    return shares is not None and bool(np.abs(shares - p).max() <= within)


def tolerance(graph: Graph) -> float:
    kinds = {node.op_type for node in graph.nodes}
    if any("Quantize" in kind or kind.startswith(("QLinear", "QGemm")) or kind.endswith("Integer") for kind in kinds):
        return ROUNDED
    return HALF if any(t.data_type in (10, 16) for t in graph.initializers.values()) else SMALL


def _shares(x: np.ndarray) -> np.ndarray | None:
    """x [n, c] divided by the sum of a row, if that is the same for all rows and nothing is negative; else None."""
    sums = x.sum(axis=1, keepdims=True)
    whole = float(np.median(sums))
    if (x < -1e-6).any() or whole <= 0 or np.abs(sums - whole).max() > 0.05 * whole:
        return None
    return x / np.maximum(sums, SMALLEST)


def _changed(graph: Graph, tensor: str) -> str:
    """The last operation, if nothing but element by element operations stands between a softmax and the output."""
    todo, seen, last = [tensor], set(), graph.producer.get(tensor)
    while todo:
        node = graph.producer.get(todo.pop())
        if node is None or node.output[0] in seen or node.output[0] in graph.constants:
            continue
        seen.add(node.output[0])
        if node.op_type in ("Softmax", "LogSoftmax"):
            return last.op_type if last is not None else ""
        if node.op_type in ELEMENTWISE:
            todo += node.input
    return ""


def _as_shares(found: Found, shares: np.ndarray, why: str) -> tuple[Found, tuple[str, ...]]:
    if np.ptp(shares) < 1e-6:
        raise ModelError(
            f"The output of this ONNX model is the same for every class and image: {why}. Does its softmax run over "
            "the wrong axis? Name the layer of its logits: head='<name of the last linear layer>'."
        )
    note = f"No logits: {why}. The logarithms of its probabilities stand for them."
    return replace(found, share=True, softmax=True, head=None, why=why), (note,)

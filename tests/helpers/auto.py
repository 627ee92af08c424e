"""Toy classifiers on which members of the default fail: the same network, with features of another kind. And evidence
made up of scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from helpers import toy
from knownot.selection.scoreboard import Scoreboard


def jittery(channels: int = 12, size: float = 3000.0) -> onnx.ModelProto:
    """Features with further channels that the head does not read: large, and different for every image.

    The sine of a large multiple of the image's sum: nothing in them tells known from unknown, but distances of
    features divided by their length hear little else.
    """
    model = toy.graph()
    rates = np.linspace(900, 1400, channels).astype(np.float32)[None]
    weight = np.hstack([toy.weights()["w"], np.zeros((4, channels), np.float32)])
    added = [
        helper.make_node("ReduceMean", ["image"], ["sum"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["sum", "column"], ["sums"]),
        helper.make_node("Mul", ["sums", "rates"], ["angle"]),
        helper.make_node("Sin", ["angle"], ["jitter"]),
        helper.make_node("Mul", ["jitter", "size"], ["loud"]),
        helper.make_node("Concat", ["f", "loud"], ["both"], axis=1),
    ]
    return _with(model, added, "both", weight, {"rates": rates, "size": np.float32(size), "column": np.array([-1, 1])})


def _with(
    model: onnx.ModelProto,
    added: Sequence[onnx.NodeProto],
    features: str,
    weight: np.ndarray,
    more: dict[str, np.ndarray],
) -> onnx.ModelProto:
    """The toy with `added` nodes before its head, which reads `features` by `weight`."""
    nodes = list(model.graph.node)
    at = next(i for i, node in enumerate(nodes) if node.op_type == "Gemm")
    nodes[at].input[0] = features
    nodes[at:at] = added
    initial = [t for t in model.graph.initializer if t.name != "w"]
    initial += [numpy_helper.from_array(np.asarray(x), name) for name, x in {"w": weight, **more}.items()]
    made = helper.make_graph(nodes, "toy", list(model.graph.input), list(model.graph.output), initial)
    return helper.make_model(made, opset_imports=model.opset_import, ir_version=8)


KINDS = ("uniform", "solid", "fractal", "patch-shuffle-4", "cutmix", "mixup", "collage", "inversion", "blur")


def arena(gains: dict[str, list[float]], n: int = 400, k: int = 64) -> Scoreboard:
    """Detectors with independent normal scores; on a kind, unknown images score higher by gains[kind][j]."""
    rng = np.random.default_rng(0)
    m = len(next(iter(gains.values())))
    known = rng.normal(size=(n, m))
    return Scoreboard.of(known, {kind: rng.normal(size=(k, m)) + np.array(shift) for kind, shift in gains.items()})

"""Every detector's own `score`, recorded as a graph, computes in onnxruntime what it computes on NumPy arrays."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import spox

from knownot.arrays import Activations
from knownot.checks.problems import Problem, both, fitted, problem
from knownot.detectors import DETECTORS, resolve, to_namespace
from knownot.export import namespace as xp
from knownot.export.recorded import Recorded, argument, constant, recording

# {detector: why its graph is not exported}; none is
NOT_EXPORTED: dict[str, str] = {}
CLOSE = {"actsub": 1e-4}  # a logarithm of what is nearly nothing
WITHIN = 1e-5  # of the spread of the scores


@pytest.fixture(scope="module")
def on() -> Problem:
    return problem()


def run(inputs: dict[str, Recorded], outputs: dict[str, Recorded], given: dict[str, np.ndarray]) -> list[np.ndarray]:
    graph = spox.build({k: x.var for k, x in inputs.items()}, {k: x.var for k, x in outputs.items()},
                       drop_unused_inputs=True)  # fmt: skip
    assert not {n.op_type for n in graph.graph.node} & {"If", "Loop", "Scan"}, "OpenVINO computes some of these wrongly"
    assert all(o.domain == "" for o in graph.opset_import)
    onnx.checker.check_model(graph)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: given[i.name] for i in session.get_inputs()})


@pytest.mark.parametrize("name", [name for name in DETECTORS if name not in NOT_EXPORTED])
def test_graph_is_the_score(name: str, on: Problem) -> None:
    recipe, _ = resolve(name, on.capabilities)
    detector = fitted(recipe, on)
    batch = both(on.shown(detector.passes))
    given = {path: x.astype(np.float32) for path, x in batch.named().items()}
    expected = np.asarray(to_namespace(detector, np, np.float32).score(Activations.of(given)))
    with recording():
        inputs = {path: argument(np.float32, ("n", *x.shape[1:])) for path, x in given.items()}
        score = to_namespace(detector, xp, np.float32).score(Activations.of(inputs))
        (found,) = run(inputs, {"score": score}, given)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE.get(name, WITHIN) * np.ptp(expected))


X = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)

FORMULAS = {  # what detectors do not happen to use in every form: (formula of the namespace and an array, in NumPy)
    "slice, last": (lambda ns, x: x[..., -1], lambda x: x[..., -1]),
    "slice, step": (lambda ns, x: x[1:, ::2], lambda x: x[1:, ::2]),
    "slice, backwards": (lambda ns, x: x[:, ::-1], lambda x: x[:, ::-1]),
    "slice, new axis": (lambda ns, x: x[:, None, :2], lambda x: x[:, None, :2]),
    "number first": (lambda ns, x: 2 / (1 - x * x), lambda x: 2 / (1 - x * x)),
    "norm, kept": (lambda ns, x: ns.sqrt(ns.sum(x * x, axis=-1, keepdims=True)),
                   lambda x: np.sqrt(np.sum(x * x, axis=-1, keepdims=True))),
    "norm": (lambda ns, x: ns.sqrt(ns.sum(x * x, axis=-1)), lambda x: np.sqrt(np.sum(x * x, axis=-1))),
    "sum of squares over rows": (lambda ns, x: ns.sqrt(ns.sum(x * x, axis=0)), lambda x: np.sqrt(np.sum(x * x, 0))),
    "log1p": (lambda ns, x: ns.log1p(ns.abs(x) * 1e-6), lambda x: np.log1p(np.abs(x) * np.float32(1e-6))),
    "expm1": (lambda ns, x: ns.expm1(x * 1e-6), lambda x: np.expm1(x * np.float32(1e-6))),
    "filled beside narrower": (lambda ns, x: ns.zeros_like(x) + x[:, :1], lambda x: np.zeros_like(x) + x[:, :1]),
    "filled in where": (lambda ns, x: ns.where(x[:, :1] > 0, ns.ones_like(x), ns.zeros_like(x)),
                        lambda x: np.where(x[:, :1] > 0, np.ones_like(x), np.zeros_like(x))),
    "sum of filled": (lambda ns, x: ns.sum(ns.ones_like(x), axis=-1), lambda x: np.sum(np.ones_like(x), axis=-1)),
    "sum of truths": (lambda ns, x: ns.sum(x > 0, axis=1), lambda x: np.sum(x > 0, axis=1)),
    "sort": (lambda ns, x: ns.sort(x, axis=-1, descending=True), lambda x: -np.sort(-x, axis=-1)),
    "argsort": (lambda ns, x: ns.argsort(x, axis=-1), lambda x: np.argsort(x, axis=-1)),
    "stacked": (lambda ns, x: ns.stack([x[:, 0], x[:, 2]], axis=1), lambda x: np.stack([x[:, 0], x[:, 2]], axis=1)),
    "column of stacked": (lambda ns, x: ns.stack([x[:, 0], x[:, 2]], axis=1)[:, -1], lambda x: x[:, 2]),
    "powers": (lambda ns, x: ns.abs(x) ** 1.5 + x**2 + x**1, lambda x: np.abs(x) ** np.float32(1.5) + x**2 + x),
    "not equal": (lambda ns, x: ~((x != x[:, :1]) & (x <= 0)), lambda x: ~((x != x[:, :1]) & (x <= 0))),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name: str) -> None:
    ours, numpys = FORMULAS[name]
    with recording():
        x = argument(np.float32, ("n", 5))
        (found,) = run({"x": x}, {"y": ours(xp, x)}, {"x": X})
    expected = numpys(X)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("bisected", [10, 10_000])
def test_counting_and_bisection_agree_with_numpy(side: str, bisected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xp, "BISECTED", bisected)
    reference = np.repeat(np.sort(np.random.default_rng(1).normal(size=100)).astype(np.float32), 3)
    asked = np.concatenate([reference[::7], np.float32([-9, 9]), np.random.default_rng(2).normal(size=50)])
    asked = asked.astype(np.float32)
    with recording():
        x = argument(np.float32, ("n",))
        below = xp.searchsorted(xp.asarray(reference), x, side=side)
        (found, floats) = run({"x": x}, {"i": below, "f": xp.astype(below, np.float32)}, {"x": asked})
    np.testing.assert_array_equal(found, np.searchsorted(reference, asked, side=side))
    np.testing.assert_array_equal(floats, found)


def test_equal_values_are_recorded_once() -> None:
    with recording():
        x = argument(np.float32, ("n", 5))
        y = xp.exp(x) + xp.exp(x) * 2.0 + constant_twice()
        graph = spox.build({"x": x.var}, {"y": y.var})
    assert [n.op_type for n in graph.graph.node].count("Exp") == 1
    assert len(graph.graph.initializer) == 2  # 2.0 and the one constant


def constant_twice() -> Recorded:
    one, two = (Recorded(constant(np.float32([1, 2, 3, 4, 5]))) for _ in range(2))
    assert one.var is two.var
    return one


def test_a_formula_that_asks_for_values_is_told() -> None:
    with recording():
        x = argument(np.float32, ("n", 5))
        for ask in (bool, float, len, np.asarray):
            with pytest.raises(TypeError, match="has no values yet"):
                ask(x)
        with pytest.raises(TypeError, match="index"):
            _ = x[np.array([1, 2])]


def test_members_are_counted_column_by_column() -> None:
    """OpenVINO 2026.4 computes one comparison of three axes wrongly, without a word."""
    references = [np.sort(np.random.default_rng(i).normal(size=r)).astype(np.float32) for i, r in enumerate((30, 40))]
    with recording():
        x = argument(np.float32, ("n", 2))
        below = xp.counted_below([xp.asarray(r) for r in references], x)
        graph = spox.build({"x": x.var}, {"y": below.var})
        (found,) = run({"x": x}, {"y": below}, {"x": X[:, :2]})
    expected = np.stack([np.searchsorted(r, X[:, i]) for i, r in enumerate(references)], axis=1)
    np.testing.assert_array_equal(found, expected)
    shaped = onnx.shape_inference.infer_shapes(graph).graph
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in shaped.value_info}
    assert [ranks[n.output[0]] for n in graph.graph.node if n.op_type == "Less"] == [2, 2]

"""What every detector promises, as functions that assert it: run them on your own.

They need the packages of `pip install 'knownot[test]'` (torch, array-api-strict, ndonnx).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ..arrays import Activations, Head, Offers, softmax
from ..detectors import Detector, Recipe, moved, resolve
from ..detectors.passes import Pass, extended
from ..stats import gather
from .toy import Toy


@dataclass(frozen=True)
class Problem:
    """A small classifier whose head is trained, and what it computes for images of its classes and of none."""

    head: Head
    offers: Offers
    train: Activations
    labels: np.ndarray  # [n], of `train`
    new: Activations  # known images, new to the classifier: they rank the members of a combination
    known: Activations
    unknown: Activations
    model: Toy  # what computes all that, and `inputs`: of what, by the names of the fields above
    inputs: Mapping[str, np.ndarray]

    def shown(self, passes: Iterable[Pass]) -> Problem:
        """With what extra passes of all these images give."""
        passes = tuple(passes)
        sets: dict[str, Any] = {
            name: extended(self.model, x, getattr(self, name), passes) for name, x in self.inputs.items()
        }
        return replace(self, **sets) if passes else self


def problem(seed: int = 0, classes: int = 5, d: int = 40, dtype: Any = np.float64) -> Problem:
    """Points around `classes` centres, two random rectified layers (a stage, the features), and a trained head.

    The unknown lie between the classes, so their logits are small, and off the directions that known points take,
    so their features are far: every detector can tell them. (With an untrained head, far features have large
    logits and look known to the energy.)
    """
    rng = np.random.default_rng(seed)
    inside, outside, hidden = classes + 1, 6, 30
    centres = np.linalg.qr(rng.normal(size=(inside, classes)))[0].T * 4
    first = rng.normal(size=(inside + outside, hidden)) / np.sqrt(inside)
    second = rng.normal(size=(hidden, d)) / np.sqrt(hidden)

    def points(n: int, known: bool) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(classes, size=n)
        signal = (centres[labels] if known else 0) + rng.normal(size=(n, inside)) * 0.4
        return np.concatenate([signal, rng.normal(size=(n, outside)) * (0.1 if known else 1.2)], axis=1), labels

    def layers(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        stage = np.maximum(x @ first, 0)
        return stage, np.maximum(stage @ second + 0.1, 0)

    known, labels = points(60 * classes, True)
    head = _trained(layers(known)[1], labels, classes)

    spread = np.random.default_rng([seed, 1])  # of its own, so that maps leave the other numbers as they are

    def seen(x: np.ndarray) -> Activations:
        stage, features = (a.astype(dtype) for a in layers(x))
        maps = {"first": _map(stage, spread), "last": _map(features, spread)}
        logits = head(features).astype(dtype)
        none = logits.max(axis=1, keepdims=True) * np.array([-0.5, -0.3], dtype)  # two none-classes, larger for unknown
        return Activations(logits, features, {"first": stage}, maps, extra={"none/logits": none})

    kinds = frozenset({"probabilities", "logits", "features", "head", "stages", "maps", "gradient", "dropout", "none"})
    offers = Offers(kinds, classes, ("first",), ("first", "last"))
    rows = [known, *(points(n, k)[0] for n, k in ((150, True), (100, True), (100, False)))]
    train, new, test, unknown = map(seen, rows)
    inputs = dict(zip(("train", "new", "known", "unknown"), (x[:, None, :, None] for x in rows), strict=True))
    toy = Toy(first, second, head, offers, dtype)
    return Problem(head, offers, train, labels, new, test, unknown, toy, inputs)


def _map(mean: np.ndarray, rng: np.random.Generator, h: int = 2, w: int = 3) -> np.ndarray:
    """A map [n, k, h, w] with this mean over space [n, k], and a pattern common to all images that outweighs it: what
    stands out most is not what the head reads."""
    n, k = mean.shape
    pattern = np.outer(np.where(np.arange(k) % 2, 1, -1), [-1, 1] * (h * w // 2)) * 4.0
    noise = rng.normal(size=(n, k, h * w)) * 0.1
    maps = mean[:, :, None] + pattern + noise - noise.mean(axis=2, keepdims=True)
    return maps.reshape(n, k, h, w).astype(mean.dtype)


def _trained(features: np.ndarray, labels: np.ndarray, classes: int) -> Head:
    """Softmax regression with weight decay, by plain gradient descent."""
    weight, bias = np.zeros((classes, features.shape[1])), np.zeros(classes)
    truth = np.eye(classes)[labels]
    step = 1 / np.mean(np.sum(features**2, axis=1))
    for _ in range(500):
        error = (softmax(features @ weight.T + bias) - truth) / len(labels)
        weight -= step * (error.T @ features + 1e-3 * weight)
        bias -= step * error.sum(axis=0)
    return Head(weight, bias)


def fitted(recipe: Recipe, on: Problem) -> Detector:
    """The detector, fitted in one pass over batches of the problem's training images, and ranked."""
    on = on.shown(recipe.passes(held_out=False))
    cuts = np.array_split(np.arange(len(on.train)), 5)
    found = gather([(on.train.take(rows), on.labels[rows]) for rows in cuts], recipe.wants(on.offers).values())
    detector: Detector = recipe.fit(found, on.head, on.offers)
    return detector.rank(np.asarray(detector.parts(on.shown(detector.passes).new)))


def _both(on: Problem) -> Activations:
    pairs = {path: np.concatenate([x, on.unknown.named()[path]]) for path, x in on.known.named().items()}
    return Activations.of(pairs)


def check_one_finite_score_per_image(detector: Detector, on: Problem) -> None:
    for batch in (_both(on), on.known.take(slice(0, 1)), on.known.take(slice(0, 0))):
        score, parts = detector.score(batch), detector.parts(batch)
        assert score.shape == (len(batch),), f"scores of shape {score.shape} for {len(batch)} images"
        assert np.isfinite(score).all(), "a score is NaN or infinite"
        assert parts.shape == (len(batch), len(detector.members))
        np.testing.assert_array_equal(detector.join(parts), score, err_msg="join(parts) is not score")


def check_batch_and_order_do_not_matter(detector: Detector, on: Problem) -> None:
    batch = _both(on)
    whole = detector.score(batch)
    order = np.random.default_rng(0).permutation(len(batch))
    close = {"rtol": 1e-7, "atol": 1e-7 * np.ptp(whole)}
    np.testing.assert_allclose(detector.score(batch.take(order)), whole[order], **close, err_msg="order matters")
    np.testing.assert_allclose(detector.score(batch.take(slice(0, 3))), whole[:3], **close, err_msg="batch matters")


def check_input_is_left_alone(detector: Detector, on: Problem) -> None:
    batch = Activations.of({path: x.copy() for path, x in _both(on).named().items()})
    before = {path: x.copy() for path, x in batch.named().items()}
    for x in batch.named().values():
        x.flags.writeable = False
    detector.score(batch)
    for path, x in batch.named().items():
        np.testing.assert_array_equal(x, before[path], err_msg=f"{path} was changed")


def check_unknown_scores_higher(detector: Detector, on: Problem) -> None:
    known, unknown = detector.score(on.known), detector.score(on.unknown)
    auroc = np.mean(unknown[:, None] > known) + np.mean(unknown[:, None] == known) / 2
    assert auroc > 0.8, f"AUROC {auroc:.3f}: the sign is wrong, or the detector does not see the difference"


def check_same_on_torch(detector: Detector, on: Problem) -> None:
    import torch

    _check_namespace(detector, on, array_namespace(torch.zeros(1)))


def check_same_on_the_strict_array_api(detector: Detector, on: Problem) -> None:
    import array_api_strict

    _check_namespace(detector, on, array_api_strict)


def _check_namespace(detector: Detector, on: Problem, xp: Any) -> None:
    batch = _both(on)
    for dtype, tolerance in (("float64", 1e-7), ("float32", 1e-3)):
        there = moved(detector, xp, getattr(xp, dtype))
        given = {path: xp.asarray(x, dtype=getattr(xp, dtype)) for path, x in batch.named().items()}
        score = there.score(Activations.of(given))
        assert type(score) is type(given["logits"]), f"{xp.__name__} activations gave a {type(score).__name__}"
        assert str(score.dtype).rpartition(".")[2] == dtype, f"{dtype} activations gave {score.dtype} scores"
        _close(np.asarray(score), detector.score(batch), tolerance, f"{xp.__name__} {dtype}")


def check_same_in_float32(detector: Detector, on: Problem) -> None:
    batch = _both(on)
    given = Activations.of({path: x.astype(np.float32) for path, x in batch.named().items()})
    score = moved(detector, array_namespace(given.logits), np.float32).score(given)
    assert score.dtype == np.float32, f"float32 activations gave {score.dtype} scores"
    _close(score, detector.score(batch), 1e-3, "float32")


def check_same_as_an_onnx_graph(detector: Detector, on: Problem) -> None:
    """Running `score` on arrays that record a graph (ndonnx) gives that graph; onnxruntime then computes the same."""
    import ndonnx as ndx
    import onnxruntime as ort

    batch = _both(on)
    for dtype, tolerance in (("float64", 1e-7), ("float32", 1e-3)):
        given = {path: x.astype(dtype) for path, x in batch.named().items()}
        inputs = {p: ndx.argument(shape=("n", *x.shape[1:]), dtype=getattr(ndx, dtype)) for p, x in given.items()}
        score = moved(detector, ndx, getattr(ndx, dtype)).score(Activations.of(inputs))
        model = ndx.build(inputs, {"score": score})
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (out,) = session.run(None, {i.name: given[i.name] for i in session.get_inputs()})
        _close(out, detector.score(batch), tolerance, f"ONNX {dtype}")


def _close(given: np.ndarray, expected: np.ndarray, tolerance: float, what: str) -> None:
    spread = np.ptp(expected)
    np.testing.assert_allclose(given, expected, rtol=tolerance, atol=tolerance * spread, err_msg=what)


def check_state_is_its_fields(detector: Detector, on: Problem) -> None:
    """Rebuilt from its dataclass fields alone, which hold nothing but plain values, arrays and such dataclasses."""
    np.testing.assert_array_equal(_rebuilt(detector).score(on.known), detector.score(on.known))


def _rebuilt(thing: Any) -> Any:
    if is_dataclass(thing) and not isinstance(thing, type):
        assert thing.__dataclass_params__.frozen, f"{type(thing).__name__} is not frozen"  # type: ignore[attr-defined]
        state = {f.name: _rebuilt(getattr(thing, f.name)) for f in fields(thing)}
        assert state.keys() == vars(thing).keys(), f"{type(thing).__name__} keeps state outside its fields"
        return type(thing)(**state)
    if isinstance(thing, tuple):
        return tuple(map(_rebuilt, thing))
    plain = thing is None or type(thing) in (bool, int, float, str, np.ndarray)
    assert plain, f"a {type(thing).__name__} cannot be saved"
    return thing.copy() if isinstance(thing, np.ndarray) else thing


CHECKS: dict[str, Callable[[Detector, Problem], None]] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_one_finite_score_per_image,
        check_batch_and_order_do_not_matter,
        check_input_is_left_alone,
        check_unknown_scores_higher,
        check_same_on_torch,
        check_same_on_the_strict_array_api,
        check_same_in_float32,
        check_same_as_an_onnx_graph,
        check_state_is_its_fields,
    )
}


def check_detector(
    detector: Any, *, exempt: Mapping[str, str] | None = None, on: Problem | None = None, only: str | None = None
) -> None:
    """Assert every promise of a detector on a toy problem. AssertionError names the one that it breaks.

    detector: whatever `detectors.resolve` takes. exempt: {name of a check: why it is not kept}.
    """
    exempt = exempt or {}
    strange = exempt.keys() - CHECKS.keys()
    assert not strange, f"no such check: {', '.join(strange)}"
    on = problem() if on is None else on
    recipe, _ = resolve(detector, on.offers)
    ready = fitted(recipe, on)
    on = on.shown(ready.passes)
    for name, check in CHECKS.items():
        if name not in exempt and only in (None, name):
            check(ready, on)

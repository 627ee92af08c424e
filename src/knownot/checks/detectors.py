"""What every detector promises, as functions that assert it: run them on your own.

They need the packages of `pip install 'knownot[test]'` (torch, jax, array-api-strict, ndonnx).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from .. import saving
from ..arrays import Activations
from ..detectors import Detector, resolve, to_namespace
from .fits import FIT_CHECKS
from .problems import Problem, auroc, both, fitted, problem

__all__ = ["CHECKS", "FIT_CHECKS", "Problem", "check_detector", "fitted", "problem"]


def check_one_finite_score_per_image(detector: Detector, on: Problem) -> None:
    for batch in (both(on), on.known.take(slice(0, 1)), on.known.take(slice(0, 0))):
        score, member_scores = detector.score(batch), detector.member_scores(batch)
        assert score.shape == (len(batch),), f"scores of shape {score.shape} for {len(batch)} images"
        assert np.isfinite(score).all(), "a score is NaN or infinite"
        assert member_scores.shape == (len(batch), len(detector.members))
        np.testing.assert_array_equal(
            detector.combine(member_scores), score, err_msg="combine(member_scores) is not score"
        )


def check_batch_and_order_do_not_matter(detector: Detector, on: Problem) -> None:
    batch = both(on)
    whole = detector.score(batch)
    order = np.random.default_rng(0).permutation(len(batch))
    close = {"rtol": 1e-7, "atol": 1e-7 * np.ptp(whole)}
    np.testing.assert_allclose(detector.score(batch.take(order)), whole[order], **close, err_msg="order matters")
    np.testing.assert_allclose(detector.score(batch.take(slice(0, 3))), whole[:3], **close, err_msg="batch matters")


def check_input_is_left_alone(detector: Detector, on: Problem) -> None:
    batch = Activations.of({path: x.copy() for path, x in both(on).named().items()})
    before = {path: x.copy() for path, x in batch.named().items()}
    for x in batch.named().values():
        x.flags.writeable = False
    detector.score(batch)
    for path, x in batch.named().items():
        np.testing.assert_array_equal(x, before[path], err_msg=f"{path} was changed")


def check_unknown_scores_higher(detector: Detector, on: Problem) -> None:
    found = auroc(detector.score(on.known), detector.score(on.unknown))
    assert found > 0.8, f"AUROC {found:.3f}: the sign is wrong, or the detector does not see the difference"


def check_same_on_torch(detector: Detector, on: Problem) -> None:
    import torch

    _check_namespace(detector, on, array_namespace(torch.zeros(1)))


def check_same_on_jax(detector: Detector, on: Problem) -> None:
    """In float32: as it comes, JAX knows no numbers of 64 bits."""
    import jax

    _check_namespace(detector, on, array_namespace(jax.numpy.zeros(1)), {"float32": 1e-3})


def check_same_on_the_strict_array_api(detector: Detector, on: Problem) -> None:
    import array_api_strict

    _check_namespace(detector, on, array_api_strict)


TOLERANCE = {"float64": 1e-7, "float32": 1e-3}


def _check_namespace(detector: Detector, on: Problem, xp: Any, dtypes: Mapping[str, float] = TOLERANCE) -> None:
    batch = both(on)
    for dtype, tolerance in dtypes.items():
        there = to_namespace(detector, xp, getattr(xp, dtype))
        given = {path: xp.asarray(x, dtype=getattr(xp, dtype)) for path, x in batch.named().items()}
        score = there.score(Activations.of(given))
        assert type(score) is type(given["logits"]), f"{xp.__name__} activations gave a {type(score).__name__}"
        assert str(score.dtype).rpartition(".")[2] == dtype, f"{dtype} activations gave {score.dtype} scores"
        _close(np.asarray(score), detector.score(batch), tolerance, f"{xp.__name__} {dtype}")


def check_same_in_float32(detector: Detector, on: Problem) -> None:
    batch = both(on)
    given = Activations.of({path: x.astype(np.float32) for path, x in batch.named().items()})
    score = to_namespace(detector, array_namespace(given.logits), np.float32).score(given)
    assert score.dtype == np.float32, f"float32 activations gave {score.dtype} scores"
    _close(score, detector.score(batch), 1e-3, "float32")


def check_same_as_an_onnx_graph(detector: Detector, on: Problem) -> None:
    """Running `score` on arrays that record a graph (ndonnx) gives that graph; onnxruntime then computes the same."""
    import ndonnx as ndx
    import onnxruntime as ort

    batch = both(on)
    for dtype, tolerance in TOLERANCE.items():
        given = {path: x.astype(dtype) for path, x in batch.named().items()}
        inputs = {p: ndx.argument(shape=("n", *x.shape[1:]), dtype=getattr(ndx, dtype)) for p, x in given.items()}
        score = to_namespace(detector, ndx, getattr(ndx, dtype)).score(Activations.of(inputs))
        model = ndx.build(inputs, {"score": score})
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (out,) = session.run(None, {i.name: given[i.name] for i in session.get_inputs()})
        _close(out, detector.score(batch), tolerance, f"ONNX {dtype}")


def _close(given: np.ndarray, expected: np.ndarray, tolerance: float, what: str) -> None:
    spread = np.ptp(expected)
    np.testing.assert_allclose(given, expected, rtol=tolerance, atol=tolerance * spread, err_msg=what)


def check_state_is_its_fields(detector: Detector, on: Problem) -> None:
    """Rebuilt from its dataclass fields alone, which hold nothing but plain values, arrays and such dataclasses."""
    np.testing.assert_array_equal(_rebuild(detector).score(on.known), detector.score(on.known))


def _rebuild(thing: Any) -> Any:
    if is_dataclass(thing) and not isinstance(thing, type):
        assert thing.__dataclass_params__.frozen, f"{type(thing).__name__} is not frozen"  # type: ignore[attr-defined]
        state = {f.name: _rebuild(getattr(thing, f.name)) for f in fields(thing)}
        assert state.keys() == vars(thing).keys(), f"{type(thing).__name__} keeps state outside its fields"
        return type(thing)(**state)
    if isinstance(thing, tuple):
        return tuple(map(_rebuild, thing))
    plain = thing is None or type(thing) in (bool, int, float, str, np.ndarray)
    assert plain, f"a {type(thing).__name__} cannot be saved"
    return thing.copy() if isinstance(thing, np.ndarray) else thing


def check_state_has_one_layout(detector: Detector, on: Problem) -> None:
    """Every array in C order, as saving writes it: in another one BLAS may round otherwise, on some processors only."""
    for path, x in _arrays_in(detector, type(detector).__name__):
        assert x.flags.c_contiguous, f"{path}, of shape {x.shape}, is not in C order: strides {x.strides}"
        assert x.dtype.isnative, f"{path} is of {x.dtype}, not in the byte order of this machine"


def _arrays_in(thing: Any, path: str) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(thing, np.ndarray):
        yield path, thing
    elif isinstance(thing, tuple):
        for i, inner in enumerate(thing):
            yield from _arrays_in(inner, f"{path}[{i}]")
    elif is_dataclass(thing) and not isinstance(thing, type):
        for f in fields(thing):
            yield from _arrays_in(getattr(thing, f.name), f"{path}.{f.name}")


def check_saved_and_loaded_bit_for_bit(detector: Detector, on: Problem) -> None:
    """Written as a saved classifier's folder is, read again: the same scores, to the last bit, and no other state."""
    with tempfile.TemporaryDirectory() as folder:
        saving.write(Path(folder), {"detector": detector}, about={})
        things, _, _ = saving.read(Path(folder), _kinds(detector))
    loaded, batch = things["detector"], both(on)
    assert type(loaded) is type(detector)
    for dtype in (np.float64, np.float32):
        given = Activations.of({path: x.astype(dtype) for path, x in batch.named().items()})
        scores = [to_namespace(d, np, dtype).score(given) for d in (detector, loaded)]
        np.testing.assert_array_equal(scores[1], scores[0], err_msg="what is loaded scores otherwise")


def _kinds(thing: Any) -> dict[str, type]:
    """The dataclasses that a fitted detector is built of, by name."""
    if isinstance(thing, tuple):
        return {name: kind for inner in thing for name, kind in _kinds(inner).items()}
    if not is_dataclass(thing) or isinstance(thing, type):
        return {}
    inside = _kinds(tuple(getattr(thing, f.name) for f in fields(thing)))
    return {type(thing).__name__: type(thing), **inside}


CHECKS: dict[str, Callable[[Detector, Problem], None]] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_one_finite_score_per_image,
        check_batch_and_order_do_not_matter,
        check_input_is_left_alone,
        check_unknown_scores_higher,
        check_same_on_torch,
        check_same_on_jax,
        check_same_on_the_strict_array_api,
        check_same_in_float32,
        check_same_as_an_onnx_graph,
        check_state_is_its_fields,
        check_state_has_one_layout,
        check_saved_and_loaded_bit_for_bit,
    )
}


def check_detector(
    detector: Any, *, exempt: Mapping[str, str] | None = None, on: Problem | None = None, only: str | None = None
) -> None:
    """Assert every promise of a detector on a toy problem.

    Parameters
    ----------
    detector : DetectorLike
        Whatever `detectors.resolve` takes.
    exempt : dict of str to str, optional
        {name of a check: why it is not kept}.
    on : Problem, optional
        The toy problem; by default the one that the package's own tests use.
    only : str, optional
        The name of the one check to run.

    Raises
    ------
    AssertionError
        It names the promise that is broken.

    Examples
    --------
    >>> from knownot.checks import check_detector
    >>> check_detector("energy", only="unknown_scores_higher")
    """
    exempt = exempt or {}
    strange = ({*exempt, only} - {None}) - CHECKS.keys() - FIT_CHECKS.keys()
    assert not strange, f"no such check: {', '.join(map(str, strange))}"
    on = problem() if on is None else on
    recipe, _ = resolve(detector, on.capabilities)
    ready = fitted(recipe, on)
    shown = on.shown(ready.passes)
    for name in (*CHECKS, *FIT_CHECKS):
        if name not in exempt and only in (None, name):
            CHECKS[name](ready, shown) if name in CHECKS else FIT_CHECKS[name](recipe, on)

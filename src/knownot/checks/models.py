"""The promises of every model adapter, as one function that anybody can run on theirs."""

from __future__ import annotations

import numpy as np

from ..arrays import Activations, Output
from ..errors import InputError, OptionError
from ..models.base import Model
from ..models.none_classes import NONE

KINDS = frozenset(Output) - {Output.SECOND}


def check_model(model: Model, batch: np.ndarray, *, tolerance: float = 1e-4) -> None:
    """Raise AssertionError, saying which promise is broken, unless `model` keeps them all on `batch`.

    batch: at least three different images, float32 [n, h, w, k] or [n, k, h, w], of the classifier's own input.
    tolerance: of absolute differences, relative to the largest absolute value of an array (or 1).
    """
    batch = np.array(batch, dtype=np.float32)
    assert len(batch) >= 3, f"check_model needs at least three images, it was given {len(batch)}"
    before, fingerprint = batch.copy(), model.fingerprint
    batch.setflags(write=False)
    seen = model.activations(batch)
    assert np.array_equal(batch, before), "activations() changed the batch that it was given"
    _shapes(model, seen, len(batch))
    _offers(model, seen)

    for path, x in model.activations(batch).named().items():
        same = np.array_equal(x, seen.named()[path])
        assert same, f"two calls on the same batch give different {path}, by up to {_worst(x, seen.named()[path]):.3g}"
    order = np.arange(len(batch))[::-1]
    _same(model, batch[order], seen.take(order), tolerance, "in reverse order")
    _same(model, batch[:1], seen.take(slice(0, 1)), tolerance, "of the first image alone")
    _same(model, batch[1:], seen.take(slice(1, None)), tolerance, "without the first image")
    _same(
        model, np.concatenate([batch[1:], batch[:1]]), seen.take(np.roll(order[::-1], -1)), tolerance, "rotated by one"
    )
    _other_layout(model, batch, seen, tolerance)
    _maps(model, batch, seen, tolerance)

    if "head" in model.capabilities.outputs:
        again = model.head(seen.features) if model.head else None
        assert again is not None, "offers 'head', but head is None"
        scale = max(1.0, float(np.abs(seen.logits).max()))
        worst = _worst(again, seen.logits)
        assert worst <= 10 * tolerance * scale, f"head(features) differs from the logits by up to {worst:.3g}"
    assert model.fingerprint == fingerprint, "the fingerprint changed while the model was used"


def _shapes(model: Model, seen: Activations, n: int) -> None:
    for path, x in seen.named().items():
        assert type(x) is np.ndarray, f"{path} is a {type(x).__name__}, not a NumPy array"
        assert x.dtype == np.float32, f"{path} is {x.dtype}, not float32"
        assert len(x) == n, f"{path} has {len(x)} rows for {n} images"
        assert x.ndim == (4 if path.startswith("maps/") else 2), f"{path} has shape {x.shape}"
        assert np.isfinite(x).all(), f"{path} is not finite"
    c = model.capabilities.classes
    assert c >= 2, f"capabilities.classes is {c}"
    assert seen.logits.shape[1] == c, f"logits have {seen.logits.shape[1]} columns, capabilities.classes is {c}"
    for name, x in seen.stages.items():
        k, odd = divmod(x.shape[1], 2)
        assert not odd, f"stage {name!r} has {x.shape[1]} columns: means and standard deviations cannot be as many"
        assert (x[:, k:] >= 0).all(), (
            f"stage {name!r}: its second half should be standard deviations, but has negatives"
        )


def _offers(model: Model, seen: Activations) -> None:
    shown, head = model.capabilities.outputs, model.head
    assert model.framework, "framework is not said"
    assert shown <= KINDS, f"shows unknown outputs: {', '.join(sorted(shown - KINDS))}"
    assert "probabilities" in shown, "every classifier offers 'probabilities'"
    assert ("features" in shown) == (seen.features is not None), "offers 'features' and features do not agree"
    assert ("head" in shown) == (head is not None), f"offers {sorted(shown)}, but head is {type(head).__name__}"
    assert head is None or seen.features is not None, "a head without features"
    assert ("none" in shown) == (NONE in seen.extra), "offers 'none' and extra logits of none-classes do not agree"
    assert ("stages" in shown) == bool(model.capabilities.stages), (
        "offers 'stages' and capabilities.stages do not agree"
    )
    absent = set(model.capabilities.stages) - set(seen.stages)
    assert not absent, f"offers stages that it does not return: {', '.join(sorted(absent))}"
    nameless = set(seen.stages) - set(model.stage_layers)
    assert not nameless, f"stage_layers does not say where these come from: {', '.join(sorted(nameless))}"
    if head is not None and seen.features is not None:
        shape = (model.capabilities.classes, seen.features.shape[1])
        assert tuple(head.weight.shape) == shape, f"head.weight has shape {tuple(head.weight.shape)}, expected {shape}"
        assert tuple(head.bias.shape) == shape[:1], (
            f"head.bias has shape {tuple(head.bias.shape)}, expected {shape[:1]}"
        )
    names = model.class_names
    assert names is None or len(names) == model.capabilities.classes, "class_names are not as many as the classes"


def _maps(model: Model, batch: np.ndarray, seen: Activations, tolerance: float) -> None:
    names = model.capabilities.maps
    assert ("maps" in model.capabilities.outputs) == bool(names), "offers 'maps' and offers.maps do not agree"
    assert not seen.maps, "activations() shows maps that were not asked for"
    try:
        model.activations(batch, maps=("no such map",))
    except OptionError:
        pass
    else:
        raise AssertionError("a map that is not offered was asked for, and there was no OptionError")
    if not names:
        return
    full = model.activations(batch, maps=names)
    _shapes(model, full, len(batch))
    assert tuple(full.maps) == names, f"offers the maps {names}, shows {tuple(full.maps)}"
    for name, maps in full.maps.items():
        pooled = np.concatenate([maps.mean(axis=(2, 3)), maps.std(axis=(2, 3))], axis=1)
        worst = _worst(pooled, seen.stages[name]) if pooled.shape == seen.stages[name].shape else np.inf
        limit = 10 * tolerance * max(1.0, float(np.abs(seen.stages[name]).max()))
        assert worst <= limit, (
            f"the map {name!r}, {maps.shape}, is not [n, k, h, w] of what the stage of that name is pooled from"
        )
    bare = Activations.of({path: x for path, x in full.named().items() if not path.startswith("maps/")})
    _same(model, batch, bare, tolerance, "without maps")
    _same(model, batch[::-1], full.take(np.arange(len(batch))[::-1]), tolerance, "with maps, in reverse order", names)
    one = {path: x for path, x in full.named().items() if not path.startswith("maps/") or path == f"maps/{names[0]}"}
    _same(model, batch, Activations.of(one), tolerance, "with the first map alone", names[:1])


def _same(
    model: Model,
    batch: np.ndarray,
    expected: Activations,
    tolerance: float,
    what: str,
    maps: tuple[str, ...] = (),
) -> None:
    got, want = model.activations(batch, maps=maps).named(), expected.named()
    assert got.keys() == want.keys(), f"the batch {what} gives {sorted(got)}, the whole batch {sorted(want)}"
    for path, x in got.items():
        assert x.shape == want[path].shape, f"{path} of the batch {what} has shape {x.shape}, not {want[path].shape}"
        limit = tolerance * max(1.0, float(np.abs(want[path]).max()))
        worst = _worst(x, want[path])
        assert worst <= limit, f"{path} of the batch {what} differs by up to {worst:.3g} (allowed {limit:.3g})"


def _other_layout(model: Model, batch: np.ndarray, seen: Activations, tolerance: float) -> None:
    own = model.input.to_layout(batch)
    other = np.ascontiguousarray(own.transpose((0, 3, 1, 2) if model.input.layout == "NHWC" else (0, 2, 3, 1)))
    try:
        model.input.to_layout(other)
    except InputError:  # fits both layouts: refused, as it should be
        return
    _same(model, other, seen, tolerance, "in the other layout")


def _worst(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())

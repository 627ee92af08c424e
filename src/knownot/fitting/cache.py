"""What networks computed, kept on disk, so that it need not be computed again; and what it cost.

A part is kept under a hash of everything that it follows from: the network (its weights, and what it answers to a fixed
batch), the batch of preprocessed images number by number, and what was made of its maps or which extra pass. So nothing
kept can be stale: another image, preprocessing or network asks for another name. One file is one batch.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Activations, Preprocess
from ..detectors.passes import Pass
from ..detectors.reducing import reducing
from ..models import Model
from ..models.base import probe
from ..models.wrapper import Wrapper
from ..plots.writing import put
from ..stats import Reduction
from ..version import __version__

FORWARD = "forward"  # the name of the pass that all detectors share


@dataclass
class Cost:
    """Of one pass over images: seconds by the clock, and how many images went through the network, there and back."""

    images: int = 0
    seconds: float = 0.0
    forward: int = 0
    back: int = 0


class Cache:
    """folder: where to keep activations, None to keep none and only count. costs: {pass: what it cost in this run}."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.costs: dict[str, Cost] = {}
        self._networks: dict[int, tuple[Model, str]] = {}

    def model(self, model: Model, reductions: Iterable[Reduction] = ()) -> Model:
        """One that shows the same, with what `reductions` make of its maps, and computes only what is not there."""
        return _Cached(model, tuple(dict.fromkeys(reductions)), self)

    def passes(self, model: Model, passes: Iterable[Pass]) -> list[Pass]:
        """The same, each run only where its result is not there. model: that of the images."""
        return [_CachedPass(one, _Counting(model, self.cost(one.name)), self, self.stamp(model)) for one in passes]

    def cost(self, name: str) -> Cost:
        return self.costs.setdefault(name, Cost())

    def stamp(self, model: Model) -> str:
        """Of a network: weights, form, what it shows, and its answer to a fixed batch up to rounding."""
        if id(model) not in self._networks:
            x = probe(model.input)
            logits = np.asarray(model.forward(x).logits, np.float64)
            answer = np.round(logits / max(float(np.abs(logits).max()), 1e-30), 4) + 0.0
            form = (model.framework, repr(model.input), model.capabilities.stages)
            said = (__version__, model.fingerprint, form, answer)
            self._networks[id(model)] = model, _digest(said)  # the model is held, so that no other has its id
        return self._networks[id(model)][1]

    def read(self, name: str) -> dict[str, np.ndarray] | None:
        """What is kept under this name; None for nothing, or a damaged file."""
        if self.folder is None:
            return None
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            return load(self._path(name).read_bytes())
        except (FileNotFoundError, SafetensorError):
            return None

    def write(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Whole or not at all, so that a run can be stopped at any moment."""
        if self.folder is not None:
            from safetensors.numpy import save

            put(self._path(name), save({path: np.ascontiguousarray(x) for path, x in arrays.items()}))

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / name[:2] / f"{name}.safetensors"


class _Cached(Wrapper):
    def __init__(self, model: Model, reductions: tuple[Reduction, ...], cache: Cache) -> None:
        super().__init__(model)
        self._reductions, self._cache, self._stamp = reductions, cache, cache.stamp(model)

    def forward(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        return self.inner.forward(batch, maps) if maps else self.submit(batch)()

    def submit(self, batch: np.ndarray) -> Callable[[], Activations]:
        cache, cost = self._cache, self._cache.cost(FORWARD)
        cost.images += len(batch)
        own = _digest((self._stamp, batch)) if cache.folder is not None else ""
        names = {repr(one): _digest((own, repr(one))) for one in self._reductions} if own else {}
        base = cache.read(own) if own else None
        kept = {one: found["x"] for one, name in names.items() if (found := cache.read(name)) is not None}
        absent = [one for one in self._reductions if repr(one) not in kept]
        if base is not None and not absent:
            there = replace(Activations.of(base), reduced=kept)
            return lambda: there
        begin = time.perf_counter()
        waiting = [reducing(self.inner, absent).submit(batch)]
        cost.seconds += time.perf_counter() - begin
        cost.forward += len(batch)

        def finish() -> Activations:
            seen = waiting.pop()()
            # In the order in which they come back from disk: BLAS rounds alike then.
            seen = Activations.of({path: np.ascontiguousarray(x) for path, x in seen.named().items()})
            if base is None and own:
                cache.write(own, {path: x for path, x in seen.named().items() if not path.startswith("reduced/")})
            for one, x in seen.reduced.items():
                if own:
                    cache.write(names[one], {"x": x})
            first = seen if base is None else Activations.of(base)
            return replace(first, reduced={**kept, **seen.reduced})

        return finish


class _CachedPass(Pass):
    def __init__(self, inner: Pass, model: Model, cache: Cache, stamp: str) -> None:
        self.inner, self._model, self._cache, self._stamp = inner, model, cache, stamp

    @property
    def name(self) -> str:
        return self.inner.name

    def run(self, model: Model, x: np.ndarray, seen: Activations, way: Preprocess | None) -> dict[str, np.ndarray]:
        cost = self._cache.cost(self.name)
        cost.images += len(x)
        kept = self._cache.folder is not None
        own = _digest((self._stamp, x, self.name, self.inner, way)) if kept else ""
        found = self._cache.read(own) if kept else None
        if found is None:
            begin = time.perf_counter()
            found = {what: np.ascontiguousarray(y) for what, y in self.inner.run(self._model, x, seen, way).items()}
            cost.seconds += time.perf_counter() - begin
            self._cache.write(own, found)
        return found


class _Counting(Wrapper):
    """Counts the images that go through the network."""

    def __init__(self, model: Model, cost: Cost) -> None:
        super().__init__(model)
        self._cost = cost

    def forward(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        self._cost.forward += len(batch)
        return self.inner.forward(batch, maps)

    def gradient(self, batch: np.ndarray, toward: Mapping[str, np.ndarray]) -> np.ndarray:
        self._cost.forward += len(batch)
        self._cost.back += len(batch)
        return self.inner.gradient(batch, toward)

    def dropped(self, batch: np.ndarray, seed: int) -> np.ndarray:
        self._cost.forward += len(batch)
        return self.inner.dropped(batch, seed)


def _digest(thing: Any) -> str:
    """A hash of plain values, arrays, dataclasses and tuples of these, by what is in them."""
    found = hashlib.blake2b(digest_size=20)
    _feed(found, thing)
    return found.hexdigest()


def _feed(found: Any, thing: Any) -> None:
    if isinstance(thing, np.ndarray):
        found.update(f"{thing.dtype.str}{thing.shape}".encode())
        found.update(np.ascontiguousarray(thing).data.cast("B") if thing.size else b"")
    elif is_dataclass(thing) and not isinstance(thing, type):
        found.update(f"{type(thing).__module__}.{type(thing).__qualname__}(".encode())
        for f in fields(thing):
            _feed(found, getattr(thing, f.name))
    elif isinstance(thing, tuple | list):
        found.update(f"({len(thing)}".encode())
        for x in thing:
            _feed(found, x)
    elif isinstance(thing, Mapping):
        _feed(found, tuple(thing.items()))
    elif hasattr(thing, "__dict__") and not callable(thing):
        _feed(found, (type(thing).__qualname__, vars(thing)))
    else:
        found.update(f"{type(thing).__name__}:{thing!r};".encode())

"""What the classifier computes of all images of a task, once: the head-only remedies train on that."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...detectors.network import read
from ...errors import UnsoundError
from ...fitting.extraction import batch_size_for, keys_of
from ...models import Model
from ...progress import bar
from ..base import Settings, Task
from .data import Pool

FEWEST = 256  # outliers drawn at least


@dataclass(frozen=True)
class Seen:
    """{place: [n, d] float32} of known, validation and outlier images; a row for each, in order.

    labels [n] of the known. outliers: as drawn; an image that was drawn twice is there twice. None without outliers.
    """

    known: Mapping[str, np.ndarray]
    labels: np.ndarray
    validation: Mapping[str, np.ndarray]
    outliers: Mapping[str, np.ndarray] | None

    def rows(self, which: str, places: Sequence[str]) -> np.ndarray:
        """[n, d] of the places side by side."""
        return np.concatenate([getattr(self, which)[place] for place in places], axis=1)


def places_of(opened: Model) -> tuple[str, ...]:
    """What this classifier shows of an image: features and earlier stages; log probabilities if there is no such."""
    capabilities = opened.capabilities
    found = [f"stages/{name}" for name in capabilities.stages] if "stages" in capabilities.outputs else []
    found = ["features", *found] if "features" in capabilities.outputs else found
    return tuple(found) or ("logits",)


def look(task: Task, places: Sequence[str] | None = None) -> Seen:
    """One pass over everything. With a folder for checkpoints, what was computed is kept there.

    All outliers that there are, or as many as `settings.ratio` per known image where they are made.
    """
    places = tuple(places or places_of(task.opened))
    settings = task.settings
    known, validation = (computed(task.opened, pool, pool.x, places, settings, what) for pool, what in _pools(task))
    outliers = None
    if task.outliers is not None:
        n = task.outliers.count or max(FEWEST, round(settings.ratio * len(task.known)))
        drawn = task.outliers.draw(n, settings.seed, 0, 0)
        outliers = computed(task.opened, task.known, drawn, places, settings, "outliers")
    return Seen(known, task.known.labels, validation, outliers)


def _pools(task: Task) -> list[tuple[Pool, str]]:
    return [(task.known, "known"), (task.validation, "validation")]


def computed(
    opened: Model, pool: Pool, x: np.ndarray, places: Sequence[str], settings: Settings, what: str
) -> dict[str, np.ndarray]:
    """{place: [n, d] float32} of images x, in the form of `pool`. One forward pass per distinct image.

    Raises ActivationsError for NaN or infinity, UnsoundError where the classifier does not show a place.
    """
    keys = keys_of(np.asarray(x)) if len(x) else np.empty(0, np.uint64)
    _, first, back = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)  # in the order of the images, which readers like
    rows, place_of = first[order], np.empty(len(first), np.int64)
    place_of[order] = np.arange(len(first))
    name = hashlib.sha256(keys[rows].tobytes()).hexdigest() + opened.fingerprint + ",".join(places)
    store = Store(settings.folder, "activations", f"{name};{pool.way}")
    found = dict(store.load())
    if not all(place in found for place in places):
        found = _forward(opened, replace(pool, x=x), rows, places, what, settings.progress)
        store.save(found)
    return {place: found[place][place_of[back]] for place in places}


class Store:
    """Arrays by name in a folder; does nothing without one. `key` says what they are of: those of something else, and
    damaged ones, are left alone."""

    def __init__(self, folder: Path | None, name: str, key: str) -> None:
        self._file = None if folder is None else folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz"

    def load(self) -> Mapping[str, np.ndarray]:
        """None when there is nothing that can be read."""
        if self._file is None or not self._file.is_file():
            return {}
        try:
            with self._file.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except Exception:  # zip, zlib and NumPy have dozens for bytes that are damaged
            return {}

    def save(self, arrays: Mapping[str, np.ndarray]) -> None:
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_suffix(".new.npz")
        np.savez(draft, **arrays)  # type: ignore[arg-type]
        draft.replace(self._file)


def _forward(
    opened: Model, pool: Pool, rows: np.ndarray, places: Sequence[str], what: str, progress: bool
) -> dict[str, np.ndarray]:
    size = batch_size_for(opened, pool.way)
    parts: dict[str, list[np.ndarray]] = {place: [] for place in places}
    with bar(f"look at {what}", len(rows), progress) as advance:
        for seen in pool.activations(opened, rows, size):
            shown = seen.check().named()
            for place in places:
                if place not in shown:
                    raise UnsoundError(
                        f"This classifier does not show {place!r}; it shows: {', '.join(shown)}. Give places= of these."
                    )
                parts[place].append(np.asarray(read(seen, place), dtype=np.float32))
            advance(len(seen))
    return {place: np.concatenate(x) for place, x in parts.items()}


def scale_of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean [d], standard deviation [d], 1 where it is 0) of known rows, float64."""
    mean = rows.mean(axis=0, dtype=np.float64)
    std = rows.std(axis=0, dtype=np.float64)
    return mean, np.where(std > 1e-6 * max(1e-30, float(std.max())), std, 1.0)

"""The only loop over training images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Activations, softmax
from .base import Statistic
from .blas import one_blas_thread
from .reduction import Reduction
from .reservoir import ranked

Through = Callable[[Callable[[Any], None], Any], Iterable[None]]


@dataclass(frozen=True)
class StatisticRequest:
    """One statistic of something that the classifier computed; equal wants are gathered once.

    of: paths into `Activations.named()`, or "probabilities", or "class" (the number of the class by `by`, [n]). One
        path, or several for a `Reservoir`; or a `Reduction` of maps.
    by: whose class a row counts for: "label" (true, the predicted one where there is none), "prediction",
        "correct" (the label where the prediction agrees, else none: -1). Ignored by statistics without classes.
    """

    statistic: type[Statistic]
    of: str | tuple[str, ...] | Reduction = "features"
    unit: bool = False  # rows divided by their L2 norm first
    by: str = "label"
    options: tuple[tuple[str, int], ...] = ()

    def part(self, batch: Activations, labels: np.ndarray) -> Statistic:
        """The statistic of one batch. labels [n], -1 where unknown."""
        predicted = np.argmax(batch.logits, axis=1)
        label = np.where(labels < 0, predicted, labels)
        classes = {
            "label": label,
            "prediction": predicted,
            "correct": np.where(label == predicted, label, -1),
        }[self.by]
        given: Any
        if isinstance(self.of, tuple):
            given = {path: classes if path == "class" else self._rows(batch, path) for path in self.of}
        else:
            given = classes if self.of == "class" else self._rows(batch, self.of)
        options: dict[str, Any] = dict(self.options)
        if batch.keys is not None:  # one hash of each image for all samples of one seed
            keys, seed = batch.keys, options.get("seed", 0)
            options |= {"keys": keys, "ranks": batch.cached(("ranks", seed), lambda: ranked(len(keys), (keys,), seed))}
        return self.statistic.of(given, labels=classes, classes=batch.logits.shape[1], **options)

    def _rows(self, batch: Activations, path: str | Reduction) -> np.ndarray:
        if isinstance(path, Reduction):
            rows = np.asarray(path.read(batch))
        else:
            rows = softmax(batch.logits) if path == "probabilities" else batch.named()[path]
        return batch.cached(("unit rows", path), lambda: _unit(rows)) if self.unit else rows


def _unit(rows: Any) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norm > 0, norm, 1))


def gather(
    batches: Iterable[tuple[Activations, np.ndarray]], wanted: Iterable[StatisticRequest], through: Through = map
) -> dict[StatisticRequest, Statistic]:
    """Every wanted statistic, from one pass over (activations, labels [n]); labels are -1 where unknown.

    through: calls a function with one batch after the other, as `map` does; perhaps while the next batch is made.
    """
    wanted = list(dict.fromkeys(wanted))
    found: dict[StatisticRequest, Statistic] = {}

    def add(item: tuple[Activations, np.ndarray]) -> None:
        batch, labels = item[0].with_cache(), item[1]
        with one_blas_thread():
            for want in wanted:
                part = want.part(batch, labels)
                found[want] = found[want].merge(part) if want in found else part

    for _ in through(add, batches):
        pass
    return found


def reductions_of(wanted: Iterable[StatisticRequest]) -> tuple[Reduction, ...]:
    """What these make of maps, each once."""
    return tuple(dict.fromkeys(want.of for want in wanted if isinstance(want.of, Reduction)))

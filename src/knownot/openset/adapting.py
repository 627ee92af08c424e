"""Verdicts adapted to the kind of change that a window of images went through, beside those that stand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Activations
from ..calibration import Calibration, images_needed
from ..errors import OptionError
from .verdicts import Verdicts

if TYPE_CHECKING:
    from .classifier import OpenSetClassifier

WINDOW = 200  # readable images, at least
KNOWN = 0.5  # of a window, at least, has to look known once it is adapted to


def check_adapt(osc: OpenSetClassifier, adapt: Any) -> None:
    """Raise OptionError unless it is None, or "batch" and there is something to adapt to."""
    if adapt is None:
        return
    if adapt != "batch":
        raise OptionError(f"adapt={adapt!r}: expected 'batch', or None to leave it.")
    if osc.shifts is None:
        raise OptionError("adapt='batch': fit did not look at changes of known images. Fit with shifts=True.")
    count, needed = len(osc.shifts.kinds[0].moved_back), images_needed(osc.alpha, guarantee="marginal")
    if count < needed:
        raise OptionError(
            f"adapt='batch': {count} copies of each kind decide its threshold, and alpha={osc.alpha:g} needs {needed}. "
            "Fit with more calibration images, or take a larger alpha."
        )


class Windows:
    """Tells the kind of change window by window, and gives adapted verdicts beside the others.

    The kind of a window is the one before unless another has more than twice its share and explains the window clearly
    better; the first is "as it was". It is believed only where, once adapted to, at least half of the window looks
    known: estimated by p-values above one half, which known images have half of the time (Storey 2002) and unknown ones
    hardly ever, so that a folder of unknown images is not taken for changed known ones.

    late: each image gets the kind of the window before, and is not waited for.
    """

    def __init__(self, osc: OpenSetClassifier, late: bool = False) -> None:
        assert osc.shifts is not None
        self._osc, self._shifts, self._late = osc, osc.shifts, late
        self._kind = 0
        self._waiting: list[tuple[Verdicts, Activations, np.ndarray]] = []
        self._with = cache(self._under)

    def push(self, verdicts: Verdicts, activations: Activations, rows: np.ndarray) -> Iterator[Verdicts]:
        """Of the next images [n], of which `rows` are readable: whatever is decided by now."""
        if self._late:
            yield self._adapted(verdicts, activations, rows)
        self._waiting.append((verdicts, activations, rows))
        if sum(len(one[2]) for one in self._waiting) >= WINDOW:
            yield from self.flush()

    def flush(self) -> Iterator[Verdicts]:
        """The rest, which may be too few to tell another kind by."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._kind = self._decide(waiting)
        if not self._late:
            for one in waiting:
                yield self._adapted(*one)

    def _decide(self, window: list[tuple[Verdicts, Activations, np.ndarray]]) -> int:
        told = np.concatenate([v.told[rows] for v, _, rows in window if v.told is not None])
        kind, _ = self._shifts.kind(self._shifts.counts(told), self._kind)
        if not kind or not self._shifts.kinds[kind - 1].adapts:
            return 0
        p = np.concatenate([self._scored(kind, activations)[0] for _, activations, rows in window if len(rows)])
        return kind if 2 * (p > 0.5).mean() >= KNOWN else 0

    def _adapted(self, verdicts: Verdicts, activations: Activations, rows: np.ndarray) -> Verdicts:
        """With the verdicts under the present kind beside."""
        kind = np.full(len(verdicts), -1)
        p, label, closed = verdicts.p_value.copy(), verdicts.label.copy(), verdicts.closed_label.copy()
        kind[rows] = self._kind
        if self._kind and len(rows):
            p[rows], label[rows], closed[rows] = self._scored(self._kind, activations)
        return replace(verdicts, shift_kind=kind, shift_p_value=p, shift_label=label, shift_closed_label=closed)

    def _scored(self, kind: int, activations: Activations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(p-values [n], labels [n], the classifier's classes [n]) of images moved back."""
        osc = self._with(kind)
        back = self._shifts.kinds[kind - 1].back(activations, osc.model.head)
        scores, _ = osc.scores(back)
        return *osc.decided(scores, back), np.argmax(back.logits, axis=1)

    def _under(self, kind: int) -> OpenSetClassifier:
        """The classifier with the threshold of copies of this kind, moved back: on average at most alpha of them."""
        scores = self._shifts.kinds[kind - 1].moved_back
        rule = Calibration(scores, np.zeros(len(scores), np.int64), self._osc.alpha, "marginal")
        return replace(self._osc, calibration=rule)

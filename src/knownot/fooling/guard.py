"""The detector as an attacker meets it: whether it accepts, by how much not, and which way it would."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..arrays import Activations
from ..openset.classifier import OpenSetClassifier
from .slopes import slopes_of

KNOTS = np.concatenate([np.linspace(0, 0.9, 19), np.linspace(0.91, 1, 10)])  # quantiles of calibration scores
SLACK = 1.5  # times the p-value at which an image is just accepted


@dataclass(frozen=True)
class DetectorConstraint:
    """See the module. suspicion: -log p summed over the detector's members, made smooth: p-values are steps, and the
    same smallest one whatever is further out, so there they are continued as an exponential tail."""

    osc: OpenSetClassifier

    def judge(self, activations: Activations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(accepted [n] bool, accepted with something to spare [n] bool, suspicion [n])."""
        calibration = self.osc.calibration
        scores, parts = self.osc.scores(activations)
        predicted = np.argmax(activations.logits, axis=1)
        p = calibration.p_value(scores, predicted)
        unknown = [calibration.unknown(p / share, predicted) for share in (1.0, SLACK)]
        return ~unknown[0], ~unknown[1], self._smooth(parts)[0].sum(axis=1)

    def pull(self, activations: Activations, paths: Iterable[str]) -> dict[str, np.ndarray]:
        """{path: [n, d]}: the way to be accepted, minus the slope of the suspicion."""
        _, slope = self._smooth(self.osc.scores(activations)[1])
        return self._slopes(activations, -slope, tuple(paths))

    @cached_property
    def _slopes(self) -> Any:
        return slopes_of(self.osc.detector)

    @cached_property
    def _tables(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each member: (scores at the knots, -log p there)."""
        found = []
        for reference in self.osc.references:
            m = len(reference)
            at = np.unique(np.rint(KNOTS * (m - 1)).astype(int))
            x, first = np.unique(reference[at], return_index=True)
            found.append((x.astype(np.float64), -np.log((m - at[first]) / (m + 1.0))))
        return found

    def _smooth(self, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(-log p of each member [n, m], its derivative [n, m])."""
        columns = [
            _continue_tail(table, part.astype(np.float64)) for table, part in zip(self._tables, parts.T, strict=True)
        ]
        return np.stack([c[0] for c in columns], axis=1), np.stack([c[1] for c in columns], axis=1)


def _continue_tail(table: tuple[np.ndarray, np.ndarray], s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Piecewise linear through the table; beyond its end as from its upper tenth on, below its begin flat."""
    x, y = table
    if len(x) < 2:
        return np.full(len(s), y[0]), np.zeros(len(s))
    slopes = np.diff(y) / np.diff(x)
    upper = max(0, int(np.searchsorted(y, -np.log(0.1))) - 1)
    tail = (y[-1] - y[min(upper, len(y) - 2)]) / (x[-1] - x[min(upper, len(x) - 2)])
    where = np.clip(np.searchsorted(x, s, side="right") - 1, 0, len(x) - 2)
    slope = np.where(s >= x[-1], tail, np.where(s < x[0], 0.0, slopes[where]))
    return np.interp(s, x, y) + np.maximum(s - x[-1], 0) * tail, slope

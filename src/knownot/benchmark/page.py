"""A comparison of detectors as a picture and as a page, in the one visual language of `knownot.plots`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..measure import auroc_interval
from ..plots import Measured, dots, percent

if TYPE_CHECKING:
    from .compare import Comparison


def intervals(found: Comparison) -> dict[str, dict[str, Measured]]:
    """{detector: {unknown set: AUROC with its 95 % interval}}, the best mean first."""
    base = found.scores[next(iter(found.accuracy))]
    measured: dict[str, dict[str, Measured]] = {}
    for line in found.lines:
        numbers = auroc_interval(base[line.detector], found.scores[line.unknown][line.detector])
        measured.setdefault(line.detector, {})[line.unknown] = Measured(*numbers)
    return dict(sorted(measured.items(), key=lambda item: -_mean(item[1])))


def plot(found: Comparison) -> str:
    """An `<svg>` element: a row per detector, a dot per unknown set. Raises MissingExtraError without matplotlib."""
    rows = intervals(found)
    said = "; ".join(f"{name} {percent(_mean(sets))}" for name, sets in rows.items())
    return dots(rows, name="comparison", title=f"AUROC of each detector, mean over the unknown sets: {said}")


def page(found: Comparison, title: str) -> str:
    """The whole page: the picture, and the same numbers as a table."""
    from ..plots.page import render

    rows = intervals(found)
    told = [
        {
            "name": name,
            "mean": percent(_mean(sets)),
            "each": [percent(one.value) for one in sets.values()],
            "alarms": percent(next(iter(found.false_alarms[name].values()))),
        }
        for name, sets in rows.items()
    ]
    return render(
        "benchmark", "page.html.j2", title=title, plot=plot(found), rows=told,
        sets=list(next(iter(rows.values()), {})), known=next(iter(found.accuracy)), left_out=found.left_out,
    )  # fmt: skip


def _mean(sets: Mapping[str, Measured]) -> float:
    return float(np.mean([one.value for one in sets.values()]))

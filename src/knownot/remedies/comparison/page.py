"""A comparison as one HTML page: nothing is fetched when it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from ...plots import Measured, dots
from ...plots.page import render as fill
from ...version import __version__
from .scorers import NONE, WORDS

if TYPE_CHECKING:
    from .result import Compared

ROWS = 24  # of the plot


def render(found: Compared) -> str:
    """The page as text. Raises MissingExtraError without matplotlib."""
    return fill(
        "remedies/comparison",
        "compare.html.j2",
        {"share": share},
        found=found,
        plot=plot(found),
        rows=rows(found),
        base=found.judged(NONE),
        odd=list(dict.fromkeys(line.unknown for line in found.lines if line.odd)),
        words=WORDS,
        as_is=NONE,
        version=__version__,
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def rows(found: Compared) -> list[dict[str, Any]]:
    """A line per remedy: how it fared with each scorer, and against the classifier as it is."""
    base = found.judged(NONE)
    out = []
    for row in found.tried:
        judged = found.judged(row.name)
        scorers = [
            {
                "scorer": scorer,
                "auroc": found.mean(row.name, scorer),
                "fpr": found.mean(row.name, scorer, "fpr_at_95_known_recall"),
                "each": found.of(row.name, scorer),
                "rates": found.of(row.name, scorer, "fpr_at_95_known_recall"),
                "judged": judged is not None and judged[0] == scorer,
            }
            for scorer in found.scorers(row.name, shared=False)
        ]
        gain = None if judged is None or base is None or row.name == NONE else judged[1] - base[1]
        out.append(
            {
                "tried": row,
                "scorers": scorers,
                "judged": judged,
                "auroc": judged and judged[1],
                "gain": gain,
                "odd": odd(found, row.name),
            }
        )
    return out


def odd(found: Compared, remedy: str) -> dict[str, float]:
    """{noise or fooling images: share rejected when 95 % of known images are kept}, by the scorer that judges it."""
    judged = found.judged(remedy)
    scorer = judged[0] if judged else ""
    return {
        line.unknown: 1 - line.fpr_at_95_known_recall
        for line in found.lines
        if line.odd and (line.remedy, line.scorer) == (remedy, scorer)
    }


def plot(found: Compared) -> Markup:
    """A dot per unknown set and remedy, by the scorer that it is judged by; the best mean on top."""
    measured: dict[str, Mapping[str, Measured]] = {}
    for row in found.tried:
        judged = found.judged(row.name)
        if judged:
            measured[row.name] = {s: Measured(x, x, x) for s, x in found.of(row.name, judged[0]).items()}
    if not measured:
        return Markup("")
    order = sorted(measured, key=lambda name: -float(np.mean([m.value for m in measured[name].values()])))[:ROWS]
    if NONE in measured and NONE not in order:
        order[-1] = NONE
    return dots(
        {name: measured[name] for name in order},
        name="remedies",
        title="AUROC of each remedy with its scorer and of the classifier as it is, on unknown images not trained on",
        mean={name: _flat([m.value for m in measured[name].values()]) for name in order},
    )


def _flat(values: list[float]) -> Measured:
    middle = float(np.mean(values))
    return Measured(middle, middle, middle)


def share(x: float | None) -> str:
    """Two places, as differences between remedies are small."""
    return "–" if x is None else f"{100 * x:.2f} %"

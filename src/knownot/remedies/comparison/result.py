"""What a comparison of remedies found: plain records, a table for people, JSON, and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...version import __version__
from .scorers import NONE, SCORERS, WORDS

SCHEMA = 1


@dataclass(frozen=True)
class Tried:
    """One remedy. name: in the comparison; remedy: in the table; failed: why there is nothing else, "" if it worked.

    accuracy_before, accuracy_after: on the validation images; accuracy: on the test images. same: the classifier is
    bit for bit the one that was given. sure: {set: share of noise or fooling images with a softmax of at least 0.99}.
    share: how far the weights went on the way to those that were learnt (see `retrain`, interpolate).
    notes: of the training; remarks: of the measuring, what could not be done.
    """

    name: str
    remedy: str
    failed: str = ""
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    accuracy: float | None = None
    seconds: float | None = None
    same: bool = True
    share: float = 1.0
    outliers: str = "none"
    sure: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """One scorer of one remedy on one set (shares, 0 to 1). odd: noise or fooling images, which no mean counts."""

    remedy: str
    scorer: str
    unknown: str
    auroc: float
    fpr_at_95_known_recall: float
    fpr_at_95_unknown_recall: float
    images: int
    odd: bool = False


@dataclass(frozen=True)
class Compared:
    """What `knownot.remedies.compare` found. tried: the first is "none", the classifier as it was given.

    unknown: {set: images}; images: {split: known images}.
    """

    tried: tuple[Tried, ...]
    lines: tuple[Line, ...]
    unknown: Mapping[str, int]
    images: Mapping[str, int]
    seed: int = 0
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def of(self, remedy: str, scorer: str, what: str = "auroc") -> dict[str, float]:
        """{unknown set: number}, without noise and fooling images; empty where it was not measured."""
        return {
            line.unknown: getattr(line, what)
            for line in self.lines
            if (line.remedy, line.scorer) == (remedy, scorer) and not line.odd
        }

    def mean(self, remedy: str, scorer: str, what: str = "auroc") -> float | None:
        """Over the unknown sets."""
        found = self.of(remedy, scorer, what)
        return float(np.mean(list(found.values()))) if found else None

    def scorers(self, remedy: str, shared: bool = True) -> list[str]:
        """Those that were measured, in their order. shared: also those that do not differ from those of "none", because
        the classifier is the same."""
        there = {line.scorer for line in self.lines if line.remedy == remedy}
        if not shared and remedy != NONE and any(row.same for row in self.tried if row.name == remedy):
            there -= {"default", "auto"}
        return [scorer for scorer in SCORERS if scorer in there]

    def best(self, remedy: str) -> tuple[str, float] | None:
        """(scorer, mean AUROC) of the highest mean AUROC on the unknown sets."""
        means = [(scorer, self.mean(remedy, scorer)) for scorer in self.scorers(remedy)]
        found = [(scorer, x) for scorer, x in means if x is not None]
        return max(found, key=lambda pair: pair[1]) if found else None

    @property
    def combined(self) -> str:
        """The scorer by which a remedy is judged: with its own beside "auto", or the default."""
        return "auto" if any(line.scorer == "auto" for line in self.lines) else "default"

    def judged(self, remedy: str) -> tuple[str, float] | None:
        """(scorer, mean AUROC) of detectors and remedy together, fixed beforehand, whatever turned out best."""
        for scorer in (f"{self.combined} + own", self.combined):
            x = self.mean(remedy, scorer)
            if x is not None:
                return scorer, x
        return None

    @property
    def sentence(self) -> str:
        """The outcome, in one sentence."""
        base = self.judged(NONE)
        rows = [(row.name, self.judged(row.name)) for row in self.tried[1:] if not row.failed]
        found = [(name, judged[1]) for name, judged in rows if judged]
        if base is None or not found:
            return "Nothing could be compared: see what failed."
        name, x = max(found, key=lambda row: row[1])
        gain = 100 * (x - base[1])
        judge = WORDS[base[0]]
        if gain <= 0:
            return f"No remedy is better than the classifier as it is: mean AUROC {100 * base[1]:.2f} % with {judge}."
        return (
            f"{name} helps most: mean AUROC {100 * x:.2f} %, against {100 * base[1]:.2f} % of the classifier as it is "
            f"({gain:+.2f} points), both with {judge}."
        )

    def __repr__(self) -> str:
        return self.table()

    def table(self) -> str:
        """For people: a line per remedy and scorer."""
        sets = list(self.unknown)
        cells = [["remedy", "scorer", "accuracy", "AUROC", "FPR", *sets, "s"]]
        for row in self.tried:
            if row.failed:
                cells.append([row.name, "failed: " + row.failed])
            for i, scorer in enumerate(self.scorers(row.name, shared=False)):
                each = self.of(row.name, scorer)
                middle = [self.mean(row.name, scorer), self.mean(row.name, scorer, "fpr_at_95_known_recall")]
                first = [row.name, scorer, _percent(row.accuracy)] if i == 0 else ["", scorer, ""]
                cells.append(
                    [*first, *map(_percent, (*middle, *each.values())), "" if i else f"{row.seconds or 0:.0f}"]
                )
        full = [line for line in cells if len(line) > 2]
        widths = [max(len(line[i]) for line in full) for i in range(len(cells[0]))]
        widths[0] = max(len(line[0]) for line in cells)
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)

    def facts(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return {
            "schema": SCHEMA,
            "knownot": __version__,
            "sentence": self.sentence,
            "judged_by": self.combined,
        } | asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.facts(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, path: str | Path, json_path: str | Path | None = None) -> None:
        """The page as one HTML file that fetches nothing and runs nothing; and the JSON, if a path is given.

        Raises MissingExtraError without matplotlib, InputError when a file cannot be written.
        """
        if json_path is not None:
            self.write_json(json_path)
        from ...plots.page import write  # with a template engine, which is for pages alone
        from .page import render

        write(Path(path), render(self), "comparison")

    def write_json(self, path: str | Path) -> None:
        """Raises InputError when the file cannot be written."""
        from ...plots.page import write

        write(Path(path), self.to_json(), "comparison")


def _percent(x: float | None) -> str:
    return "" if x is None else f"{100 * x:.2f}"

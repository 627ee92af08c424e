"""`predict --fdr`: which of the images called unknown to trust, and how much of the batch is unknown."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration import KnownBound, Selection, UnknownShare, known_bound, select, unknown_share
from ..openset.cells import BYTES, csv_cell


def bound_of(osc: Any, p: np.ndarray, scores: np.ndarray) -> KnownBound:
    """How many of the strangest images may be known, from the p-values [n] and scores [n] of a run."""
    from ..openset.batch import marginal

    return known_bound(marginal(osc, p, scores), len(osc.calibration.scores))


@dataclass(frozen=True)
class BatchDecisions:
    """What `calibration` says of all images together."""

    selection: Selection
    bound: KnownBound
    share: UnknownShare
    file: Path

    @classmethod
    def of(cls, osc: Any, rows: Iterator[dict[str, Any]], fdr: float, output: Path) -> BatchDecisions:
        """From the rows of a run; writes the selected ones to `<output>.selected.csv`, the strangest first."""
        from ..openset.batch import marginal

        ids: list[str] = []
        p, score = array("d"), array("d")
        for row in rows:
            ids.append(row["id"])
            p.append(math.nan if row["p_value"] is None else row["p_value"])
            score.append(math.nan if row["score"] is None else row["score"])
        ps, scores, n = np.array(p), np.array(score), len(osc.calibration.scores)
        ps = marginal(osc, ps, scores)
        found = cls(select(ps, n, fdr=fdr), known_bound(ps, n), unknown_share(ps, n),
                    output.with_name(output.name + ".selected.csv"))  # fmt: skip
        chosen = np.flatnonzero(found.selection.selected)
        order = chosen[np.lexsort((-scores[chosen], ps[chosen]))]
        curve = found.bound.curve()
        with found.file.open("w", newline="", encoding="utf-8", errors=BYTES) as file:
            writer = csv.writer(file)
            writer.writerow(["id", "p_value", "q_value", "score", "known_so_far_at_most"])
            writer.writerows(
                [csv_cell(ids[i], path=True), ps[i], found.selection.q_value[i], scores[i], curve[k]]
                for k, i in enumerate(order)
            )
        return found

    def words(self) -> list[str]:
        """Sentences for people."""
        said = [self.selection.sentence]
        if self.selection.count:
            said[0] += f" (written to {self.file})"
            said.append(self.bound.sentence(self.selection.count) + ", wherever one cuts the list")
        return [*said, self.share.sentence]

    def facts(self) -> dict[str, Any]:
        """The same for machines."""
        chosen, share = self.selection, self.share
        return {
            "fdr": chosen.fdr,
            "selected": chosen.count,
            "selected_at_least_or_none": chosen.needed,
            "known_among_selected_at_most": self.bound.among(chosen.selected),
            "confidence": self.bound.confidence,
            "unknown_share": None if math.isnan(share.estimate) else share.estimate,
            "unknown_share_low": share.low,
            "unknown_share_high": share.high,
            "unknown_share_at_least": share.at_least,
            "output": str(self.file),
        }

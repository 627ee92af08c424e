"""The page of a benchmark: a table to sort and filter, plots, and the images on which two detectors disagree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from ..measure import curve, risk_coverage
from ..plots import curves, data_uri, gallery, histogram, percent
from .words import TEST, columns, passes

if TYPE_CHECKING:
    from .result import BenchmarkResult

PLOTTED = 5  # detectors in a plot, and that are compared image by image
SHOWN = 8  # images of a pair and direction
SIDE = 64  # pixels of a thumbnail


def benchmark_page(found: BenchmarkResult, plots: bool) -> str:
    """One HTML file that fetches nothing. plots: also what matplotlib draws, which has to be installed then."""
    from ..plots.page import render

    best = found.detectors[:PLOTTED]
    return render(
        "benchmark", "benchmark.html.j2", found=found, first=found.networks[0], heads=_heads(found),
        rows=list(_rows(found)), shown=columns(found), pairs=disagreements(found), best=best,
        charts=_charts(found, best) if plots else [], histograms=_histograms(found), script="benchmark.js",
    )  # fmt: skip


def _heads(found: BenchmarkResult) -> list[tuple[str, str]]:
    """(heading, what it means) of the columns after the detector's name."""
    heads = [(f"{said} AUROC", "interval: DeLong, 95 %") for *_, said in columns(found)]
    heads += [(f"{group} p", "paired test against the best, Holm") for group in found.members]
    heads += [(f"{group} FPR@95", "known images rejected when 95 % of unknown ones are") for group in found.members]
    heads += [
        (f"{group} caught", f"unknown images called unknown at alpha = {found.alpha:g}") for group in found.members
    ]
    heads += [("false alarms", "known test images called unknown"), ("AURC", "lower is better"), ("rank", "mean place")]
    return [*heads, ("passes", "of each image through the network"), ("fit s", ""), ("score ms", "for 1,000 images")]


def _rows(found: BenchmarkResult) -> Iterator[tuple[str, list[tuple[str, float, str]]]]:
    """(detector, [(text, what it is sorted by, smaller text beside it)])."""
    costs = {row.detector: row for row in found.costs}
    for d in found.detectors:
        own = {(r.group, r.known): r for r in found.groups if r.detector == d}
        known = [r for r in found.known if (r.detector, r.known) == (d, TEST)]
        cells = []
        for group, spectrum, _ in columns(found):
            row = own[group, spectrum]
            value = row.values["auroc"]
            sd = f"± {100 * row.sd['auroc']:.1f} " if row.networks > 1 else ""
            cells.append((f"{100 * value:.1f}", -value, f"{sd}{100 * row.low:.1f} – {100 * row.high:.1f}"))
        tests = [own[group, TEST] for group in found.members]
        cells += [("best" if math.isnan(r.p_holm) else f"{r.p_holm:.2g}", _number(r.p_holm), "") for r in tests]
        cells += [_share(r.values["fpr_at_95_unknown_recall"]) for r in tests]
        cells += [_share(r.values["caught"], -1) for r in tests]
        cells.append(_share(float(np.mean([r.false_alarms for r in known]))))
        risk, rank, cost = float(np.mean([r.aurc for r in known])), float(np.mean([r.rank for r in tests])), costs[d]
        cells += [(f"{risk:.4f}", _number(risk), ""), (f"{rank:.1f}", rank, "")]
        cells.append((passes(cost.forward, cost.back), _number(cost.forward + cost.back), ""))
        cells += [(f"{cost.fit:.2f}", cost.fit, ""), (f"{cost.score:.2f}", cost.score, "")]
        yield d, cells


def _number(x: float) -> float:
    """NaN sorts before all numbers."""
    return -1e9 if math.isnan(x) else x


def _share(share: float, sign: int = 1) -> tuple[str, float, str]:
    return percent(share).replace("\u00a0%", ""), sign * share, ""


def _charts(found: BenchmarkResult, best: tuple[str, ...]) -> list[tuple[str, Markup]]:
    """(caption, drawing): an ROC curve for each set, and risk over coverage, of the first network."""
    one = found.networks[0]
    test, drawn = one.sets[TEST], []
    for i, name in enumerate(name for members in found.members.values() for name in members):
        lines = {}
        for d in best:
            c = curve(test.scores[d], one.sets[name].scores[d])
            lines[d] = (np.append(0, c.alarms / c.m), np.append(0, c.caught / c.n))
        title = f"Unknown images of {name} caught, over known images rejected"
        svg = curves(lines, name=f"roc-{i}", title=title, across="known rejected", up="unknown caught", diagonal=True)
        drawn.append((f"ROC: {name}", svg))
    if test.labelled.all():
        risks = {d: risk_coverage(test.scores[d], test.right) for d in best}
        svg = curves(
            risks, name="risk", title="Wrong answers among the known images answered, over their share",
            across="answered", up="wrong", whole=False,
        )  # fmt: skip
        drawn.append(("Risk over coverage: test", svg))
    return drawn


def _histograms(found: BenchmarkResult) -> list[tuple[str, Markup]]:
    """(caption, drawing): scores of the first detector, known images against each set, of the first network."""
    one, d = found.networks[0], found.detectors[0]
    sets = [name for members in found.members.values() for name in members]
    known = one.sets[TEST].scores[d]
    return [
        (f"{d}: {name}", histogram(known, one.sets[name].scores[d], None, width=440, height=240, name=f"scores-{i}"))
        for i, name in enumerate(sets)
    ]


@dataclass(frozen=True)
class Disagreement:
    """Images that `first` finds unknown and `second` does not, by how small the share of known test images is that look
    at least as unknown (p)."""

    first: str
    second: str
    pictures: Markup


def disagreements(found: BenchmarkResult) -> list[Disagreement]:
    """Of every two of the best detectors, in both directions; images of sets that can be indexed."""
    one, best = found.networks[0], found.detectors[:PLOTTED]
    places = [(s, i) for s, scored in one.sets.items() for i in range(len(scored))]
    p = {}
    for d in best:
        known = np.sort(one.sets[TEST].scores[d])
        below = np.searchsorted(known, np.concatenate([x.scores[d] for x in one.sets.values()]))
        p[d] = 1 - below / len(known)
    chosen: dict[tuple[str, str], list[int]] = {}
    for pair in combinations(best, 2):
        for first, second in (pair, pair[::-1]):
            gap = p[second] - p[first]
            order = np.argsort(-gap, kind="stable")[:SHOWN]
            chosen[first, second] = [int(i) for i in order if gap[i] > 0]
    thumbs = _thumbs(found, {places[i] for rows in chosen.values() for i in rows})
    made = []
    for (first, second), rows in chosen.items():
        cards = [
            (thumbs[places[i]], one.sets[places[i][0]].ids[places[i][1]].rpartition("/")[2],
             f"{places[i][0]}: p {p[first][i]:.2g} and {p[second][i]:.2g}")
            for i in rows if places[i] in thumbs
        ]  # fmt: skip
        if cards:
            made.append(Disagreement(first, second, gallery(cards)))
    return made


def _thumbs(found: BenchmarkResult, wanted: set[tuple[str, int]]) -> Mapping[tuple[str, int], str]:
    """{(set, image): data URI}; images are read again, those that were asked for only."""
    one, made = found.networks[0], {}
    for name, source in found.sources.items():
        mine = np.array(sorted(i for s, i in wanted if s == name), dtype=np.int64)
        few = source.only(one.sets[name].rows[mine]) if len(mine) else None
        if few is None or few.ready:
            continue
        at = 0
        # One by one, so that images of any size are shown.
        for batch in few.batches(1, found.preprocess, thumbs=SIDE):
            for thumb in batch.thumbs or []:
                made[name, int(mine[at])] = data_uri(thumb)
            at += len(batch)
    return made

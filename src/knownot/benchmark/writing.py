"""A benchmark's tables as files, in the forms that people and programs read."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..plots.writing import put
from .benchmark_page import benchmark_page
from .words import FULL, TEST, columns, passes

if TYPE_CHECKING:
    from .result import BenchmarkResult, GroupRow

LEADERBOARD = {  # OpenOOD's columns and what they are here
    "FPR@95": "fpr_at_95_unknown_recall",
    "AUROC": "auroc",
    "AUPR_IN": "aupr_known_trapezoid",
    "AUPR_OUT": "aupr_unknown_trapezoid",
}


def write(found: BenchmarkResult, folder: Path, plots: bool | None) -> list[Path]:
    """See `BenchmarkResult.write`."""
    tables = found.tables()
    files = {"results.json": as_json(found), "table.md": markdown(found), "table.tex": latex(found)}
    files |= {f"{name}.csv": as_csv(rows) for name, rows in tables.items()}
    files |= {f"leaderboard/{name}.csv": text for name, text in leaderboard(found).items()}
    drawn = importlib.util.find_spec("matplotlib") is not None if plots is None else plots
    files["benchmark.html"] = benchmark_page(found, drawn)
    for name, text in files.items():
        put(folder / name, text.encode("utf-8", "backslashreplace"))
    names = list(files)
    if importlib.util.find_spec("pyarrow") is not None:
        for name, rows in tables.items():
            put(folder / f"{name}.parquet", parquet(rows))
            names.append(f"{name}.parquet")
    return [folder / name for name in names]


def as_json(found: BenchmarkResult) -> str:
    """Everything but the scores; what is not a number is null."""
    said: dict[str, Any] = {
        "schema": "knownot-benchmark/1",
        "alpha": found.alpha,
        "networks": [one.name for one in found.networks],
        "accuracy": found.accuracy,
        "detectors": found.detectors,
        "images": {name: len(one) for name, one in found.networks[0].sets.items()},
        "fitted_on": found.networks[0].fitted_on,
        "calibrated_on": found.networks[0].calibrated_on,
        "unreadable": {s: len(x.unreadable) for s, x in found.networks[0].sets.items() if x.unreadable},
        **found.tables(),
        "tuned": found.tuned,
        "left_out": found.left_out,
        "notes": found.notes,
    }
    return json.dumps(_plain(said), indent=1, allow_nan=False)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Numbers with all their digits; empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([["" if x is None else x for x in _plain(list(row.values()))] for row in rows])
    return text.getvalue()


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), sink)
    return bytes(sink.getvalue())


def leaderboard(found: BenchmarkResult) -> dict[str, str]:
    """{"ood/<detector>", "fsood/<detector>": the CSV that OpenOOD's scripts write}: a line for each set and for the
    mean of each group, in percent, "mean ± standard deviation" over several networks."""
    files = {}
    for kind, known in (("ood", TEST), ("fsood", FULL)):
        for d in dict.fromkeys(row.detector for row in found.groups if row.known == known):
            lines = [",".join(["", *LEADERBOARD, "ACC"])]
            for group, members in found.members.items():
                for name in members:
                    rows = [r for r in found.sets if (r.detector, r.known, r.unknown) == (d, known, name)]
                    each = [[r.values[metric] for r in rows] for metric in LEADERBOARD.values()]
                    lines.append(_line(name, each, found, known))
                row = found.group(d, group, known)
                means = [(row.values[m], row.sd[m]) for m in LEADERBOARD.values()]
                lines.append(_line(f"{group}ood", means, found, known, given=True))
            files[f"{kind}/{re.sub(r'[^A-Za-z0-9_.+-]+', '_', d)}"] = "\n".join(lines) + "\n"
    return files


def _line(
    name: str, each: Sequence[Sequence[float]], found: BenchmarkResult, known: str, *, given: bool = False
) -> str:
    """given: each is (mean, standard deviation) already."""
    import numpy as np

    sets = (TEST,) if known == TEST else (TEST, *found.shifted)
    right = [sum(int(one.sets[s].right.sum()) for s in sets) for one in found.networks]
    labelled = [sum(int(one.sets[s].labelled.sum()) for s in sets) for one in found.networks]
    accuracy = [a / n if n else math.nan for a, n in zip(right, labelled, strict=True)]
    pairs = [*(each if given else [(np.mean(x), np.std(x)) for x in each]), (np.mean(accuracy), np.std(accuracy))]
    cells = [f"{100 * mean:.2f}" + (f" ± {100 * sd:.2f}" if len(found.networks) > 1 else "") for mean, sd in pairs]
    return ",".join([name, *cells])


def markdown(found: BenchmarkResult) -> str:
    """The table that a README or a report shows, best mean rank first."""
    shown = columns(found)
    head = ["detector", *(f"{said} AUROC" for *_, said in shown), *(f"{g} FPR@95" for g in found.members), "AURC"]
    head += ["false alarms", *(f"{g} caught" for g in found.members), "rank", "passes"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    costs = {row.detector: row for row in found.costs}
    for d in found.detectors:
        rows = {(r.group, r.known): r for r in found.groups if r.detector == d}
        known = [r for r in found.known if r.detector == d and r.known == TEST]
        own = [rows[group, TEST] for group in found.members]
        cells = [d, *(auroc(rows[g, k]) for g, k, _ in shown)]
        cells += [percent(r.values["fpr_at_95_unknown_recall"]) for r in own]
        cells += [f"{_mean(r.aurc for r in known):.4f}", percent(_mean(r.false_alarms for r in known))]
        cells += [percent(r.values["caught"]) for r in own]
        cells += [f"{_mean(r.rank for r in own):.1f}", passes(costs[d].forward, costs[d].back)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def auroc(row: GroupRow) -> str:
    """In percent: the interval over images, and the standard deviation over networks where there are several."""
    sd = f" ± {100 * row.sd['auroc']:.1f}" if row.networks > 1 else ""
    return f"{100 * row.values['auroc']:.1f}{sd} [{100 * row.low:.1f}, {100 * row.high:.1f}]"


def percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}"


def latex(found: BenchmarkResult) -> str:
    """A table for a paper, with the package booktabs: AUROC, FPR@95 and AUPR of each group, the best in bold."""
    names = {"auroc": "AUROC", "fpr_at_95_unknown_recall": "FPR@95", "aupr_unknown": "AUPR"}
    shown = [(g, k, said, m) for g, k, said in columns(found) for m in names]
    rows = {(r.detector, r.group, r.known): r for r in found.groups}
    best = {}
    for g, k, _, m in shown:
        values = [rows[d, g, k].values[m] for d in found.detectors]
        best[g, k, m] = min(values) if m.startswith("fpr") else max(values)
    lines = [rf"\begin{{tabular}}{{l{'r' * len(shown)}}}", r"\toprule"]
    lines.append(
        " & ".join(["", *(rf"\multicolumn{{3}}{{c}}{{{_tex(said)}}}" for *_, said in columns(found))]) + r" \\"
    )
    lines.append(" & ".join(["detector", *(_tex(names[m]) for *_, m in shown)]) + r" \\")
    lines.append(r"\midrule")
    for d in found.detectors:
        cells = []
        for g, k, _, m in shown:
            row = rows[d, g, k]
            text = f"{100 * row.values[m]:.2f}"
            text = rf"\textbf{{{text}}}" if row.values[m] == best[g, k, m] else text
            cells.append(text + (rf" {{\scriptsize$\pm${100 * row.sd[m]:.2f}}}" if row.networks > 1 else ""))
        lines.append(" & ".join([_tex(d), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", r"\textbackslash ")).replace("~", r"\textasciitilde ")


def _mean(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values)


def _plain(thing: Any) -> Any:
    if isinstance(thing, Mapping):
        return {str(key): _plain(x) for key, x in thing.items()}
    if isinstance(thing, list | tuple):
        return [_plain(x) for x in thing]
    return None if isinstance(thing, float) and not math.isfinite(thing) else thing

"""Draws the pictures of the results from the tables that were measured: `python scripts/docs_results.py` (`make docs`).

Nothing is measured here. A picture reads its numbers from a table in docs/, where the command stands that made them,
and keeps a digest of them, so that a test sees when a table has changed and its picture has not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).resolve().parents[1] / "docs"
MEASURED = "results/measured.md"
TWO = (("ResNet-20", "### ResNet-20"), ("ResNet-8", "### ResNet-8"))
LIGHT = {"known": "#0072b2", "unknown": "#d55e00", "incoming": "#e69f00", "soft": "#5a626c", "line": "#d9dde2"}
Table = dict[str, dict[str, str]]  # {first cell of a row: {column: cell}}


def table(page: str, *after: str) -> Table:
    """The first table behind these lines, each looked for behind the one before. A column that comes twice gets the
    name of the one before it in front."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for line in after:
        _, found, text = text.partition(line)
        if not found:
            raise LookupError(
                f"{page} has no {line!r} where a picture looks for its table: see scripts/docs_results.py."
            )
    rows = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert rows is not None, (page, after)
    cells = [[cell.strip(" `*") for cell in row.strip("| ").split(" | ")] for row in rows[0].splitlines()]
    head: list[str] = []
    for name in cells[0]:
        head.append(f"{head[-1]} {name}" if name in head else name)
    return {row[0]: dict(zip(head, row, strict=False)) for row in cells[2:]}


def number(cell: str) -> float:
    """The first number of a cell: of "79.0 ± 0.7" it is 79."""
    found = re.search(r"[-−+]?\d[\d,]*\.?\d*", cell)
    return float(found[0].replace(",", "").replace("−", "-")) if found else float("nan")


def spread(cell: str) -> float:
    """What stands behind the "±", or 0."""
    return number(cell.partition("±")[2]) if "±" in cell else 0.0


class Picture(NamedTuple):
    """A file beside a page, what it reads there, and how that is drawn."""

    file: str
    read: Callable[[], Any]
    draw: Callable[[Any], Any]

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.read(), sort_keys=True).encode()).hexdigest()


def caught() -> Any:
    """{set: {detector: (near, far)}}, what is called unknown, in %."""
    sets = {"groceries": "### Groceries", "materials": "### Materials"}
    tables = {name: table(MEASURED, line, "unknown called unknown at alpha") for name, line in sets.items()}
    return {name: {d: (number(r["near"]), number(r["far"])) for d, r in t.items()} for name, t in tables.items()}


def draw_caught(data: Any) -> Any:
    figure, axes = panels(2, (8.5, 3.2), sharey=True)
    for axis, (name, rows) in zip(axes, data.items(), strict=True):
        for k, (which, colour) in enumerate((("near", "known"), ("far", "unknown"))):
            at = [i + 0.2 - 0.4 * k for i in range(len(rows))]
            axis.barh(at, [pair[k] for pair in rows.values()], 0.38, color=LIGHT[colour], label=which)
        axis.set(title=name, xlim=(0, 100), xlabel="unknown images that are caught, %", yticks=range(len(rows)))
        axis.set_yticklabels(list(rows))
    axes[0].invert_yaxis()
    below(figure, axes[1])
    return figure


def quality() -> Any:
    """{network: {detector: (mean, worst set)}}, AUROC in %, of the default, the best others and the usual ones."""
    found = {}
    for name, line in TWO:
        rows = table(MEASURED, "## Detection", line)
        sets = [column for column in next(iter(rows.values())) if column not in ("detector", "mean")]
        all_of = {d: (number(r["mean"]), min(number(r[s]) for s in sets)) for d, r in rows.items()}
        usual = ("energy", "gen", "msp", "maxlogit", "react", "vim", "knn")
        kept = list(all_of)[:7] + [d for d in usual if d not in list(all_of)[:7]]
        found[name] = {d: all_of[d] for d in sorted(kept, key=lambda d: -all_of[d][0])}
    return found


def draw_quality(data: Any) -> Any:
    figure, axes = panels(2, (8.5, 3.6))
    for axis, (name, rows) in zip(axes, data.items(), strict=True):
        mean, worst = zip(*rows.values(), strict=True)
        axis.hlines(range(len(rows)), worst, mean, color=LIGHT["line"], lw=3)
        axis.plot(mean, range(len(rows)), "o", color=LIGHT["known"], label="mean of seven sets")
        axis.plot(worst, range(len(rows)), "D", color=LIGHT["unknown"], mfc="none", label="worst of them")
        axis.set(title=name, xlabel="AUROC, %", yticks=range(len(rows)))
        axis.set_yticklabels(list(rows))
        axis.invert_yaxis()
    below(figure, axes[0])
    return figure


def images() -> Any:
    """[(calibration images, {what: %})] of ResNet-20 with few images to rank."""
    text = (DOCS / MEASURED).read_text(encoding="utf-8").partition("## How many images rank")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if "|" in line]
    kept = [row for row in rows if row[0] == "resnet20" and "half" not in row[2]]
    names = {"pac, near": 6, "pac, far": 7, "marginal, near": 9, "marginal, far": 10}
    return [(int(row[1]), {name: number(row[k].split()[0]) for name, k in names.items()}) for row in kept]


def draw_images(data: Any) -> Any:
    figure, (axis,) = panels(1, (6.5, 3))
    for name in data[0][1]:
        colour = LIGHT["unknown" if "far" in name else "known"]
        style = "-" if name.startswith("pac") else "--"
        axis.plot([m for m, _ in data], [row[name] for _, row in data], style, marker="o", color=colour, label=name)
    axis.set(xscale="log", xlabel="calibration images", ylabel="caught, %", ylim=(0, 100))
    axis.set_xticks([m for m, _ in data], [f"{m:,}" for m, _ in data])
    axis.minorticks_off()
    below(figure, axis)
    return figure


def guarantee() -> Any:
    """{guarantee: (mean rate, lowest class, highest class)} at alpha 5 %, in %."""
    rows = table(MEASURED, "## The guarantee")
    wanted = {name: row for name, row in reversed(rows.items()) if row["alpha"] == "0.05"}
    text = (DOCS / MEASURED).read_text(encoding="utf-8").partition("## The guarantee")[2]
    lines = re.findall(r"^\| ([\w-]+) \| 0.05 \| 0.01 \| ([\d.]+) \(per class: ([\d.]+)–([\d.]+)\)", text, re.MULTILINE)
    assert wanted
    return {name: [round(100 * float(x), 2) for x in values] for name, *values in lines}


def draw_guarantee(data: Any) -> Any:
    figure, (axis,) = panels(1, (6.5, 2.2))
    for i, (mean, low, high) in enumerate(data.values()):
        axis.hlines(
            i, low, high, color=LIGHT["known"], lw=6, alpha=0.35, label="lowest to highest class" if not i else None
        )
        axis.plot(mean, i, "o", color=LIGHT["known"], label="all images" if not i else None)
    axis.axvline(5, color=LIGHT["unknown"], ls=":", label="alpha")
    axis.set(
        xlabel="known images that are rejected, %", yticks=range(len(data)), xlim=(0, 10), ylim=(len(data) - 0.5, -0.5)
    )
    axis.set_yticklabels(list(data))
    below(figure, axis)
    return figure


def speed() -> Any:
    """{runtime: {what: times the bare pass}}."""
    found = {}
    for name, line in (("PyTorch", "| ResNet-20 in PyTorch |"), ("onnxruntime", "| the same in onnxruntime |")):
        text = (DOCS / MEASURED).read_text(encoding="utf-8").partition(line)[2].partition("\n\n")[0]
        rows = [[c.strip(" *") for c in row.strip("| ").split(" | ")] for row in text.splitlines()[2:]]
        found[name] = {row[0]: number(row[3]) for row in rows if row[0].startswith(("predict", "fit", "activations"))}
    return found


def draw_speed(data: Any) -> Any:
    figure, (axis,) = panels(1, (6.5, 2.8))
    for k, (name, colour) in enumerate((("PyTorch", "known"), ("onnxruntime", "incoming"))):
        at = [i - 0.2 + 0.4 * k for i in range(len(data[name]))]
        axis.barh(at, list(data[name].values()), 0.38, color=LIGHT[colour], label=name)
    axis.axvline(1, color=LIGHT["soft"], ls=":")
    axis.set(xlabel="time, in times of the bare forward pass", yticks=range(len(data["PyTorch"])))
    axis.set_yticklabels(list(data["PyTorch"]))
    axis.invert_yaxis()
    below(figure, axis)
    return figure


def remedies() -> Any:
    """{network: {remedy: (gain, standard deviation)}} of "auto + own", in points of AUROC."""
    found: dict[str, dict[str, Any]] = {}
    text = (DOCS / MEASURED).read_text(encoding="utf-8").partition("## Remedies")[2]
    for name, line in TWO:
        part = text.partition(line)[2].partition("\n\n- ")[0].partition("\n### ")[0]
        rows = [[c.strip() for c in row.strip("| ").split(" | ")] for row in part.splitlines() if "auto + own" in row]
        found[name] = {row[0]: (number(row[5]), spread(row[5])) for row in rows}
    return found


def draw_remedies(data: Any) -> Any:
    figure, (axis,) = panels(1, (7, 3.2))
    names = list(data["ResNet-20"])
    for k, (network, colour) in enumerate((("ResNet-20", "known"), ("ResNet-8", "incoming"))):
        gain, error = zip(*(data[network][name] for name in names), strict=True)
        at = [i - 0.2 + 0.4 * k for i in range(len(names))]
        axis.barh(at, gain, 0.38, xerr=error, color=LIGHT[colour], label=network, error_kw={"lw": 1})
    axis.set(
        xlabel="gain over auto, points of mean AUROC on sets that the remedy did not see", yticks=range(len(names))
    )
    axis.set_yticklabels(names)
    axis.invert_yaxis()
    below(figure, axis)
    return figure


def automatic() -> Any:
    """{case: (default, auto, best single method)}, mean AUROC in %."""
    rows = table(MEASURED, "### The automatic choice where the default is weak")
    kept = {case: row for case, row in rows.items() if case != "mean"}
    names = ("default", "auto", "best single method")
    return {case: [number(re.split(r"^[a-z+-]+ ", row[name])[-1]) for name in names] for case, row in kept.items()}


def draw_automatic(data: Any) -> Any:
    figure, (axis,) = panels(1, (6.5, 4))
    styles = (
        ("default", "o", "known"),
        ("auto", "s", "unknown"),
        ("best single method, known afterwards", "|", "soft"),
    )
    for k, (name, marker, colour) in enumerate(styles):
        values = [row[k] for row in data.values()]
        axis.plot(values, range(len(data)), marker, color=LIGHT[colour], label=name, ls="", mfc="none" if k else None)
    axis.set(xlabel="mean AUROC, %", yticks=range(len(data)))
    axis.set_yticklabels(list(data))
    axis.invert_yaxis()
    below(figure, axis)
    return figure


def shifts() -> Any:
    """{network: {kinds: (default, moved back)}}, false alarms in %."""
    found = {}
    for name in ("ResNet-20", "ResNet-8"):
        rows = table("results/shifts.md", "## False alarms", f"\n{name}\n")
        cells = {
            kinds: row["false alarms: default → threshold → moved back"].split(" → ") for kinds, row in rows.items()
        }
        found[name] = {kinds: (number(first), number(last)) for kinds, (first, _, last) in cells.items()}
    return found


def draw_shifts(data: Any) -> Any:
    figure, axes = panels(2, (8.5, 2.6), sharex=True)
    for axis, (name, rows) in zip(axes, data.items(), strict=True):
        before, after = zip(*rows.values(), strict=True)
        axis.hlines(range(len(rows)), before, after, color=LIGHT["line"], lw=3)
        axis.plot(before, range(len(rows)), "o", color=LIGHT["unknown"], label="default")
        axis.plot(after, range(len(rows)), "D", color=LIGHT["known"], mfc="none", label="adapted")
        axis.axvline(5, color=LIGHT["soft"], ls=":")
        axis.set(title=name, xlabel="known images that are rejected, %", yticks=range(len(rows)))
        axis.set_yticklabels(list(rows))
        axis.invert_yaxis()
    below(figure, axes[1])
    return figure


def nearfar() -> Any:
    """{detector: (near AUROC, far AUROC)} of ResNet-20, in %."""
    rows = table("results/benchmark.md", "## ResNet-20")
    return {d: (number(row["near AUROC"]), number(row["far AUROC"])) for d, row in rows.items()}


def draw_nearfar(data: Any) -> Any:
    figure, (axis,) = panels(1, (6.5, 4))
    kept = {name: pair for name, pair in data.items() if min(pair) > 74}
    axis.plot(*zip(*kept.values(), strict=True), "o", color=LIGHT["known"], ms=4)
    for name in ("auto", "msp", "energy", "knn", "mahalanobis++-layers", "optfs", "gram", "rankfeat", "relation"):
        if name in kept:
            away, side = (-6, "right") if name.endswith("layers") else (6, "left")
            axis.annotate(name, kept[name], fontsize=8, xytext=(away, -3), textcoords="offset points", ha=side)
    axis.set_xlim(right=97)
    axis.set(xlabel="AUROC on near unknown images, %", ylabel="AUROC on far unknown images, %")
    return figure


def delays() -> Any:
    """{what comes: [median delay in images of ours, EWMA, KS, ADWIN]}, None for never."""
    rows = table("how-to/streams.md", "**Alarms**")
    names = ("knownot: more unknown", "EWMA of −log p", "KS, window 200", "ADWIN (river 0.26.1)")
    return {
        what: [None if row[name].startswith("never") else number(row[name]) for name in names]
        for what, row in rows.items()
        if "10 %" in what or "known images" in what
    }


def draw_delays(data: Any) -> Any:
    figure, (axis,) = panels(1, (7, 2.8))
    styles = (("knownot", "o", "known"), ("EWMA", "s", "incoming"), ("KS", "^", "unknown"), ("ADWIN", "D", "soft"))
    for k, (name, marker, colour) in enumerate(styles):
        values = [row[k] for row in data.values()]
        axis.plot(values, range(len(data)), marker, color=LIGHT[colour], ls="", label=name, mfc="none" if k else None)
    axis.set(xscale="log", xlabel="median delay, images", yticks=range(len(data)))
    axis.set_yticklabels(list(data))
    axis.invert_yaxis()
    below(figure, axis)
    return figure


PICTURES = (
    Picture("results/caught.svg", caught, draw_caught),
    Picture("results/quality.svg", quality, draw_quality),
    Picture("results/images.svg", images, draw_images),
    Picture("results/guarantee.svg", guarantee, draw_guarantee),
    Picture("results/speed.svg", speed, draw_speed),
    Picture("results/remedies.svg", remedies, draw_remedies),
    Picture("results/automatic.svg", automatic, draw_automatic),
    Picture("results/shifts.svg", shifts, draw_shifts),
    Picture("results/near-far.svg", nearfar, draw_nearfar),
    Picture("how-to/delays.svg", delays, draw_delays),
)


def panels(count: int, size: tuple[float, float], **how: Any) -> Any:
    """(figure, axes), in the style of all of them."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, count, figsize=size, squeeze=False, layout="constrained", **how)
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color=LIGHT["line"], lw=0.6)
        axis.set_axisbelow(True)
    return figure, axes[0]


def below(figure: Any, axis: Any) -> None:
    """What the marks of this panel mean, under the picture, where they cover none of it."""
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)


def main() -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "knownot", "font.size": 9, "axes.titlesize": 10}
    for picture in PICTURES:
        place, digest = DOCS / picture.file, picture.digest()
        if place.exists() and digest in place.read_text(encoding="utf-8"):
            continue
        figure = picture.draw(picture.read())
        figure.savefig(place, metadata={"Date": None, "Creator": None, "Description": digest})
        matplotlib.pyplot.close(figure)
        print(f"{picture.file} drawn")


if __name__ == "__main__":
    main()

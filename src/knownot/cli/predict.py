from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from .batch import BatchDecisions
from .common import counted, machine_options, said, thing_of
from .journal import Journal


@click.command("predict")
@click.argument("saved", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("verdicts.csv"),
    show_default=True,
    help="A .csv, .jsonl or .parquet file.",
)
@click.option("--report", type=click.Path(path_type=Path), help="Also write this self-contained HTML report.")
@click.option(
    "--fdr",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Also select images as unknown so that on average at most this share of them is known; the strangest first, "
    "they are written beside the output as <output>.selected.csv.",
)
@click.option("--model", help="The classifier, when it was saved without it.")
@click.option("--features", help="The second network, when it was saved without it.")
@click.option("--batch-size", type=click.IntRange(1), help="Images per forward pass.")
@click.option("--restart", is_flag=True, help="Do not go on with an unfinished run: begin again.")
@click.option("--strict", is_flag=True, help="Exit with code 3 when an image was unreadable.")
@machine_options
def command(saved: Path, images: tuple[str, ...], output: Path, report: Path | None, fdr: float | None,
            model: str | None, features: str | None, batch_size: int | None, restart: bool, strict: bool, as_json: bool,
            quiet: bool) -> int:  # fmt: skip
    """A verdict for every image: its class, or unknown, with a p-value.

    SAVED is what 'knownot fit' wrote. IMAGES are a folder, files, a glob or a Parquet file. Rows are written as they
    come; a run that was stopped goes on where it was when the same command is given again.
    """
    from ..openset.classifier import load

    osc = load(
        saved,
        model=None if model is None else thing_of(model),
        features=None if features is None else thing_of(features, calls=False),
    )
    run = predict_to(
        osc, list(images), output, report=report, fdr=fdr, batch_size=batch_size, restart=restart, quiet=quiet
    )
    said(run.words(osc, output, report), run.facts(osc, output, report), as_json)
    return 3 if strict and run.unreadable else 0


@dataclass
class Run:
    """What one run of `predict` counted."""

    known: int = 0
    unknown: int = 0
    unreadable: int = 0
    resumed: int = 0
    seconds: float = 0.0
    classes: dict[str, list[int]] = field(default_factory=dict)  # {the classifier's class: [known, unknown]}
    scores: array[float] = field(default_factory=lambda: array("d"))
    bad: list[tuple[str, str]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    batch: BatchDecisions | None = None

    @property
    def images(self) -> int:
        return self.known + self.unknown + self.unreadable

    def count(self, row: dict[str, Any]) -> None:
        if row["error"] is not None:
            self.unreadable += 1
            self.bad.append((row["id"], row["error"]))
            return
        unknown = row["status"] == "unknown"
        self.scores.append(row["score"])
        self.known, self.unknown = self.known + (not unknown), self.unknown + unknown
        self.classes.setdefault(row["closed_class"], [0, 0])[unknown] += 1

    def words(self, osc: Any, output: Path, report: Path | None) -> str:
        done = self.images - self.resumed
        speed = f" ({done / self.seconds:,.0f} images/s)" if self.seconds > 0 and done else ""
        again = f" {self.resumed:,} rows were there from an earlier run." if self.resumed else ""
        lines = [
            f"{counted(self.images, 'image')}: {self.known:,} known, {self.unknown:,} unknown, {self.unreadable:,} "
            f"unreadable; {osc.promise}.",
            f"Written to {output}{f' and {report}' if report else ''} in {self.seconds:.1f} s{speed}.{again}",
        ]
        lines += [f"- {line}" for line in (self.batch.words() if self.batch else ())]
        lines += [f"- {note}" for note in self.notes]
        lines += [f"- unreadable: {name}: {reason}" for name, reason in self.bad[:5]]
        return "\n".join(lines + ([f"- … and {len(self.bad) - 5:,} more"] if len(self.bad) > 5 else []))

    def facts(self, osc: Any, output: Path, report: Path | None) -> dict[str, Any]:
        return {
            "images": self.images,
            "known": self.known,
            "unknown": self.unknown,
            "unreadable": self.unreadable,
            "per_class": {name: {"known": k, "unknown": u} for name, (k, u) in sorted(self.classes.items())},
            "promise": osc.promise,
            "alpha": osc.alpha,
            "output": str(output),
            "report": None if report is None else str(report),
            "resumed": self.resumed,
            "notes": list(self.notes),
            "seconds": self.seconds,
        } | ({} if self.batch is None else {"batch": self.batch.facts()})


def predict_to(
    osc: Any,
    images: list[str],
    output: Path,
    *,
    report: Path | None = None,
    fdr: float | None = None,
    batch_size: int | None = None,
    restart: bool = False,
    quiet: bool = False,
) -> Run:
    """Verdicts of `images` into `output`, going on with an unfinished run of the same task."""
    from ..images import open_images

    begin = time.perf_counter()
    source = open_images(images[0] if len(images) == 1 else images)
    if source.once:
        restart = True  # cannot be skipped into
    task = {
        "images": images,
        "count": source.count,
        "classifier": osc.model.fingerprint,
        "second": None if osc.second is None else osc.second.model.fingerprint,
        "threshold": [osc.calibration.p_threshold, len(osc.calibration.scores)],
        "report": report is not None,
    } | ({"added": [a.name for a in osc.added]} if osc.added else {})
    journal = Journal(output, task, restart)
    shown = journal.gallery(osc.nothing) if report and journal.done else None
    run = Run(resumed=journal.done, notes=_notes(source))
    written = time.monotonic()
    stream = osc.stream(
        source, batch_size=batch_size, progress=not quiet, start=journal.done, gallery=report is not None, so_far=shown
    )
    for verdicts in stream:
        journal.add(verdicts)
        shown = verdicts.gallery
        if report and time.monotonic() - written > 5:
            journal.keep_gallery(shown)
            written = time.monotonic()
    for row in journal.rows():
        run.count(row)
    run.seconds = time.perf_counter() - begin
    if report:
        from ..report import write_report
        from ..report.build import build

        counts = (run.known, run.unknown, run.unreadable)
        data = build(osc, np.array(run.scores), counts, run.classes, run.bad, shown, run.seconds, ", ".join(images))
        write_report(report, data)
    if fdr is not None:
        run.batch = BatchDecisions.of(osc, journal.rows(), fdr, output)
    journal.finish(osc.detector.members)
    journal.remove()
    return run


def _notes(source: Any) -> tuple[str, ...]:
    was = "that is no image was" if source.skipped == 1 else "that are no images were"
    passed = f"{counted(source.skipped, 'file')} {was} passed over"
    return (*source.notes, *([passed] if source.skipped else []))

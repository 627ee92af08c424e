from __future__ import annotations

import os
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ..calibration import KnownBound
from ..errors import ImagesError, OptionError
from .batch import BatchDecisions, bound_of
from .common import Share, counted, engine_options, image_limits, machine_options, network_options, networks_of, said
from .fit import part_of
from .journal import Journal, Plan
from .predict_parts import Task, predict_parts, words
from .tables import write_metadata

if TYPE_CHECKING:
    from ..shifts.seen import Shift


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
@click.option("--alpha", type=Share(), help="Another share of known images that may be rejected.  [as fitted]")
@click.option(
    "--fdr",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Also select images as unknown so that on average at most this share of them is known; the strangest first, "
    "they are written beside the output as <output>.selected.csv.",
)
@click.option(
    "--strangest",
    type=click.IntRange(1),
    metavar="K",
    help="Also say how many of the K strangest images may be known, with 95 % confidence, whatever made you choose K.",
)
@network_options
@click.option("--batch-size", type=click.IntRange(1), help="Images per forward pass.")
@click.option("--restart", is_flag=True, help="Do not go on with an unfinished run: begin again.")
@click.option(
    "--raw-cells",
    is_flag=True,
    help="In a CSV file, texts as they are. Without it, one that a spreadsheet would run (= + - @ or a tab first) gets "
    "'./' before it if it is a path, and an apostrophe otherwise.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Also the p-value of each detector that takes part, as columns of a CSV file; other formats have them.",
)
@click.option(
    "--parts",
    type=click.IntRange(1),
    help="OUTPUT is a folder that gets a Parquet file for each of so many parts; given again, what is there stays.",
)
@click.option("--part", help="With --parts: only I/OF, such as 3/64, for a machine of its own.")
@engine_options
@click.option(
    "--adapt",
    is_flag=True,
    help="Also give verdicts adapted to the kind of change that windows of some 200 images went through, as columns.",
)
@click.option("--strict", is_flag=True, help="Exit with code 3 when an image was unreadable.")
@image_limits
@machine_options
def command(saved: Path, images: tuple[str, ...], output: Path, report: Path | None, alpha: float | None,
            fdr: float | None, strangest: int | None, model: str | None, features: str | None, batch_size: int | None,
            restart: bool, raw_cells: bool, explain: bool, adapt: bool, parts: int | None, part: str | None,
            engine: str, workers: int | None, strict: bool, as_json: bool, quiet: bool) -> int:  # fmt: skip
    """A verdict for every image: its class, or unknown, with a p-value.

    SAVED is what 'knownot fit' wrote. IMAGES are a folder, files, a glob or a Parquet file. Rows are written as they
    come; a run that was stopped goes on where it was when the same command is given again: with this classifier's rows
    of images that are still the same.
    """
    from ..export import load

    if parts is not None or part is not None:
        if report is not None or fdr is not None or strangest is not None or adapt:
            raise OptionError("--report, --fdr, --strangest and --adapt are for all images together.")
        numbers, of = (range(1, parts + 1), parts) if part is None and parts else numbered(part, parts)
        tasks = [
            Task(
                saved=str(saved),
                images=images,
                folder=str(output),
                number=i,
                of=of,
                alpha=alpha,
                batch_size=batch_size,
                networks=(model, features),
            )
            for i in numbers
        ]
        total = predict_parts(tasks, engine=engine, workers=workers, quiet=quiet)
        said(words(total, len(tasks), output), total | {"output": str(output)}, as_json)
        return 3 if strict and total["unreadable"] else 0
    osc = load(saved, **networks_of(model, features))
    if alpha is not None:
        if not hasattr(osc, "with_alpha"):
            raise OptionError(
                "--alpha is for saved folders; an exported file has its threshold inside. Export it anew."
            )
        osc = osc.with_alpha(alpha)
    run = predict_to(
        osc,
        list(images),
        output,
        Wanted(
            report=report,
            fdr=fdr,
            strangest=strangest,
            raw=raw_cells,
            explain=explain,
            adapt="batch" if adapt else None,
        ),
        batch_size=batch_size,
        restart=restart,
        quiet=quiet,
    )
    said(run.words(osc, output, report), run.facts(osc, output, report), as_json)
    return 3 if strict and run.unreadable else 0


def numbered(part: str | None, parts: int | None) -> tuple[range, int]:
    """The one part of '3/64'."""
    i, of = part_of(part or "")
    if parts is not None and parts != of:
        raise OptionError(f"--part {part} and --parts {parts}: of how many parts?")
    return range(i, i + 1), of


@dataclass
class Run:
    """What one run of `predict` counted. keeps: whether also the four numbers of each readable image; a report and
    statements on the strangest need them."""

    keeps: bool = True
    known: int = 0
    unknown: int = 0
    unreadable: int = 0
    resumed: int = 0
    seconds: float = 0.0
    classes: dict[str, list[int]] = field(default_factory=dict)  # {the classifier's class: [known, unknown]}
    scores: array[float] = field(default_factory=lambda: array("d"))  # of the readable images, as the next three
    p: array[float] = field(default_factory=lambda: array("d"))
    strange: bytearray = field(default_factory=bytearray)  # whether unknown
    numbers: array[int] = field(default_factory=lambda: array("q"))  # of the images
    bad: list[tuple[str, str]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    batch: BatchDecisions | None = None
    strangest: tuple[int, KnownBound] | None = None  # so many, and how many of any of them may be known
    told: Counter[int] = field(default_factory=Counter)  # how many look like each kind of change
    adapted: int = 0  # called unknown by adapted verdicts
    changed: int = 0  # whose verdict was adapted to a change
    shift: Shift | None = None

    @property
    def images(self) -> int:
        return self.known + self.unknown + self.unreadable

    def count(self, row: dict[str, Any]) -> None:
        if row["error"] is not None:
            self.unreadable += 1
            self.bad.append((row["id"], row["error"]))
            row.pop("told", -1)
            return
        unknown = row["status"] == "unknown"
        if self.keeps:
            self.numbers.append(self.images)
            self.scores.append(row["score"])
            self.p.append(row["p_value"])
            self.strange.append(unknown)
        self.told[row.pop("told", -1)] += 1
        self.adapted += row.get("shift_status") == "unknown"
        self.changed += bool(row.get("shift"))
        self.known, self.unknown = self.known + (not unknown), self.unknown + unknown
        self.classes.setdefault(row["closed_class"], [0, 0])[unknown] += 1

    def counted(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in rows:
            self.count(row)
            yield row

    def words(self, osc: Any, output: Path, report: Path | None) -> str:
        done = self.images - self.resumed
        speed = f" ({done / self.seconds:,.0f} images/s)" if self.seconds > 0 and done else ""
        again = f" {self.resumed:,} rows were there from an earlier run." if self.resumed else ""
        lines = [
            f"{counted(self.images, 'image')}: {self.known:,} known, {self.unknown:,} unknown, {self.unreadable:,} "
            f"unreadable; {osc.promise}.",
            f"Written to {output}{f' and {report}' if report else ''} in {self.seconds:.1f} s{speed}.{again}",
        ]
        lines += [f"- {self.shift.sentence}."] if self.shift is not None and self.shift.matters else []
        lines += [f"- {line}" for line in (self.batch.words() if self.batch else ())]
        lines += [f"- {self.strangest[1].sentence(self.strangest[0])}"] if self.strangest else []
        lines += [f"- {note}" for note in self.notes]
        lines += [f"- unreadable: {name}: {reason}" for name, reason in self.bad[:5]]
        return "\n".join(lines + ([f"- … and {len(self.bad) - 5:,} more"] if len(self.bad) > 5 else []))

    def facts(self, osc: Any, output: Path, report: Path | None) -> dict[str, Any]:
        more: dict[str, Any] = {} if self.batch is None else {"batch": self.batch.facts()}
        if self.strangest:
            k, bound = self.strangest
            more["strangest"] = {
                "images": k,
                "known_at_most": int(bound.curve()[k - 1]),
                "confidence": bound.confidence,
            }
        return more | {
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
            "shift": None if self.shift is None else asdict(self.shift),
        }


@dataclass(frozen=True)
class Wanted:
    """What a run gives beside its rows, and how it writes them. adapt: as of `OpenSetClassifier.predict`."""

    report: Path | None = None
    fdr: float | None = None
    strangest: int | None = None
    raw: bool = False
    explain: bool = False
    adapt: str | None = None

    def check(self, osc: Any, output: Path) -> None:
        """Raises OptionError for what cannot be had of `osc`, or would overwrite `output`."""
        if self.report is not None and os.path.realpath(self.report) == os.path.realpath(output):
            raise OptionError(f"--report and --output are the same file, {str(output)!r}: give two.")
        for asked, needs, options, lacks in (
            (self.report is not None, "calibration", "--report is", "images of the classes to show"),
            (self.fdr or self.strangest, "calibration", "--fdr and --strangest are", "calibration scores"),
            (self.adapt, "shifts", "--adapt is", "statistics of changed images"),
        ):
            if asked and not hasattr(osc, needs):
                raise OptionError(f"{options} for saved folders: an exported file holds no {lacks}.")


def predict_to(
    osc: Any,
    images: list[str],
    output: Path,
    wanted: Wanted | None = None,
    *,
    batch_size: int | None = None,
    restart: bool = False,
    quiet: bool = False,
    source: Any = None,
) -> Run:
    """Verdicts of `images` into `output`, going on with an unfinished run: rows of this classifier, of images that are
    still the same, are kept, all others computed, and that is told on standard error. What is adapted to depends on all
    images of a window, so then nothing of an unfinished run is kept. source: the images, opened."""
    from ..images import open_images

    begin, wanted = time.perf_counter(), wanted or Wanted()
    wanted.check(osc, output)
    source = open_images(images[0] if len(images) == 1 else images) if source is None else source
    adapt = wanted.adapt
    with Journal(output, osc.digest + (f" {adapt}" if adapt else ""), restart or bool(adapt)) as journal:
        plan = journal.plan(source)
        _tell(journal, plan)
        keeps = wanted.report is not None or wanted.strangest is not None
        run = Run(keeps=keeps, resumed=plan.used, notes=_notes(source))
        options = {"batch_size": batch_size, "progress": not quiet} | ({"adapt": adapt} if adapt else {})
        shown = _looked(osc, source, journal, plan, wanted.report is not None, options)
        _whole(source, journal)
        journal.write(run.counted(journal.rows()), osc.members, wanted.raw, wanted.explain, bool(adapt))
        run.shift = _shift(osc, run, bool(adapt))
        run.seconds = time.perf_counter() - begin
        if wanted.report:
            _report(osc, source, run, shown, wanted.report, ", ".join(images))
        if wanted.fdr is not None:
            run.batch = BatchDecisions.of(osc, journal.rows(), wanted.fdr, output)
        if wanted.strangest and len(run.p):
            bound = bound_of(osc, np.array(run.p), np.array(run.scores))
            run.strangest = min(wanted.strangest, len(run.p)), bound
        journal.publish()
        write_metadata(output, run.shift)
        journal.close(remove=True)
    return run


def _looked(osc: Any, source: Any, journal: Journal, plan: Plan, report: bool, options: dict[str, Any]) -> Any:
    """Look at what the plan leaves to be done; the gallery, of a source in which its images cannot be looked up later.

    New images first and by themselves, so that they share their batches with the same ones as in a run in one go."""
    shown = None
    if plan.new is None:
        for verdicts in osc.stream(source, gallery=report, **options):
            journal.add(verdicts, None)
            shown = verdicts.gallery
        return shown
    for numbers in (plan.new, plan.again):
        at = 0
        part = source if len(numbers) == source.count else source.only(numbers)
        for verdicts in osc.stream(part, **options) if len(numbers) else ():
            journal.add(verdicts, numbers[at : at + len(verdicts)])
            at += len(verdicts)
    return None


def _shift(osc: Any, run: Run, adapted: bool) -> Shift | None:
    """What all images together look like, where that is told."""
    telling = getattr(osc, "telling", None)
    if telling is None:
        return None
    counts = np.array([run.told[kind] for kind in range(1 + len(telling.shifts.kinds))])
    images = run.known + run.unknown
    found: Shift | None = telling.shift(counts, run.unknown, images)
    if found is None or not adapted:
        return found
    return replace(found, adapted=run.adapted / images, adapted_images=run.changed)


def _whole(source: Any, journal: Journal) -> None:
    if source.count is not None and len(journal) != source.count:
        raise ImagesError(
            f"The source has {source.count:,} images and gave {len(journal):,}: it changed meanwhile. Nothing was "
            "written; give the same command again."
        )


def _tell(journal: Journal, plan: Plan) -> None:
    said = [*journal.notes, *plan.notes]
    if plan.used:
        said.append(f"Going on with an unfinished run: {counted(plan.used, 'row')} of it {_are(plan.used)} used.")
    if plan.left:
        said.append(
            f"{counted(plan.left, 'row')} of an unfinished run {_are(plan.left)} left out: the images are no longer "
            "there or no longer the same."
        )
    if plan.others:
        said.append(
            f"{counted(plan.others, 'row')} of an unfinished run of another open-set classifier {_are(plan.others)} "
            "left out."
        )
    for line in said:
        click.echo(line, err=True)


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def _report(osc: Any, source: Any, run: Run, shown: Any, report: Path, title: str) -> None:
    """shown: the gallery, None where its images are looked at again."""
    from ..openset.gallery import Gallery
    from ..report import write_report
    from ..report.build import build, with_shift

    scores = np.array(run.scores)
    if shown is None and len(scores):
        limit = max(osc.calibration.p_threshold, 1e-12)
        wanted = Gallery.wanted(scores, np.array(run.p), np.array(run.strange, dtype=bool), limit)
        for verdicts in osc.stream(source.only(np.array(run.numbers, dtype=np.int64)[wanted]), gallery=True):
            shown = verdicts.gallery
    counts = (run.known, run.unknown, run.unreadable)
    data = build(osc, scores, counts, run.classes, run.bad, shown, run.seconds, title)
    write_report(report, with_shift(data, run.shift))


def _notes(source: Any) -> tuple[str, ...]:
    was = "that is no image was" if source.skipped == 1 else "that are no images were"
    passed = f"{counted(source.skipped, 'file')} {was} passed over"
    return (*source.notes, *([passed] if source.skipped else []))

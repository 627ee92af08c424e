from __future__ import annotations

import json
import shutil
import zipfile
from importlib.resources import as_file, files
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click
import numpy as np

from .common import machine_options


@click.command("demo")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("knownot-demo"),
    show_default=True,
    help="Folder for the images, the open-set classifier and the report.",
)
@click.option("--serve", is_flag=True, help="Then open the page that 'knownot serve' gives, on the same images.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, help="Port of that page.")
@machine_options
def command(output: Path, serve: bool, port: int, as_json: bool, quiet: bool) -> None:
    """Everything on real images that ship with the package, in under two minutes.

    A classifier of ten kinds of clothes (Fashion-MNIST) meets clothes, handwritten digits, photographs, textures,
    noise and two broken files.
    """
    say = (lambda text="": None) if as_json else click.echo
    facts = run(output, say, quiet)
    if as_json:
        click.echo(json.dumps(facts, indent=1, allow_nan=False))
    if serve:
        from .serve import start

        examples = examples_of(output / "incoming")
        start({"clothes": output / "osc"}, True, "warning", as_json=as_json, port=port, examples=examples)


def examples_of(folder: Path, each: int = 6) -> tuple[Path, ...]:
    """Some images of each kind, which their names begin with, in turn."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        kinds.setdefault(path.name.partition("-")[0], []).append(path)
    return tuple(path for row in zip_longest(*(paths[:each] for paths in kinds.values())) for path in row if path)


def run(output: Path, say: Any, quiet: bool) -> dict[str, Any]:
    """Unpack, show the problem, fit, predict and report; what came out."""
    from ..models import open_model
    from ..openset.classifier import load
    from ..openset.fit import fit
    from .fit import facts as fit_facts
    from .predict import Wanted, predict_to

    unpack(output)
    model = open_model(output / "fashion.onnx")
    say("1. The problem. The classifier alone, on images of none of its classes:\n")
    problem = overconfidence(model, output)
    for kind, (images, sure) in problem.items():
        say(f"   {kind:<28} {sure:>4} of {images} get a softmax probability of at least 0.99")

    say("\n2. knownot fit: one pass over 600 images of its classes, 600 others set the threshold.\n")
    osc = fit(output / "fashion.onnx", output / "known", calibration=output / "calibration", progress=not quiet)
    osc.save(output / "osc")
    for note in osc.record.notes:
        say(f"   {note}")
    say(f"   Accuracy {osc.record.accuracy:.1%} on the calibration images. Promise: {osc.promise}.")

    say("\n3. knownot predict: a mixed folder.\n")
    osc = load(output / "osc")
    table_file, report = output / "verdicts.csv", output / "report.html"
    done = predict_to(osc, [str(output / "incoming")], table_file, Wanted(report=report), restart=True, quiet=quiet)
    kinds = per_kind(table_file)
    say(f"   {'truth':<10} {'images':>6} {'known':>6} {'unknown':>8} {'unreadable':>11}")
    for kind, (known, unknown, bad) in kinds.items():
        say(f"   {kind:<10} {known + unknown + bad:>6} {known:>6} {unknown:>8} {bad:>11}")
    say("\n   " + done.words(osc, table_file, report).replace("\n", "\n   "))
    say(f"\nOpen {report} in a browser. The same with your own classifier:\n")
    say("   knownot fit MODEL KNOWN --calibration NEW_KNOWN -o osc/")
    say("   knownot predict osc/ IMAGES -o verdicts.csv --report report.html")
    return {
        "problem": {kind: {"images": n, "softmax_at_least_0.99": sure} for kind, (n, sure) in problem.items()},
        "fit": fit_facts(osc),
        "predict": done.facts(osc, table_file, report),
        "kinds": {k: dict(zip(("known", "unknown", "unreadable"), row, strict=True)) for k, row in kinds.items()},
    }


def unpack(output: Path) -> None:
    """The shipped classifier and images, as a user would have them: a file and folders."""
    output.mkdir(parents=True, exist_ok=True)
    with as_file(files("knownot") / "demo_assets") as assets:
        shutil.copy(assets / "fashion.onnx", output / "fashion.onnx")
        shutil.copy(assets / "NOTICE.md", output / "NOTICE.md")
        for name in ("known", "calibration", "incoming"):
            shutil.rmtree(output / name, ignore_errors=True)
            with zipfile.ZipFile(assets / f"{name}.zip") as archive:
                archive.extractall(output / name)


def overconfidence(model: Any, output: Path) -> dict[str, tuple[int, int]]:
    """{kind of image: (how many, how many with softmax >= 0.99)}, of the classifier as it is."""
    from ..arrays import Preprocess, softmax
    from ..fitting.extraction import extract
    from ..images import open_images

    paths = sorted(p for p in (output / "incoming").iterdir() if not p.name.startswith(("clothes", "broken")))
    way = Preprocess(28, 28, "grey", scale=1 / 255)
    sure: dict[str, list[bool]] = {}
    batches = open_images(paths).batches(128, way, spec=model.input)
    for batch, (activations, fine, _) in extract(model, batches, None, lambda *both: both):
        confident = softmax(activations.logits).max(axis=1) >= 0.99
        for row, yes in zip(batch.rows[fine], confident, strict=True):
            sure.setdefault(Path(batch.ids[row]).name.partition("-")[0] + " images", []).append(bool(yes))
    random = np.random.default_rng(0).random((1000, 28, 28, 1)).astype(np.float32)
    sure["np.random.rand(28, 28, 1)"] = (softmax(model.activations(random).logits).max(axis=1) >= 0.99).tolist()
    return {kind: (len(x), sum(x)) for kind, x in sure.items()}


def per_kind(table_file: Path) -> dict[str, list[int]]:
    """{truth, from the file name: [known, unknown, unreadable]}."""
    import csv

    kinds: dict[str, list[int]] = {}
    with table_file.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            kind = row["id"].partition("-")[0]
            kinds.setdefault(kind, [0, 0, 0])[("known", "unknown", "unreadable").index(row["status"])] += 1
    return kinds

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import OptionError
from .common import (
    Share,
    class_names_option,
    engine_options,
    head_option,
    image_limits,
    machine_options,
    model_of,
    names_from,
    pickle_option,
    preprocess_of,
    preprocess_option,
    said,
    seed_option,
    size_of,
    size_option,
    stage_option,
    thing_of,
)


@click.command("fit")
@click.argument("model")
@click.argument("known")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to save into.")
@click.option("--calibration", help="Known images that the classifier was NOT trained on; they set the threshold.")
@click.option(
    "--detector",
    "detectors",
    multiple=True,
    help="A name of 'knownot detectors'; several are combined; 'auto' chooses by made outliers.  [default; for a "
    "retrained classifier also the scorer that belongs to it]",
)
@click.option("--unknown", help="Some unknown images of your own, as more evidence for --detector auto.")
@click.option(
    "--alpha", type=Share(), default=0.05, show_default=True, help="Share of known images that may be rejected."
)
@click.option(
    "--guarantee",
    type=click.Choice(["pac", "marginal", "class-conditional", "class-conditional-or-marginal"]),
    default="pac",
    show_default=True,
    help="With confidence 1 - delta, on average, or on average within each predicted class.",
)
@click.option("--delta", type=Share(), default=0.01, show_default=True, help="1 - confidence of the 'pac' guarantee.")
@preprocess_option
@size_option
@click.option("--features", help="A second network, or MODULE:NAME: detectors look at its features too.")
@click.option("--features-preprocess", help="How the second network expects its images, when it does not say.")
@click.option("--features-size", help="Height and width of the second network's input, when it does not say.")
@click.option("--features-embedding", is_flag=True, help="Its output is an embedding, even if it looks like classes.")
@class_names_option
@click.option("--none-class", "none_classes", multiple=True, help='A class that means "nothing" (several times).')
@head_option
@stage_option
@click.option("--batch-size", type=click.IntRange(1), help="Images per forward pass.")
@click.option(
    "--thumbnails", type=click.IntRange(0), default=512, show_default=True, help="Known images kept as small pictures."
)
@click.option("--model/--no-model", "include_model", default=True, help="Whether the classifier is saved as well.")
@click.option(
    "--part",
    help="Only part I/OF of the images, such as 3/16, for 'knownot merge': each part on its own, on whatever machine. "
    "1/1 is all images of this place, where others have images of their own.",
)
@click.option("--parts", type=click.IntRange(1), help="Fit the images in so many parts, and merge them.")
@engine_options
@click.option(
    "--shifts/--no-shifts",
    default=None,
    help="Whether changed copies of calibration images are looked at, to tell when incoming images look changed.  "
    "[where that costs at most half as many forward passes as the fit]",
)
@click.option("--shift", "changes", multiple=True, help="One such change, or a family of them (several times).")
@click.option("--allow-low-accuracy", is_flag=True, help="Fit a classifier too that is hardly better than chance.")
@pickle_option
@seed_option
@image_limits
@machine_options
def command(model: str, known: str, output: Path, calibration: str | None, detectors: tuple[str, ...],
            unknown: str | None, alpha: float, guarantee: str, delta: float, preprocess: str | None, size: str | None,
            features: str | None, features_preprocess: str | None, features_size: str | None, features_embedding: bool,
            class_names: Path | None, none_classes: tuple[str, ...], head: str | None, stages: tuple[str, ...],
            batch_size: int | None, thumbnails: int, include_model: bool, part: str | None, parts: int | None,
            engine: str, workers: int | None, shifts: bool | None, changes: tuple[str, ...],
            allow_low_accuracy: bool, unsafe_pickle: bool, seed: int, as_json: bool, quiet: bool) -> None:  # fmt: skip
    """Make a trained classifier say "unknown", in one pass over images of its classes.

    MODEL is a file (.keras, .h5, .onnx, .pt2, TorchScript) or MODULE:NAME in your own Python code. KNOWN is a folder
    (class sub-folders are its labels), a Parquet file or a glob of images.
    """
    from ..openset.fit import fit
    from ..openset.parts import fit_in_parts
    from ..openset.steps import detector_for

    asked = size_of(size)
    opened = model_of(model, head=head, stages=list(stages) or None, size=asked, unsafe_pickle=unsafe_pickle)
    options = {
        "calibration": calibration, "detector": detector_for(model, _asked(detectors)),
        "alpha": alpha, "guarantee": guarantee, "delta": delta,
        "preprocess": preprocess_of(preprocess, asked, opened.input.channels or 3),
        **_second(features, features_preprocess, features_size, features_embedding),
        "class_names": names_from(class_names), "none_classes": list(none_classes) or None, "batch_size": batch_size,
        "thumbnails": thumbnails, "allow_low_accuracy": allow_low_accuracy, "seed": seed, "progress": not quiet,
        "shifts": _shifts(shifts, changes),
    }  # fmt: skip
    if parts is not None and part is not None:
        raise OptionError("--part fits one part, --parts all of them: give one of the two.")
    if parts is not None:
        elsewhere = engine != "none"
        if elsewhere and (":" in model or size or unsafe_pickle or features):
            raise OptionError(
                f"--engine {engine} opens the classifier anew in each process, from a file that says its own size: no "
                "code, --size, --unsafe-pickle or --features. Fit each part with --part instead."
            )
        named = {"head": head, "stages": list(stages) or None} if elsewhere else {}
        osc = fit_in_parts(
            model if elsewhere else opened, known, parts=parts, engine=engine, workers=workers, unknown=unknown,
            **options, **named,
        )  # fmt: skip
    elif part is not None:
        if unknown is not None:
            raise OptionError("--unknown is no part of the known images: give it to 'knownot merge'.")
        return _part(opened, known, part_of(part), output, options, include_model, as_json)
    else:
        osc = fit(opened, known, unknown=unknown, **options)
    osc.save(output, include_model=include_model)
    check_saved(osc, output, include_model=include_model, code=":" in model)
    said(words(osc, output), facts(osc) | {"output": str(output)}, as_json)


def part_of(text: str) -> tuple[int, int]:
    """'3/16'."""
    i, slash, of = text.partition("/")
    if not (slash and i.strip().isdigit() and of.strip().isdigit() and 1 <= int(i) <= int(of)):
        raise OptionError(f"--part {text!r}: expected a number, '/' and how many parts there are, such as 3/16.")
    return int(i), int(of)


def _part(
    model: Any,
    known: str,
    part: tuple[int, int],
    output: Path,
    options: dict[str, Any],
    include_model: bool,
    as_json: bool,
) -> None:
    """Fit one part and save it; the networks go with part 1."""
    from ..fitting.auxiliary import Auxiliary
    from ..openset.parts import fit_part, save_part

    made = fit_part(model, known, part=part, **options)
    first, second = include_model and part[0] == 1, options.get("features")
    save_part(made, output, model if first else None, Auxiliary(second, None) if first and second else None)
    seen = made.known.images + (0 if made.hold is None else sum(len(row[1]) for row in made.hold.rows))
    said(
        f"Part {part[0]}/{part[1]}: {seen:,} known images, {made.known.count:,} unreadable. Saved to {output}. When "
        "all parts are there: knownot merge PART… -o osc/",
        {"part": part[0], "of": part[1], "known": seen, "unreadable": made.known.count, "output": str(output)},
        as_json,
    )


def check_saved(osc: Any, output: Path, *, include_model: bool, code: bool) -> None:
    """Open what was saved once. code: the model came from the user's own code, so it is opened in a new process, which
    knows nothing of that. Raises SavedError when it cannot be."""
    from ..errors import KnownotError, SavedError
    from ..openset.classifier import load

    why = ""
    if include_model and code:
        line = "import sys, knownot; knownot.load(sys.argv[1])"
        done = subprocess.run([sys.executable, "-c", line, str(output)], capture_output=True, text=True, check=False)
        why = "" if not done.returncode else (done.stderr.strip().splitlines() or ["it failed"])[-1]
    else:
        try:
            second = None if include_model or osc.second is None else osc.second.model
            load(output, model=None if include_model else osc.model, features=second)
        except KnownotError as error:
            why = str(error)
    if why:
        raise SavedError(
            f"Fitted and saved to {output}, but what was saved cannot be opened again: {why} Save it without the "
            "classifier (--no-model), and give the classifier when predicting (--model). Or export it to ONNX, and fit "
            "that file."
        )


def _asked(detectors: tuple[str, ...]) -> Any:
    return None if not detectors else detectors[0] if len(detectors) == 1 else list(detectors)


def _shifts(shifts: bool | None, changes: tuple[str, ...]) -> Any:
    if changes and shifts is False:
        raise OptionError("--no-shifts and --shift contradict each other: give one of them.")
    return list(changes) or shifts


def _second(features: str | None, preprocess: str | None, size: str | None, embedding: bool) -> dict[str, Any]:
    """The arguments of `fit` about the second network."""
    if features is None:
        if preprocess or size or embedding:
            raise OptionError("--features-preprocess, -size and -embedding say more of --features, which is missing.")
        return {}
    from ..fitting.auxiliary import open_auxiliary

    asked = size_of(size, "--features-size")
    opened = open_auxiliary(thing_of(features, calls=False), size=asked, embedding=embedding)
    way = preprocess_of(preprocess, asked, opened.input.channels or 3, "--features-preprocess")
    return {"features": opened, "features_preprocess": way}


def words(osc: Any, output: Path) -> str:
    """What a fit tells people."""
    from ..selection.diagnostics import table

    record = osc.record
    accuracy = (
        "" if record.accuracy is None else f" Accuracy {record.accuracy:.1%} on {record.accuracy_images:,} images."
    )
    lines = [
        f"Fitted on {record.known:,} known images, calibrated on {record.calibration:,}"
        + (f" (and {record.ranking:,} to rank the detectors)" if record.ranking else "")
        + f".{accuracy} Promise: {osc.promise}.",
        osc.cost,
    ]
    lines += [f"Left out: {record.unreadable_count:,} unreadable images, the first: {record.unreadable[0][0]}: "
              f"{record.unreadable[0][1]}."] if record.unreadable_count else []  # fmt: skip
    lines += [f"- {note}" for note in record.notes]
    if record.checks:
        lines += ["", table(record.checks, 5), ""]
    return "\n".join([*lines, f"Saved to {output}. Next: knownot predict {output} IMAGES -o verdicts.csv"])


def _changed(osc: Any) -> list[dict[str, Any]]:
    """The kinds of change that are told, for `--json`."""
    if osc.telling is None:
        return []
    return [
        {"kind": kind.name, "accuracy": kind.accuracy, "rejected": rejected, "adapts": kind.adapts}
        for kind, rejected in zip(osc.shifts.kinds, osc.telling.expected, strict=True)
    ]


def facts(osc: Any) -> dict[str, Any]:
    """What `--json` tells of a fit."""
    record = osc.record
    return {
        "known": record.known,
        "calibration": record.calibration,
        "ranking": record.ranking,
        "unreadable": record.unreadable_count,
        "accuracy": record.accuracy,
        "promise": osc.promise,
        "p_threshold": osc.calibration.p_threshold,
        "expected": osc.calibration.expected,
        "alpha": osc.alpha,
        "guarantee": osc.calibration.guarantee,
        "delta": osc.calibration.delta,
        "detectors": list(osc.detector.members),
        "preprocess": None if osc.preprocess is None else osc.preprocess.name,
        "trials": [
            {"preprocess": t.preprocess.name, "accuracy": t.accuracy, "images": t.images} for t in record.trials
        ],
        "second": record.second or None,
        "notes": list(record.notes),
        "shifts": _changed(osc),
        "checks": [
            {
                "detector": c.detector,
                "verdict": c.verdict,
                "why": c.why,
                "flags": list(c.flags),
                "auroc": dict(c.auroc),
            }
            for c in record.checks
        ],
        "seconds": record.seconds,
    }

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any

import click

from .common import (
    class_names_option,
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
)
from .locking import Lock


class _Retrain(click.Command):
    """`retrain REMEDY …` is a command of its own for each remedy, with the remedy's options beside those that all
    share; `retrain --help` shows these and the remedies."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> click.Context:
        if not args or args[0].startswith("-"):
            return super().make_context(info_name, args, parent, **extra)
        if args[0] == "compare":
            from .compare_remedies import command as one
        else:
            one = _command(args[0])
        return one.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from ..remedies import REMEDIES, remedy_class

        kinds = {name: remedy_class(name) for name in REMEDIES}
        with formatter.section("Remedies (knownot retrain REMEDY --help shows its own options)"):
            formatter.write_dl([(name, f"{kind.summary}; outliers: {kind.outliers}") for name, kind in kinds.items()])
            formatter.write_dl([("compare", "several of them, on the same images")])


def _command(remedy: str) -> click.Command:
    from ..remedies import remedy_class

    kind = remedy_class(remedy)
    shared = {parameter.name for parameter in command.params}
    own = [_option(f) for f in fields(kind) if f.repr and f.name not in shared]  # type: ignore[arg-type]
    about = kind.summary[:1].upper() + kind.summary[1:] + f". {kind.paper}." if kind.paper else ""
    _, _, rest = (command.help or "").partition("\n\n")
    both = [*own, *(parameter for parameter in command.params if parameter.name != "remedy")]
    return click.Command(remedy, params=both, callback=partial(_run, remedy), help=f"{about}\n\n{rest}")


def _option(field: Any) -> click.Option:
    """Of a remedy's field: a flag, a number or a text, as its default is."""
    name = "--" + field.name.replace("_", "-")
    known = field.default if field.default is not MISSING else None
    if isinstance(known, bool):
        return click.Option([f"{name}/--no-{name[2:]}", field.name], default=None, help=f"[{'on' if known else 'off'}]")
    numbers = {"int": int, "float": float}
    kind = next((k for word, k in numbers.items() if word in str(field.type)), str)
    return click.Option([name, field.name], type=kind, help="[by itself]" if known is None else f"[{known}]")


@click.command("retrain", cls=_Retrain)
@click.argument("remedy")
@click.argument("model")
@click.argument("known")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to save into.")
@click.option(
    "--outliers",
    multiple=True,
    help="Images of no class: a folder, a Parquet file, a glob, or 'made:KINDS' (made:all, made:noise,patch-shuffle, "
    "made:all,-mixup, made:all,-noise/ without a family). Several times for several.",
)
@click.option("--validation", help="Known images that the classifier was NOT trained on; they measure the accuracy.")
@click.option(
    "--tolerance", type=float, default=0.005, show_default=True, help="By how much that accuracy may fall; 1: anything."
)
@click.option(
    "--interpolate/--no-interpolate",
    default=True,
    help="When it falls by more: go back towards the classifier's own weights, or refuse.  [go back]",
)
@click.option(
    "--mode", type=click.Choice(["full", "head"]), help="All weights, or the last layer only.  [the remedy's]"
)
@click.option("--epochs", type=click.IntRange(1), help="Passes over KNOWN.  [2, in head mode 20]")
@click.option("--batch-size", type=click.IntRange(2), help="Known images per step.  [128]")
@click.option("--learning-rate", type=float, help="The highest learning rate.  [1e-4, in head mode 1e-2]")
@click.option("--ratio", type=float, help="Outliers per known image.  [0.5]")
@click.option("--balanced", is_flag=True, default=None, help="Draw each class as often as any other.")
@click.option(
    "--augment",
    type=click.Choice(["none", "flip", "shift", "flip+shift"]),
    help="How images are changed at random.  [flip+shift]",
)
@click.option("--patience", type=click.IntRange(1), help="Stop after so many epochs without a lower validation loss.")
@click.option(
    "--checkpoints",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for checkpoints; the same command goes on from there after an interruption.",
)
@click.option("--save-every", type=click.IntRange(1), help="Steps between checkpoints.  [an epoch]")
@click.option("--memory", help="About what training may take, such as 4GB; the outcome does not depend on it.  [2GB]")
@preprocess_option
@size_option
@class_names_option
@head_option
@pickle_option
@click.option("--device", help="Where to train, for PyTorch: cpu, cuda, mps.")
@click.option(
    "--half/--no-half",
    default=None,
    help="Train in mixed precision, bfloat16: on a CPU too, or nowhere.  [where the device is made for it]",
)
@seed_option
@image_limits
@machine_options
def command(**_: Any) -> None:
    """Retrain a classifier so that it knows what it does not know.

    MODEL is a .keras, .h5 or .pt2 file, or MODULE:NAME in your own Python code; it stays as it is. KNOWN are images
    of its classes, in sub-folders or with other labels. Next: knownot fit OUTPUT KNOWN.
    """


def _run(remedy: str, model: str, known: str, output: Path, outliers: tuple[str, ...], validation: str | None,
         tolerance: float, interpolate: bool, mode: str | None, epochs: int | None, checkpoints: Path | None,
         preprocess: str | None, size: str | None, class_names: Path | None, head: str | None, unsafe_pickle: bool,
         seed: int, as_json: bool, quiet: bool, **settings: Any) -> None:  # fmt: skip
    from ..remedies import retrain

    asked = size_of(size)
    opened = model_of(model, head=head, size=asked, unsafe_pickle=unsafe_pickle)
    with _held(checkpoints):
        done = retrain(
            remedy, opened, known, outliers=_one(outliers), validation=validation,
            tolerance=None if tolerance >= 1 else tolerance,
            interpolate=interpolate, mode=mode, epochs=epochs, folder=checkpoints, seed=seed, progress=not quiet,
            class_names=names_from(class_names),
            preprocess=preprocess_of(preprocess, asked, opened.input.channels or 3),
            **{name: x for name, x in settings.items() if x is not None},
        )  # fmt: skip
    done.save(output)
    facts = {
        "remedy": done.remedy,
        "accuracy_before": done.accuracy_before,
        "accuracy_after": done.accuracy_after,
        "share": done.share,
        "accuracy_images": done.accuracy_images,
        "validation_is_new": done.validation_is_new,
        "none_classes": done.none_classes,
        "detector": done.scorer,
        "history": [dict(line) for line in done.history],
        "notes": list(done.notes),
        "seconds": done.seconds,
        "output": str(output),
    }
    lines = [
        f"{done.remedy}: accuracy {done.accuracy_before:.2%} before, {done.accuracy_after:.2%} after, on "
        f"{done.accuracy_images:,} known images; {done.seconds:,.0f} s. The scorer that belongs to it: {done.scorer}.",
        *(f"- {note}" for note in done.notes),
        f"Saved to {output}. Next: knownot fit {output} KNOWN --calibration DIR -o osc/",
    ]
    said("\n".join(lines), facts, as_json)


@contextmanager
def _held(checkpoints: Path | None) -> Iterator[None]:
    """The folder of checkpoints as one process's own: two trainings would go on from each other's."""
    if checkpoints is None:
        yield
        return
    new = not checkpoints.exists()
    try:
        with Lock(checkpoints / "lock", f"the checkpoints in {checkpoints}", "another --checkpoints"):
            yield
    finally:
        if new:
            with suppress(OSError):  # there are checkpoints in it
                checkpoints.rmdir()


def _one(outliers: tuple[str, ...]) -> Any:
    return None if not outliers else outliers[0] if len(outliers) == 1 else list(outliers)

from __future__ import annotations

from pathlib import Path

import click

from .common import (
    Share,
    class_names_option,
    head_option,
    image_limits,
    model_of,
    names_from,
    pickle_option,
    preprocess_of,
    preprocess_option,
    seed_option,
    size_of,
    size_option,
    stage_option,
)


@click.command("audit")
@click.argument("model")
@click.argument("known")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("audit.html"),
    show_default=True,
    help="The page: one HTML file.",
)
@click.option("--calibration", help="Known images that the classifier was NOT trained on; they measure the accuracy.")
@click.option("--unknown", "unknowns", multiple=True, help="Unknown images of your own (several times).")
@click.option(
    "--alpha", type=Share(), default=0.05, show_default=True, help="Share of known images that may be rejected."
)
@preprocess_option
@size_option
@class_names_option
@click.option("--detector", "detectors", multiple=True, help="A detector to compare (several times), instead of seven.")
@click.option(
    "--fooling", type=click.IntRange(0), default=8, show_default=True, help="Images to make that fool the classifier."
)
@click.option("--each", type=click.IntRange(2), help="Made images of every kind; 200 of small ones, 64 of large ones.")
@head_option
@stage_option
@click.option("--batch-size", type=click.IntRange(1), help="Images per forward pass.")
@pickle_option
@seed_option
@image_limits
@click.option(
    "--json",
    "json_file",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="Also write every number as JSON; without a file (or as '-'), print it on standard output.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def command(model: str, known: str, output: Path, calibration: str | None, unknowns: tuple[str, ...], alpha: float,
            preprocess: str | None, size: str | None, class_names: Path | None, detectors: tuple[str, ...],
            fooling: int, each: int | None, head: str | None, stages: tuple[str, ...], batch_size: int | None,
            unsafe_pickle: bool, seed: int, json_file: str | None, quiet: bool) -> None:  # fmt: skip
    """Why is this classifier so sure, and what would it take? One page, with every number.

    MODEL is a file (.keras, .h5, .onnx, .pt2, TorchScript) or MODULE:NAME in your own Python code. KNOWN is a folder
    (class sub-folders are its labels), a Parquet file or a glob of images. Exit code 0 whatever is found.
    """
    from ..audit import Names, audit
    from ..audit.recommendations import DETECTORS
    from ..plots import need

    need()  # before minutes of work, not after
    asked = size_of(size)
    opened = model_of(model, head=head, stages=list(stages) or None, size=asked, unsafe_pickle=unsafe_pickle)
    found = audit(
        opened,
        known,
        calibration=calibration,
        unknown=_named(unknowns),
        alpha=alpha,
        preprocess=preprocess_of(preprocess, asked, opened.input.channels or 3),
        detectors=list(detectors) or DETECTORS,
        fooling=fooling,
        each=each,
        class_names=names_from(class_names),
        batch_size=batch_size,
        names=Names(
            model=model,
            known=known,
            calibration=calibration or "",
            unknown=unknowns,
            options=_again(preprocess, size, class_names, head, stages),
        ),
        seed=seed,
        progress=not quiet,
    )
    found.write(output)
    if json_file == "-":
        click.echo(found.to_json(), nl=False)
        return
    if json_file is not None:
        found.write_json(json_file)
    click.echo(f"{found}\nWritten to {output}{f' and {json_file}' if json_file else ''}.")


def _named(unknowns: tuple[str, ...]) -> dict[str, str]:
    """Sets of images by the last part of their paths, or by the whole paths where these are the same."""
    last = [Path(u).name or u for u in unknowns]
    return dict(zip(last if len(set(last)) == len(last) else unknowns, unknowns, strict=True))


def _again(
    preprocess: str | None, size: str | None, class_names: Path | None, head: str | None, stages: tuple[str, ...]
) -> tuple[str, ...]:
    """The options that the next command needs as well."""
    given = {"--preprocess": preprocess, "--size": size, "--class-names": class_names, "--head": head}
    found = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    return (*found, *(word for stage in stages for word in ("--stage", stage)))

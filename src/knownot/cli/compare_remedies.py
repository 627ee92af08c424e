"""knownot retrain compare."""

from __future__ import annotations

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


@click.command("compare")
@click.argument("model")
@click.argument("known")
@click.option(
    "--remedies", "-r", multiple=True, required=True, help="Names, with commas or one by one; see 'knownot retrain'."
)
@click.option(
    "--unknown", multiple=True, required=True, metavar="NAME=IMAGES", help="Unknown images that no remedy may see."
)
@click.option("--validation", required=True, help="Known images that the classifier was NOT trained on, with labels.")
@click.option("--outliers", multiple=True, help="What the remedies learn from: images of no class, or made:KINDS.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The page, .html.")
@click.option("--json-output", type=click.Path(dir_okay=False, path_type=Path), help="Every number, .json.")
@click.option("--auto/--no-auto", default=True, help="Also with the automatic choice of detectors.  [on]")
@click.option("--fooling", type=click.IntRange(0), default=10, show_default=True, help="Fooling images for each.")
@click.option("--epochs", type=click.IntRange(1), help="Passes over KNOWN.  [2, in head mode 20]")
@click.option("--ratio", type=float, help="Made outliers per known image.  [0.5]")
@click.option("--tolerance", type=float, default=0.005, show_default=True, help="By how much the accuracy may fall.")
@preprocess_option
@size_option
@class_names_option
@head_option
@pickle_option
@seed_option
@image_limits
@machine_options
def command(model: str, known: str, remedies: tuple[str, ...], unknown: tuple[str, ...], validation: str,
            outliers: tuple[str, ...], output: Path | None, json_output: Path | None, auto: bool, fooling: int,
            tolerance: float, preprocess: str | None, size: str | None, class_names: Path | None, head: str | None,
            unsafe_pickle: bool, seed: int, as_json: bool, quiet: bool, **settings: Any) -> None:  # fmt: skip
    """Several remedies and none, on the same splits: what each gains on unknown images that it did not see.

    knownot retrain compare MODEL KNOWN -r discriminator,none-class --outliers made:all --validation val/
    --unknown street=street/ -o compare.html
    """
    from ..errors import OptionError
    from ..remedies import compare

    sets = {}
    for text in unknown:
        name, equals, images = text.partition("=")
        if not equals or not name or not images:
            raise OptionError(f"--unknown {text!r}: expected NAME=IMAGES, such as street=photos/street.")
        sets[name] = images
    if output is not None:
        from ..plots import need

        need()  # before anything is computed
    asked = size_of(size)
    opened = model_of(model, head=head, size=asked, unsafe_pickle=unsafe_pickle)
    found = compare(
        opened, known, remedies=[name.strip() for text in remedies for name in text.split(",") if name.strip()],
        validation=validation, unknown=sets,
        outliers=None if not outliers else outliers[0] if len(outliers) == 1 else list(outliers),
        auto=auto, fooling=fooling, tolerance=None if tolerance >= 1 else tolerance, seed=seed, progress=not quiet,
        class_names=names_from(class_names), preprocess=preprocess_of(preprocess, asked, opened.input.channels or 3),
        **{name: x for name, x in settings.items() if x is not None},
    )  # fmt: skip
    if json_output is not None:
        found.write_json(json_output)
    if output is not None:
        found.write(output)
    text = found.table() + f"\n\n{found.sentence}" + (f"\nSaved to {output}." if output is not None else "")
    said(text, found.facts(), as_json)

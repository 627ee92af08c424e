from __future__ import annotations

from pathlib import Path

import click

from .common import image_limits, machine_options, network_options, networks_of, said
from .fit import check_saved, facts, words


@click.command("merge")
@click.argument("parts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to save into.")
@click.option("--unknown", help="Some unknown images of your own, as more evidence for --detector auto.")
@click.option("--no-model", is_flag=True, help="Leave the classifier out of the folder.")
@network_options
@image_limits
@machine_options
def command(parts: tuple[Path, ...], output: Path, unknown: str | None, no_model: bool, model: str | None,
            features: str | None, as_json: bool, quiet: bool) -> None:  # fmt: skip
    """The open-set classifier that 'knownot fit' would make of all images together.

    PARTS are the folders that 'knownot fit --part' wrote, all of them, in any order. No image is looked at again.
    """
    from ..openset.parts import merge

    osc = merge(parts, **networks_of(model, features), unknown=unknown, progress=not quiet)
    osc.save(output, include_model=not no_model)
    check_saved(osc, output, include_model=not no_model, code=model is not None and ":" in model)
    said(words(osc, output), facts(osc) | {"output": str(output)}, as_json)

from __future__ import annotations

from pathlib import Path

import click

from ..errors import OptionError
from .common import image_limits, machine_options, network_options, networks_of, said


@click.command("evaluate")
@click.argument("saved", type=click.Path(path_type=Path))
@click.argument("labelled")
@click.option("--unknown", "unknown", multiple=True, help="Unknown images, as IMAGES or NAME=IMAGES (several times).")
@network_options
@click.option("--batch-size", type=click.IntRange(1), help="Images per forward pass.")
@image_limits
@machine_options
def command(saved: Path, labelled: str, unknown: tuple[str, ...], model: str | None, features: str | None,
            batch_size: int | None, as_json: bool, quiet: bool) -> None:  # fmt: skip
    """Accuracy, realised false alarms against the guarantee, and the share of unknown images caught.

    SAVED is what 'knownot fit' wrote. LABELLED are known images, with class sub-folders or another source of labels,
    that neither trained the classifier nor calibrated.
    """
    from ..openset.classifier import load

    osc = load(saved, **networks_of(model, features))
    found = osc.evaluate(labelled, unknown=_named(unknown) or None, batch_size=batch_size, progress=not quiet)
    said(str(found), found.facts(), as_json)


def _named(given: tuple[str, ...]) -> dict[str, str]:
    sets: dict[str, str] = {}
    for text in given:
        name, equals, images = text.partition("=")
        name, images = (name, images) if equals and not Path(text).exists() else (Path(text).name or text, text)
        if name in sets:
            raise OptionError(f"--unknown {name!r} was given twice: give NAME=IMAGES with different names.")
        sets[name] = images
    return sets

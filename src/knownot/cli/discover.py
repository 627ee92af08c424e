from __future__ import annotations

import os
from pathlib import Path

import click

from .common import image_limits, machine_options, network_options, networks_of, said, seed_option


@click.command("discover")
@click.argument("saved", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("found"),
    show_default=True,
    help="Folder for the clusters; one of an earlier call is added to.",
)
@click.option("--smallest", type=click.IntRange(3), default=10, show_default=True, help="Fewest images in a cluster.")
@seed_option
@network_options
@image_limits
@machine_options
def command(saved: Path, images: tuple[str, ...], output: Path, smallest: int, seed: int, model: str | None,
            features: str | None, as_json: bool, quiet: bool) -> None:  # fmt: skip
    """Find new classes among the unknown images.

    SAVED is what 'knownot fit' wrote. The images called unknown are put into clusters, each a folder of its images that
    can be renamed and given to training; the page index.html shows them.
    """
    from ..images import open_images
    from ..openset.classifier import load
    from ..openset.discovery import discover
    from ..report.found import write_found

    osc = load(saved, **networks_of(model, features))
    source = open_images(images[0] if len(images) == 1 else list(images))
    found, thumbs = discover(osc, source, smallest=smallest, seed=seed, progress=not quiet)
    paths = [_path(name, images) for name in found.verdicts.ids]
    whole = write_found(found, output, paths, thumbs, smallest=smallest)
    facts = {
        "unknown": len(whole.verdicts),
        "alone": len(whole.alone),
        "unstable": whole.unstable,
        "clusters": [
            {
                "images": len(c),
                "cohesion": c.cohesion,
                "stability": c.stability,
                "like": c.like,
                "like_share": c.like_share,
            }
            for c in whole.clusters
        ],
        "output": str(output),
    }
    said(f"{whole.summary}.\nWritten to {output}; see {output / 'index.html'}.", facts, as_json)


def _path(name: str, images: tuple[str, ...]) -> str | None:
    """The file of an image by its id: a path, or one within the folder that was given."""
    for place in (name, *(os.path.join(folder, name) for folder in images if os.path.isdir(folder))):
        if os.path.isfile(place):
            return place
    return None

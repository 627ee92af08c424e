from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..engines import each
from ..errors import SavedError
from ..progress import bar
from .common import engine_options, image_limits, machine_options, network_options, said, seed_option
from .predict_parts import Task, opened

if TYPE_CHECKING:
    from ..openset.discovery import Looked


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
@click.option("--parts", type=click.IntRange(1), default=1, help="Look at the images in so many parts.")
@engine_options
@seed_option
@network_options
@image_limits
@machine_options
def command(saved: Path, images: tuple[str, ...], output: Path, smallest: int, parts: int, engine: str,
            workers: int | None, seed: int, model: str | None, features: str | None, as_json: bool,
            quiet: bool) -> None:  # fmt: skip
    """Find new classes among the unknown images.

    SAVED is what 'knownot fit' wrote. The images called unknown are put into clusters, each a folder of its images that
    can be renamed and given to training; the page index.html shows them.
    """
    from ..openset.discovery import Looked, found_in
    from ..report.found import write_found

    tasks = [
        Task(saved=str(saved), images=images, folder=str(output), number=i, of=parts, networks=(model, features))
        for i in range(1, parts + 1)
    ]
    if parts == 1:
        seen = look_at(tasks[0], progress=not quiet)
    else:
        looked: dict[int, Looked] = {}
        with bar("parts", parts, not quiet) as advance:
            for task, some in each(look_at, tasks, engine=engine, workers=workers):
                looked[task.number] = some
                advance(1)
        seen = Looked.together([looked[number] for number in sorted(looked)])
    found, thumbs = found_in(seen, smallest=smallest, seed=seed)
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


def look_at(task: Task, progress: bool = False) -> Looked:
    """What there is to be seen of a part."""
    from ..openset.discovery import look

    osc, source = opened(task)
    if not hasattr(osc, "looking"):
        raise SavedError("New classes are found by features, and an exported file shows no features: give the folder.")
    return look(osc, source, progress=progress)


def _path(name: str, images: tuple[str, ...]) -> str | None:
    """The file of an image by its id: a path, or one within the folder that was given."""
    for place in (name, *(os.path.join(folder, name) for folder in images if os.path.isdir(folder))):
        if os.path.isfile(place):
            return place
    return None

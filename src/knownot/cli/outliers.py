from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .common import image_limits, machine_options, said, size_of


@click.command("outliers")
@click.argument("kinds", nargs=-1, metavar="KIND...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder to write the PNG files and outliers.json into."
)
@click.option("--like", help="Known images to make them from (and of their size): a folder, a Parquet file or a glob.")
@click.option("--count", type=int, default=100, show_default=True, help="How many images of each kind.")
@click.option("--size", help="Height and width: 224 or 224x160. Known images are cropped and resized to it.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed gives other images.")
@click.option("--add", is_flag=True, help="Write into a folder that is not empty; files of the same name are replaced.")
@click.option("--list", "listed", is_flag=True, help="Show the kinds, and make nothing.")
@image_limits
@machine_options
def command(kinds: tuple[str, ...], output: Path | None, like: str | None, count: int, size: str | None, seed: int,
            add: bool, listed: bool, as_json: bool, quiet: bool) -> None:  # fmt: skip
    """Make images of no class, as PNG files: to see what a classifier does with them, or to train with.

    KIND is a kind (--list shows them), a family, or 'all', several if wanted; with a minus before it (after --), one is
    left out. The same command makes the same images. outliers.json says how each was made.
    """
    from ..outliers import OUTLIERS, kinds_named, write
    from ..outliers.files import plan
    from ..progress import bar

    if listed:
        show({name: kind for name, kind in OUTLIERS.items() if not kinds or name in kinds_named(kinds)}, as_json)
        return
    if not kinds or output is None:
        raise click.UsageError("Give at least one KIND and -o FOLDER, or --list to see the kinds.")
    of, left = plan(kinds, like is not None)
    with bar("Making", len(of) * count, not quiet) as advance:
        made = write(kinds, output, like=like, count=count, size=size_of(size), seed=seed, add=add, advance=advance)
    run = made["runs"][-1]
    text = f"{len(of) * count:,} images of {len(of)} kind{'s' * (len(of) > 1)}, {run['size'][0]} × {run['size'][1]}"
    if run["like"]:
        text += f", made like {run['like']['images']:,} known images"
        if run["like"]["unreadable"]:
            text += f" ({run['like']['unreadable']} more could not be read)"
    text += f", written to {output}."
    if left:
        text += f"\nLeft out, as they are made from known images (give --like): {', '.join(left)}."
    facts = {"output": str(output), "images": len(of) * count, "kinds": of, "left_out": left, **run}
    said(text, facts, as_json)


def show(kinds: dict[str, Any], as_json: bool) -> None:
    rows = [
        {"name": name, **{k: v for k, v in asdict(kind).items() if k != "function"}} for name, kind in kinds.items()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("kind", "family", "made from", "what it is", title="Images of no class")
    for row in rows:
        what = row["summary"] if row["proper"] else f"{row['summary']} (may still be recognised)"
        table.add_row(row["name"], row["family"], "known images" if row["altered"] else "nothing", what)
    Console().print(table)

from __future__ import annotations

from pathlib import Path

import click

from .common import machine_options, said


@click.command("info")
@click.argument("saved", type=click.Path(path_type=Path))
@machine_options
def command(saved: Path, as_json: bool, quiet: bool) -> None:
    """What a saved folder or an exported .onnx file is: classes, promise, detector, accuracy, versions, input.

    Of an exported file the checksum is verified; nothing is run.
    """
    from ..export import info

    facts = info(saved)
    words = {name: value for name, value in facts.items() if value not in (None, "", [], {})}
    width = max(map(len, words))
    lines = [f"{name.replace('_', ' '):<{width}}  {_shown(value)}" for name, value in words.items()]
    said("\n".join(lines), facts, as_json)


def _shown(value: object) -> str:
    if isinstance(value, list):
        shown = ", ".join(map(str, value[:20]))
        return shown + (f", … and {len(value) - 20} more" if len(value) > 20 else "")
    if isinstance(value, dict):
        return ", ".join(f"{name}: {x}" for name, x in value.items())
    return str(value)

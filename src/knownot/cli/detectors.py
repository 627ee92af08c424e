from __future__ import annotations

import dataclasses
import json

import click

from .common import machine_options


@click.command("detectors")
@machine_options
def command(as_json: bool, quiet: bool) -> None:
    """The table of scoring methods: name, what it needs of the classifier, paper."""
    from .. import detectors

    rows = detectors()  # type: ignore[operator]
    if as_json:
        usable = [
            {"name": r.name, "needs": sorted(r.needs), "paper": r.paper} | ({"package": r.package} if r.package else {})
            for r in rows
        ]
        lame = [{"name": name, "package": package, "error": why} for name, package, why in rows.unusable]
        click.echo(json.dumps(usable + lame, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "needs", "summary", "paper", title="Detectors: larger score = more unknown")
    for row in rows:
        fields = {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}
        whence = f"{row.paper} (plug-in {row.package})" if row.package else row.paper
        table.add_row(row.name, ", ".join(sorted(row.needs)), str(fields.get("summary", "")), whence)
    Console().print(table)
    for name, package, why in rows.unusable:
        click.echo(f"{name} of the package {package} cannot be used: {why}")

"""Under which name a classifier is served; the command line asks before the web framework is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import OptionError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> None:
    """Raises OptionError."""
    if not NAME.fullmatch(name):
        raise OptionError(
            f"{name!r} cannot be part of an address: a name has letters, digits and . _ - and at most 64 of them. Give "
            "one: --name NAME=PATH"
        )


def names_of(paths: Mapping[str, str | Path] | Sequence[str | Path]) -> dict[str, Path]:
    """{name: path}; of paths alone, the name is that of the folder or file. Raises OptionError for two of one name."""
    if isinstance(paths, Mapping):
        return {str(name): Path(path) for name, path in paths.items()}
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        place = path.resolve()
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", place.name if place.is_dir() else place.stem).strip("-._") or "model"
        if name in found:
            raise OptionError(f"{str(found[name])!r} and {str(path)!r} are both called {name!r}: --name NAME=PATH")
        found[name] = path
    return found

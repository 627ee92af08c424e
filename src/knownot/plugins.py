"""What other installed packages add to knownot: their entry points of one group, loaded when they are asked for.

    [project.entry-points."knownot.detectors"]
    nearest-mean = "my_package:NearestMean"

Nothing is imported, and no package is looked at, before `loaded` is called.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["Loaded", "loaded", "same_package"]


@dataclass(frozen=True)
class Loaded:
    """One entry point of an installed package: the thing that it names, or why that could not be imported."""

    package: str
    name: str  # of the entry point
    thing: Any = None
    trouble: str = ""


def loaded(group: str, package: str = "") -> tuple[Loaded, ...]:
    """Every entry point of a group, imported, by package and name; of one package only, if given.

    One that cannot be imported has its reason in `trouble`: no error of a plug-in gets out of here.
    """
    path = tuple(sys.path)
    points = [(owner, point) for owner, point in _points(group, path) if not package or same_package(owner, package)]
    return tuple(_load(owner, point, path) for owner, point in points)


def same_package(a: str, b: str) -> bool:
    """Whether two names of packages are those of one package: My_Package is my-package."""
    plain = [re.sub(r"[-_.]+", "-", name).lower() for name in (a, b)]
    return plain[0] == plain[1]


@cache
def _points(group: str, path: tuple[str, ...]) -> tuple[tuple[str, EntryPoint], ...]:
    """(package, entry point), sorted. path: where they were looked for; another one is looked at anew."""
    from importlib.metadata import entry_points

    found = [(point.dist.name if point.dist else "", point) for point in entry_points(group=group)]
    return tuple(sorted(found, key=lambda pair: (pair[0], pair[1].name)))


@cache
def _load(package: str, point: EntryPoint, path: tuple[str, ...]) -> Loaded:
    try:
        return Loaded(package, point.name, point.load())
    except Exception as error:  # whatever a foreign module does when it is imported
        return Loaded(package, point.name, trouble=f"it cannot be imported: {type(error).__name__}: {error}")

"""Detectors that other installed packages add, by entry points of the group `knownot.detectors`.

An entry point names a Detector class or a Recipe, which then has the entry point's name, or a mapping {name: either}.
They are used by name like those of the table, which they cannot replace. They are saved as "package:Class", so that
a folder says which package it needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

from ..errors import OptionError, SavedError, unknown_name
from ..plugins import Loaded, loaded
from .base import Detector
from .recipe import Recipe
from .table import DETECTORS, Rows, kinds_in, row, rows, state_of

GROUP = "knownot.detectors"


@dataclass(frozen=True)
class Plugged:
    """One detector of another package, or why it cannot be used."""

    name: str
    package: str
    recipe: Recipe | None = None
    trouble: str = ""


def plugged(package: str = "") -> tuple[Plugged, ...]:
    """Every detector that installed packages add, or one of them; what cannot be used has its reason in `trouble`."""
    found = [one for point in loaded(GROUP, package) for one in _detectors_of(point)]
    names = Counter(one.name for one in found if not one.trouble)
    return tuple(_unless_taken(one, names[one.name] > 1, found) for one in found)


def named(name: str) -> Recipe:
    """The recipe of a plug-in. Raises OptionError for a name that none has, or whose plug-in cannot be used."""
    found = plugged()
    for one in found:
        if one.name == name and one.recipe is not None and not one.trouble:
            return one.recipe
    for one in found:
        if one.name == name:
            raise OptionError(f"The detector {name!r} of the package {one.package!r} cannot be used: {one.trouble}")
    error = unknown_name("detector", name, [*DETECTORS, *(one.name for one in found if not one.trouble)])
    lame = [
        f" The plug-in {one.name!r} of the package {one.package!r} cannot be used: {one.trouble}"
        for one in found
        if one.trouble
    ]
    raise OptionError("".join([str(error), *lame]))


def name_of(recipe: Recipe) -> str | None:
    """The name that a plug-in gave to this recipe, if one did."""
    if _is_own(recipe.kind):
        return None
    return next((one.name for one in plugged() if one.recipe == recipe and not one.trouble), None)


def all_rows() -> Rows:
    """The table, and after it the detectors of installed plug-ins."""
    found = plugged()
    every = Rows(
        [*rows(), *(row(one.name, one.recipe, one.package) for one in found if one.recipe and not one.trouble)]
    )
    every.unusable = tuple((one.name, one.package, one.trouble) for one in found if one.trouble)
    return every


def saved_name(kind: type[Any]) -> str:
    """How a saved folder names a class: "KNN" one of knownot, "package:Class" one of an installed plug-in."""
    if not _is_own(kind):
        for package, known in _kinds().items():
            if kind in known:
                return f"{package}:{kind.__name__}"
    return kind.__name__


def saved_class(name: str) -> type[Any]:
    """The class of an installed plug-in that a saved folder names "package:Class"; no other package is imported.

    Raises SavedError when the package is not installed, or has no such class, or several.
    """
    package, _, wanted = name.partition(":")
    kinds = {kind for known in _kinds(package).values() for kind in known if kind.__name__ == wanted}
    if len(kinds) == 1:
        return kinds.pop()
    saved = f"This folder was saved with {wanted}, of detectors of the package {package!r}"
    if not loaded(GROUP, package):
        raise SavedError(
            f"{saved}, which is not installed here. If you trust that package, install it and load again: "
            f"pip install {package}"
        )
    if kinds:
        raise SavedError(f"{saved}, which has several classes of that name: it has to rename one.")
    why = " ".join(one.trouble for one in plugged(package) if one.trouble)
    raise SavedError(
        f"{saved}; the one installed here does not have it. {why or 'Install the version with which it was saved.'}"
    )


def _detectors_of(point: Loaded) -> Iterator[Plugged]:
    if point.trouble:
        yield Plugged(point.name, point.package, trouble=point.trouble)
        return
    given = point.thing if isinstance(point.thing, Mapping) else {point.name: point.thing}
    for name, thing in given.items():
        recipe = Recipe(thing) if isinstance(thing, type) and issubclass(thing, Detector) else thing
        if not (isinstance(recipe, Recipe) and issubclass(recipe.kind, Detector) and is_dataclass(recipe.kind)):
            said = f"it names {thing!r}; expected a Detector that is a frozen dataclass, a Recipe of one, or a mapping."
            yield Plugged(str(name), point.package, trouble=said)
            continue
        try:
            row(str(name), recipe)  # what it says of itself can be read
            yield Plugged(str(name), point.package, recipe)
        except Exception as error:  # of foreign code
            yield Plugged(str(name), point.package, trouble=f"it cannot be read: {type(error).__name__}: {error}")


def _unless_taken(one: Plugged, twice: bool, among: list[Plugged]) -> Plugged:
    """The same, or with the trouble that its name is another's."""
    if one.trouble:
        return one
    if one.name in DETECTORS:
        owner = "knownot itself"
    elif twice:
        owner = " and ".join(repr(other.package) for other in among if other.name == one.name and other is not one)
    else:
        return one
    said = (
        f"the package {one.package!r} names a detector {one.name!r}, but {owner} has one of that name. Its entry point "
        "has to have another name."
    )
    return Plugged(one.name, one.package, one.recipe, said)


def _kinds(package: str = "") -> dict[str, set[type[Any]]]:
    """{package: classes} of what detectors of plug-ins are built of: those in the plug-in's own code."""
    found: dict[str, set[type[Any]]] = {}
    for one in plugged(package):
        for method in kinds_in(one.recipe) if one.recipe else ():
            found.setdefault(one.package, set()).update(k for k in state_of(method) if _top(k) == _top(method))
    return {owner: {kind for kind in kinds if not _is_own(kind)} for owner, kinds in found.items()}


def _top(kind: type[Any]) -> str:
    return kind.__module__.partition(".")[0]


def _is_own(kind: type[Any]) -> bool:
    return _top(kind) == __name__.partition(".")[0]

"""From what the user names to a recipe that is sound for the classifier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..arguments import short
from ..arrays import Capabilities
from ..errors import OptionError, UnsoundError
from . import plugged
from .base import Detector, Recipe
from .combined import Combined
from .given import given as as_given
from .table import DETECTORS


def configure(name: str, **options: Any) -> Recipe:
    """The detector of this name in the table, or of an installed plug-in, with options: `configure("knn", k=20)`.

    Raises OptionError for an unknown name or option.
    """
    recipe = DETECTORS[name] if name in DETECTORS else plugged.named(name)
    return recipe.with_options(**options)


def resolve(detector: Any, capabilities: Capabilities) -> tuple[Recipe, list[str]]:
    """The recipe that `detector` stands for on this classifier, and sentences on what had to be left out.

    detector: a name of the table, or of a plug-in; a Recipe; a Detector class; a Detector that is fitted already,
        which stays as it is; several of them in a sequence, or a mapping {name: any of them, or the options of the
        detector of that name}: then their combination.

    Raises OptionError for what is no detector, an unknown name or option, an option out of range, or one detector
    given twice; UnsoundError, naming the detectors that would work, for one that this classifier does not allow.
    """
    named = _named(detector)
    (recipe, *others) = named.values()
    if others:
        recipe = Recipe(Combined, {"members": named})
    recipe, notes = recipe.settled(capabilities)
    try:
        recipe.required_statistics(capabilities)  # checks needs and options, before any image is seen
    except UnsoundError as error:
        raise UnsoundError(str(error), cure=f"Detectors that work here: {', '.join(working(capabilities))}.") from error
    return recipe, notes


def working(capabilities: Capabilities) -> list[str]:
    """The names of the table whose needs this classifier meets."""
    return [name for name, recipe in DETECTORS.items() if _works(recipe, capabilities)]


def _works(recipe: Recipe, capabilities: Capabilities) -> bool:
    try:
        recipe.required_statistics(capabilities)
    except UnsoundError:
        return False
    return True


def label(recipe: Recipe) -> str:
    """Its name in the table; with options other than the table's, they are named too."""
    for name, entry in DETECTORS.items():
        if entry == recipe:
            return name
    foreign = plugged.name_of(recipe)
    if foreign is not None:
        return foreign
    same = [name for name, entry in DETECTORS.items() if entry.kind is recipe.kind and not entry.options]
    options = ", ".join(f"{name}={_plain(value)}" for name, value in recipe.options.items())
    return f"{same[0] if same else recipe.kind.__name__}({options})"


def _plain(option: Any) -> str:
    if isinstance(option, Detector):
        return type(option).__name__
    return label(option) if isinstance(option, Recipe) else repr(option)


def _named(detector: Any) -> dict[str, Recipe]:
    if isinstance(detector, Mapping):
        pairs: Iterable[tuple[str, Recipe]] = [(name, _one(name, given)) for name, given in detector.items()]
    elif isinstance(detector, Sequence) and not isinstance(detector, str):
        pairs = [_named_by_itself(given) for given in detector]
    else:
        pairs = [_named_by_itself(detector)]
    named: dict[str, Recipe] = {}
    for name, recipe in pairs:
        if name in named:
            raise OptionError(f"The detector {name!r} is there twice; give each once.")
        named[name] = recipe
    if not named:
        raise OptionError(f"No detector was given. There are: {', '.join(DETECTORS)}.")
    return named


def _named_by_itself(given: Any) -> tuple[str, Recipe]:
    """A fitted detector has the name of its class."""
    recipe = _one("", given)
    return type(given).__name__ if isinstance(given, Detector) else label(recipe), recipe


def _one(name: Any, given: Any) -> Recipe:
    if isinstance(given, str):
        return configure(given)
    if isinstance(given, Mapping):
        return configure(str(name), **given)
    if isinstance(given, type) and issubclass(given, Detector):
        return Recipe(given)
    if isinstance(given, Recipe) and issubclass(given.kind, Detector):
        return given
    if isinstance(given, Detector):
        return as_given(given)
    raise OptionError(
        f"{short(given)} is no detector. Give a name, several, or a recipe such as KNN.recipe(k=20). "
        f"The names are: {', '.join(DETECTORS)}."
    )

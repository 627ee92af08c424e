"""What a detector and a shaper are, and how fitted ones move between kinds of arrays."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from ..arguments import flag as flag  # detectors of other packages look here
from ..arguments import number as number
from ..arguments import one_of as one_of
from ..arrays import Activations, Array, Capabilities, Head
from ..errors import InputError, unknown_name
from ..renamed import OldName, old_names, take_old_names
from ..stats import Reduction, StatisticRequest
from .passes import Pass
from .recipe import Recipe

__all__ = ["Detector", "Fitted", "Recipe", "Shaper", "flag", "number", "one_of", "place", "some_images", "to_namespace"]

__getattr__ = old_names(__name__, {"moved": "to_namespace"})

LARGE = 10_000  # numbers from which on an array is looked at for equals


class Fitted(ABC):
    """Written as a frozen dataclass whose fields are its whole state: an unfitted one does not exist.

    Options are declared once, as keyword-only parameters of `fit` with their defaults (`*_, **options` here stand for
    any); `Recipe` reads them there, and hands all of them, defaults filled in, to `required_statistics`,
    `needs_with` and `passes_before`.

    needs: what the classifier has to offer (see `arrays.Capabilities.outputs`).
    fits_on_passes: whether `fit` reads what the extra passes of the known images give.
    passes_by_fit: whether its extra passes depend on what was fitted.
    paper: reference in one line, and `summary`: what the score is, in one line; both for the table.
    """

    needs: ClassVar[frozenset[str]]
    fits_on_passes: ClassVar[bool] = False
    passes_by_fit: ClassVar[bool] = False
    paper: ClassVar[str] = ""
    summary: ClassVar[str] = ""

    wants = OldName("required_statistics")
    settle = OldName("resolve_defaults")

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        take_old_names(cls)

    def __post_init__(self) -> None:
        """Its arrays in C order: the layout that saving keeps, so that BLAS rounds alike before saving and after."""
        for f in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, f.name)
            laid = in_c_order(value)
            if laid is not value:
                object.__setattr__(self, f.name, laid)

    @classmethod
    def needs_with(cls, **options: Any) -> frozenset[str]:
        """`needs` under these options, those of recipes among the options included."""
        return cls.needs.union(*(inner.needs() for inner in Recipe(cls, options).inner()))

    @classmethod
    def resolve_defaults(cls, recipe: Recipe, capabilities: Capabilities) -> tuple[Recipe, list[str]]:
        """The recipe with nothing left open for this classifier, and sentences on what had to be left out."""
        return recipe, []

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, *_: Any, **options: Any) -> dict[str, StatisticRequest]:
        """The statistics of known images that `fit` reads, by the names it reads them under.

        Asked before any image is seen: it is here that options out of range raise OptionError.
        """
        return {}

    @classmethod
    @abstractmethod
    def fit(cls, statistics: Mapping[str, Any], head: Any, *_: Any, **options: Any) -> Self:
        """From the statistics named in `required_statistics`, and the head (None when the classifier shows none).

        Statistics are float64, and so is the state.
        """

    @classmethod
    def passes_before(cls, *_: Any, **options: Any) -> tuple[Pass, ...]:
        """The extra passes that it needs, as far as they are known before it is fitted (see `passes`)."""
        return ()

    def exactly(self) -> Self:
        """With exact search, where it searches by an approximate index; itself where it does not."""
        return self

    @classmethod
    def recipe(cls, **options: Any) -> Recipe:
        """This method with these options, to be fitted: `KNN.recipe(k=20)`."""
        return Recipe(cls, options)


class Detector(Fitted):
    """A fitted scorer.

    needs_reference: whether `fit_reference` learns anything, so that images have to be set apart for it.
    chooses: whether its members are yet to be chosen by evidence (see `knownot.selection.choice`).
    """

    needs_reference: ClassVar[bool] = False
    chooses: ClassVar[bool] = False

    parts = OldName("member_scores")
    join = OldName("combine")
    rank = OldName("fit_reference")
    ranks = OldName("needs_reference")
    reduces = OldName("map_reductions")

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The extra passes whose results `score` reads, beside the one that all detectors share; most need none."""
        return ()

    @abstractmethod
    def score(self, batch: Activations) -> Array:
        """[n]; larger means more unknown. Always. In the array API standard."""

    def member_scores(self, batch: Activations) -> Array:
        """[n, m] scores of the members, for one that combines; of itself, [n, 1], for any other."""
        return self.score(batch)[:, None]

    def combine(self, member_scores: Array) -> Array:
        """[n, m] -> [n]: `score` from `member_scores`."""
        return member_scores[:, 0]

    def fit_reference(self, member_scores: np.ndarray) -> Self:
        """Learn from members' scores [n, m] of known images that are new to the classifier; only combinations do."""
        return self

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the columns of `member_scores`."""
        return (type(self).__name__,)

    @property
    def map_reductions(self) -> tuple[Reduction, ...]:
        """What `score` reads of maps, that of detectors inside included. Those who read any name their own."""
        found = [thing for value in vars(self).values() for thing in _flat(value) if isinstance(thing, Detector)]
        return tuple(dict.fromkeys(reduction for inner in found for reduction in inner.map_reductions))


class Shaper(Fitted):
    """Changes activations before a detector scores them."""

    @abstractmethod
    def shape(self, batch: Activations, head: Head) -> Activations:
        """New activations (features, and logits by the head); the batch given stays as it is."""


def exact(thing: Any) -> Any:
    """The same detector with every search in it exact, as graphs search; itself where it is that already."""
    if isinstance(thing, tuple):
        made = tuple(map(exact, thing))
        return thing if all(a is b for a, b in zip(made, thing, strict=True)) else made
    if is_dataclass(thing) and not isinstance(thing, type):
        new = {f.name: exact(getattr(thing, f.name)) for f in fields(thing)}
        same = all(new[name] is getattr(thing, name) for name in new)
        thing = thing if same else replace(thing, **new)
        return thing.exactly() if isinstance(thing, Fitted) else thing
    return thing


def in_c_order(thing: Any) -> Any:
    """The same array, dataclass or tuple with every NumPy array inside in C order; itself where they are already."""
    if isinstance(thing, np.ndarray):
        return np.asarray(thing, order="C")
    if isinstance(thing, tuple):
        laid = tuple(in_c_order(x) for x in thing)
        return thing if all(a is b for a, b in zip(laid, thing, strict=True)) else laid
    if is_dataclass(thing) and not isinstance(thing, type):
        new = {f.name: in_c_order(getattr(thing, f.name)) for f in fields(thing)}
        same = all(new[name] is getattr(thing, name) for name in new)
        return thing if same else replace(thing, **new)
    return thing


def to_namespace(thing: Any, xp: Any, dtype: Any) -> Any:
    """The same detector or shaper with its float arrays in namespace `xp` as `dtype`, nested ones included.

    Large arrays that are equal become one, so that what is computed of a bank can be shared (`Activations.cached`).
    """
    return _to_namespace(thing, xp, dtype, {})


def _to_namespace(thing: Any, xp: Any, dtype: Any, large: dict[Hashable, Any]) -> Any:
    if isinstance(thing, np.ndarray):
        there = xp.asarray(thing, dtype=dtype) if thing.dtype.kind == "f" else xp.asarray(thing)
        return there if thing.size < LARGE else large.setdefault(_digest(thing), there)
    if is_dataclass(thing) and not isinstance(thing, type):
        return replace(
            thing, **{f.name: _to_namespace(getattr(thing, f.name), xp, dtype, large) for f in fields(thing)}
        )
    if isinstance(thing, tuple):
        return tuple(_to_namespace(x, xp, dtype, large) for x in thing)
    return thing


def _digest(x: np.ndarray) -> Hashable:
    return x.shape, x.dtype.str, hashlib.blake2b(np.ascontiguousarray(x), digest_size=16).digest()


def _flat(thing: Any) -> tuple[Any, ...]:
    return thing if isinstance(thing, tuple) else (thing,)


def some_images(count: float, who: str, which: str = "known images") -> None:
    """Raise InputError unless there were any."""
    if not count:
        raise InputError(f"{who} was given no {which}; it is fitted on at least one.")


def place(of: str, capabilities: Capabilities) -> None:
    """Raise OptionError unless `of` is an array that this classifier, or the second network, shows."""
    places = ["features", *(f"stages/{name}" for name in capabilities.stages), *capabilities.second]
    if of not in places:
        raise unknown_name("place in this classifier to measure distances", str(of), places)

"""What a detector, a shaper and a recipe are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from ..arrays import Activations, Array, Head, Offers
from ..errors import OptionError, UnsoundError
from ..stats import Statistic, Want


class Detector(ABC):
    """A fitted scorer, written as a frozen dataclass: its fields are its whole state.

    needs: what the classifier has to offer (see `arrays.Offers.kinds`).
    paper: reference in one line, for the table.
    """

    needs: ClassVar[frozenset[str]]
    paper: ClassVar[str]

    @classmethod
    def wants(cls, offers: Offers, **options: Any) -> dict[str, Want]:
        """The statistics of known images that `fit` reads, by the names it reads them under."""
        return {}

    @classmethod
    @abstractmethod
    def fit(cls, seen: Mapping[str, Statistic], head: Head | None, **options: Any) -> Self:
        """From the statistics named in `wants`; statistics are float64, and so is the state."""

    @abstractmethod
    def score(self, batch: Activations) -> Array:
        """[n]; larger means more unknown. Always. In the array API standard."""

    def parts(self, batch: Activations) -> Array:
        """[n, m] scores of the members, for one that combines; of itself, [n, 1], for any other."""
        return self.score(batch)[:, None]

    def join(self, parts: Array) -> Array:
        """[n, m] -> [n]: `score` from `parts`."""
        return parts[:, 0]

    def rank(self, parts: np.ndarray) -> Self:
        """Learn from the parts [n, m] of known images that are new to the classifier; only combinations do."""
        return self

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the columns of `parts`."""
        return (type(self).__name__,)


class Shaper(ABC):
    """Changes activations before a detector scores them. A frozen dataclass, fitted, like a detector."""

    needs: ClassVar[frozenset[str]]
    paper: ClassVar[str]

    @classmethod
    def wants(cls, offers: Offers, **options: Any) -> dict[str, Want]:
        return {}

    @classmethod
    @abstractmethod
    def fit(cls, seen: Mapping[str, Statistic], head: Head | None, **options: Any) -> Self: ...

    @abstractmethod
    def shape(self, batch: Activations) -> Activations:
        """New activations (features, and logits by the head); the batch given stays as it is."""


@dataclass(frozen=True)
class Recipe:
    """A detector (or shaper) and its options, not yet fitted: what the user configures."""

    kind: type[Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    def with_options(self, **options: Any) -> Recipe:
        return Recipe(self.kind, {**self.options, **options})

    def needs(self) -> frozenset[str]:
        """What the classifier has to offer; options may add to the kind's own needs."""
        given = self._inner()
        return self.kind.needs.union(*(r.needs() for r in given))

    def missing(self, offers: Offers) -> frozenset[str]:
        return self.needs() - offers.kinds

    def wants(self, offers: Offers) -> dict[str, Want]:
        return self.kind.wants(offers, **self.options)

    def fit(self, found: Mapping[Want, Statistic], head: Head | None, offers: Offers) -> Any:
        """Fitted. Raises UnsoundError when the classifier does not offer what is needed."""
        missing = self.missing(offers)
        if missing:
            raise UnsoundError(
                f"{self.kind.__name__} needs the classifier's {' and '.join(sorted(missing))}, which this one does "
                f"not show; it shows: {', '.join(sorted(offers.kinds))}."
            )
        seen = {name: found[want] for name, want in self.wants(offers).items()}
        return self.kind.fit(seen, head, **self.options)

    def _inner(self) -> list[Recipe]:
        flat: list[Recipe] = []
        for option in self.options.values():
            flat += [option] if isinstance(option, Recipe) else []
            flat += [r for r in option.values() if isinstance(r, Recipe)] if isinstance(option, Mapping) else []
        return flat


def moved(thing: Any, xp: Any, dtype: Any) -> Any:
    """The same detector or shaper with its float arrays in namespace `xp` as `dtype`, nested ones included."""
    if isinstance(thing, np.ndarray):
        return xp.asarray(thing, dtype=dtype) if thing.dtype.kind == "f" else xp.asarray(thing)
    if is_dataclass(thing) and not isinstance(thing, type):
        return replace(thing, **{f.name: moved(getattr(thing, f.name), xp, dtype) for f in fields(thing)})
    if isinstance(thing, tuple):
        return tuple(moved(x, xp, dtype) for x in thing)
    return thing


def one_of(name: str, given: Any, allowed: tuple[Any, ...]) -> None:
    """Raise OptionError unless `given` is among `allowed`."""
    if given not in allowed:
        raise OptionError(f"{name}={given!r}: expected one of {', '.join(map(repr, allowed))}.")

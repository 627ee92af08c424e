"""A method and its options, before it is fitted."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..arrays import Capabilities, Head
from ..errors import InputError, OptionError, UnsoundError, unknown_name
from ..models.base import CURES
from ..stats import Reduction, Statistic, StatisticRequest, reductions_of
from .passes import Pass, each_once

DETECTORS: dict[str, Recipe] = {}  # every detector of knownot itself by name; `table` has a line for each

REQUIRED = inspect.Parameter.empty  # stands where an option has no default


@dataclass(frozen=True)
class Recipe:
    """A detector (or shaper) and its options, not yet fitted: what the user configures.

    paper, summary: for the table, where the options make another paper's method of it.

    Raises OptionError for an option that the kind does not have.
    """

    kind: type[Any]  # a subclass of Detector or Shaper
    options: Mapping[str, Any] = field(default_factory=dict)
    paper: str = field(default="", compare=False)
    summary: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        allowed = options_of(self.kind)
        for name in self.options:
            if name not in allowed:
                raise unknown_name(f"option of {self.kind.__name__}", name, allowed)

    @property
    def filled(self) -> dict[str, Any]:
        """All options: those given, and the defaults of the others that have one."""
        usual = {name: default for name, default in options_of(self.kind).items() if default is not REQUIRED}
        return {**usual, **self.options}

    def with_options(self, **options: Any) -> Recipe:
        return Recipe(self.kind, {**self.options, **options}, self.paper, self.summary)

    def needs(self) -> frozenset[str]:
        """What the classifier has to offer."""
        return self.kind.needs_with(**self.filled)

    def missing(self, capabilities: Capabilities) -> frozenset[str]:
        """What of it this classifier does not offer. Whoever has exact logits has probabilities too."""
        implied = {"probabilities"} if "logits" in capabilities.outputs else set()
        return self.needs() - capabilities.outputs - implied

    def check(self, capabilities: Capabilities) -> None:
        """Raise UnsoundError when the classifier does not offer what is needed."""
        for inner in self.inner():  # first, so that the one at fault is named
            inner.check(capabilities)
        missing = self.missing(capabilities)
        if missing:
            why = ""
            if "logits" in missing:
                why = " Its outputs are probabilities: they give logits up to a constant per image only."
            why += "".join(f" {CURES[kind]}" for kind in sorted(missing & CURES.keys()))
            if "second" in missing:
                raise UnsoundError(
                    f"{self.kind.__name__} is to look at what a second network shows, but there is none: give one, "
                    "knownot.fit(…, features=other_network)."
                )
            raise UnsoundError(
                f"{self.kind.__name__} needs the classifier's {' and '.join(sorted(missing))}, which this one does "
                f"not show; it shows: {', '.join(sorted(capabilities.outputs))}.{why}"
            )

    def settled(self, capabilities: Capabilities) -> tuple[Recipe, list[str]]:
        """With nothing left open for this classifier, and sentences on what had to be left out."""
        return self.kind.resolve_defaults(self, capabilities)

    def required_statistics(self, capabilities: Capabilities) -> dict[str, StatisticRequest]:
        """The statistics that `fit` reads. Raises UnsoundError or OptionError before any image is seen."""
        recipe, _ = self.settled(capabilities)
        recipe.check(capabilities)
        absent = [name for name in options_of(recipe.kind) if name not in recipe.filled]
        if absent:
            raise OptionError(
                f"{recipe.kind.__name__} needs the option {absent[0]!r}: expected a value, it has no default."
            )
        return recipe.kind.required_statistics(capabilities, **recipe.filled)

    def reductions(self, capabilities: Capabilities) -> tuple[Reduction, ...]:
        """What of maps has to be gathered for `fit`, and read for `score`."""
        return reductions_of(self.required_statistics(capabilities).values())

    def fit(self, found: Mapping[StatisticRequest, Statistic], head: Head | None, capabilities: Capabilities) -> Any:
        """Fitted. Raises UnsoundError when the classifier does not offer what is needed."""
        requests = self.required_statistics(capabilities)
        absent = [request for request in requests.values() if request not in found]
        if absent:
            raise InputError(f"{self.kind.__name__} was given no known images: {absent[0]} was not gathered.")
        recipe, _ = self.settled(capabilities)
        return recipe.kind.fit({name: found[request] for name, request in requests.items()}, head, **recipe.options)

    def passes(self, *, held_out: bool) -> tuple[Pass, ...]:
        """The extra passes that the known images need: those that `fit` reads and, if some of these images are held out
        to be scored, all. Raises OptionError when those depend on what is not fitted yet."""
        if held_out and self.kind.passes_by_fit:
            raise OptionError(
                f"{self.kind.__name__} changes images by what it has learnt, so known images that are held out during "
                "the fit cannot be scored. Give calibration= images of their own."
            )
        own = held_out or self.kind.fits_on_passes
        found = list(self.kind.passes_before(**self.filled)) if own else []
        return each_once([*found, *(one for r in self.inner() for one in r.passes(held_out=held_out))])

    def inner(self) -> list[Recipe]:
        """The recipes among the options."""
        flat: list[Recipe] = []
        for option in self.options.values():
            flat += [option] if isinstance(option, Recipe) else []
            flat += [r for r in option.values() if isinstance(r, Recipe)] if isinstance(option, Mapping) else []
        return flat


def options_of(kind: type[Any]) -> Mapping[str, Any]:
    """{option: its default, or REQUIRED} of a detector or shaper: the keyword-only parameters of its `fit`."""
    return _keywords(kind.fit)


@functools.cache  # a signature is slow to read, and a fit asks for the same ones thousands of times
def _keywords(function: Any) -> Mapping[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return MappingProxyType({p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY})

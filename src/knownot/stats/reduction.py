"""What is kept of maps: a short vector per image, made while the batch is there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..arrays import Activations, Array
from ..errors import InputError


@dataclass(frozen=True)
class Reduction(ABC):
    """A formula from the maps of one batch to [n, r], in the array API standard; its fields are plain values.

    A `StatisticRequest` names it where it would name a path, and that asks for the maps: whoever computes activations
    reads `maps`, and `reduced` puts the vectors in their place, so that no map outlives its batch.
    """

    @property
    @abstractmethod
    def maps(self) -> tuple[str, ...]:
        """The layers whose maps it reads."""

    @abstractmethod
    def of(self, batch: Activations) -> Array:
        """[n, r], each row of one image alone."""

    def read(self, batch: Activations) -> Array:
        """The same, from activations with maps or with what was made of them. Raises InputError without."""
        found = batch.reduced.get(repr(self))
        if found is not None:
            return found
        absent = [name for name in self.maps if name not in batch.maps]
        if absent:
            raise InputError(
                f"The activations lack the map {absent[0]!r}, of which {self!r} is made. Ask for it, "
                "model.activations(images, maps=(…)), or let it be reduced batch by batch: "
                "knownot.detectors.reducing.reducing(model, detector.map_reductions)."
            )
        return self.of(batch)


def reduced(batch: Activations, reductions: Iterable[Reduction]) -> Activations:
    """The activations with these vectors in place of the maps."""
    made = {repr(reduction): reduction.read(batch) for reduction in reductions}
    return replace(batch, maps={}, reduced={**batch.reduced, **made})


def maps_of(reductions: Iterable[Reduction]) -> tuple[str, ...]:
    """The layers that these read, each once."""
    return tuple(dict.fromkeys(name for reduction in reductions for name in reduction.maps))

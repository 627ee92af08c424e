"""What reductions of one layer's maps share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from array_api_compat import array_namespace

from ..arrays import Activations, Array
from ..stats import Reduction
from .formulas import divided


@dataclass(frozen=True)
class OfLayer(Reduction):
    """A formula of the map of one layer, space laid out flat."""

    layer: str

    @property
    def maps(self) -> tuple[str, ...]:
        return (self.layer,)

    def of(self, batch: Activations) -> Array:
        maps = batch.maps[self.layer]
        _, k, h, w = maps.shape
        return self.made(array_namespace(maps).reshape(maps, (-1, k, h * w)), batch)

    @abstractmethod
    def made(self, f: Array, batch: Activations) -> Array:  # [n, k, h w] -> [n, r]
        """The formula; batch: whose maps these are."""


def scaled(f: Array) -> tuple[Array, Array]:  # [n, k, s] -> [n, k, s], [n, 1, 1]
    """Each map divided by its largest absolute value, so that squares neither overflow nor vanish; and those values."""
    xp = array_namespace(f)
    top = xp.max(xp.abs(f), axis=(1, 2), keepdims=True)
    return divided(f, top), top

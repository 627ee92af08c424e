"""A model whose maps are reduced to short vectors before anybody else sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from ..arrays import Activations
from ..models import Model
from ..models.wrapper import Wrapper
from ..stats import Reduction, maps_of, one_blas_thread, reduced


def reducing(model: Model, reductions: Iterable[Reduction]) -> Model:
    """The model itself when nothing is made of its maps; else one that shows the same and `Activations.reduced` too.

    The maps live for one batch. Wrap what detectors are fitted on, measured on or score:
    `recipe.reductions(capabilities)` and `detector.map_reductions` say what they read.
    """
    reductions = tuple(dict.fromkeys(reductions))
    return Reducing(model, reductions) if reductions else model


class Reducing(Wrapper):
    """See `reducing`."""

    def __init__(self, model: Model, reductions: tuple[Reduction, ...]) -> None:
        super().__init__(model)
        self._reductions, self._maps = reductions, model.known_maps(maps_of(reductions))

    def forward(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        seen = self.inner.forward(batch, self.known_maps((*self._maps, *maps)))
        return replace(self._reduced(seen), maps={name: seen.maps[name] for name in maps})

    def submit(self, batch: np.ndarray) -> Callable[[], Activations]:
        waiting = [self.inner.forward(batch, self._maps)]
        return lambda: self._reduced(waiting.pop())  # whoever keeps this keeps no map

    def _reduced(self, seen: Activations) -> Activations:
        with one_blas_thread():
            return reduced(seen, self._reductions)

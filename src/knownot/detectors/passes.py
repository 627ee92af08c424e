"""Extra passes through the classifier: of images changed a little, or with dropout at work.

Some methods score how the classifier answers to a changed image. A detector that does names its `passes`; whoever
computes activations runs them on the same batch, and what they gave lies beside the activations, as "extra/<name>/…".
So `score` stays a function of activations, and a detector without passes costs nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..arrays import Activations, Array, Preprocess
from ..errors import InputError
from ..models import Model
from ..models.wrapper import Wrapper
from ..renamed import old_names

__getattr__ = old_names(__name__, {"passing": "with_extra_passes"})

__all__ = ["Pass", "direction", "each_once", "extend_with_passes", "span", "with_extra_passes"]


class Pass(ABC):
    """Something to compute of a batch with the classifier at hand. Passes of one name give the same, and run once."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Unique to what is computed: the method and its options, without "/"."""

    @abstractmethod
    def run(self, model: Model, x: np.ndarray, seen: Activations, way: Preprocess | None) -> dict[str, np.ndarray]:
        """{what: [n, …] float32}, for each image by itself.

        x: the batch in the classifier's layout; seen: its activations; way: how raw images became x, None when x was
        given as it is.
        """

    def read(self, batch: Activations, what: str) -> Array:
        """What it gave. Raises InputError when it was not run."""
        found = batch.extra.get(f"{self.name}/{what}")
        if found is None:
            raise InputError(
                f"The activations lack what the extra pass {self.name!r} gives, which detectors of changed images "
                "read: activations = knownot.detectors.passes.extend_with_passes(model, x, activations, "
                "detector.passes)."
            )
        return found


def each_once(passes: Iterable[Pass]) -> tuple[Pass, ...]:
    """Without those whose name was there before."""
    return tuple({p.name: p for p in passes}.values())


def with_extra_passes(model: Model, passes: Sequence[Pass], way: Preprocess | None) -> Model:
    """The model itself when there are no passes; else one that shows the same and what they give.

    Wrap whatever detectors are fitted on, measured on or score.
    """
    return Passing(model, tuple(passes), way) if passes else model


class Passing(Wrapper):
    """See `with_extra_passes`."""

    def __init__(self, model: Model, passes: Sequence[Pass], way: Preprocess | None) -> None:
        super().__init__(model)
        self._passes, self._way = passes, way

    def forward(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        seen = self.inner.forward(batch, maps)
        fine = seen.finite()
        if fine.all() or not fine.any():
            return seen if not fine.any() else extend_with_passes(self.inner, batch, seen, self._passes, self._way)
        part = extend_with_passes(self.inner, batch[fine], seen.take(fine), self._passes, self._way).extra
        extra = {path: np.full((len(fine), *x.shape[1:]), np.nan, x.dtype) for path, x in part.items()}
        for path, x in part.items():
            extra[path][fine] = x
        return replace(seen, extra=extra)


def extend_with_passes(
    model: Model, x: np.ndarray, seen: Activations, passes: Sequence[Pass], way: Preprocess | None = None
) -> Activations:
    """The activations `seen` of the batch x (in the classifier's layout), with what these passes give beside them."""
    extra = dict(seen.extra)
    for one in each_once(passes):
        extra |= {f"{one.name}/{what}": values for what, values in one.run(model, x, seen, way).items()}
    return replace(seen, extra=extra)


def span(model: Model, way: Preprocess | None) -> np.ndarray:
    """How much of the classifier's own input the whole range of pixel values (0 to 255) takes, for each channel; shaped
    to go with a batch in the classifier's layout.

    way: how raw images become the input, else what the model says of it. Where neither is known: 1, that of images
    in [0, 1].
    """
    known = way or model.preprocess
    one = np.ones(1) if known is None else 255 * known.scale / np.atleast_1d(np.asarray(known.std, np.float64))
    return np.abs(one).astype(np.float32).reshape((-1, 1, 1) if model.input.layout == "NCHW" else (-1,))


def direction(model: Model, x: np.ndarray, toward: Mapping[str, np.ndarray]) -> np.ndarray:
    """The sign, like x, of the gradient of something whose derivatives are `toward` (see `Model.gradient`).

    Each image's derivatives are scaled to a largest of 1, so that small ones do not vanish on their way back.
    """
    most = np.max([np.abs(v).max(axis=1) for v in toward.values()], axis=0)[:, None]
    most = np.where(most > 0, most, 1)
    return np.sign(model.gradient(x, {name: (v / most).astype(np.float32) for name, v in toward.items()}))

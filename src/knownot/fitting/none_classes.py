"""Classes of the user's own that mean "nothing": their outputs say unknown, their images are none of the known ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import OptionError
from ..images import Images
from ..images.batching import Entries
from ..images.labels import match_labels
from ..images.without import OUT, Without
from ..models import Model
from ..models.none_classes import NONE, NoneClasses
from .extraction import Extracted, Observer
from .labels import class_order
from .setup import Sources


class NoneShare(Observer):
    """How many known images the classifier itself takes for nothing."""

    def __init__(self) -> None:
        self.images = self.taken = 0

    def see(self, images: Extracted) -> Extracted:
        self.images += len(images)
        self.taken += int(takes_for_none(images.activations.logits, images.activations.extra).sum())
        return images

    def merge(self, other: NoneShare) -> None:
        """Also what another pass counted."""
        self.images, self.taken = self.images + other.images, self.taken + other.taken

    @property
    def share(self) -> float:
        return self.taken / max(self.images, 1)


def takes_for_none(logits: np.ndarray, extra: object) -> np.ndarray:
    """Whether a class of nothing has the largest of all logits, [n] bool."""
    none = extra.get(NONE) if isinstance(extra, dict) else None
    if none is None:
        return np.zeros(len(logits), dtype=bool)
    return np.asarray(none).max(axis=1) > np.asarray(logits).max(axis=1)


def apart(
    sources: Sources, asked: Sequence[str | int], class_names: Sequence[str] | None
) -> tuple[Sources, tuple[str, ...], tuple[str, ...]]:
    """(the sources with those outputs as none-classes and without images of theirs, names of the other outputs, of
    those). Raises OptionError for a class that there is not."""
    model = sources.model
    names, order = class_order(sources.images, model, class_names)
    which = []
    for name in [asked] if isinstance(asked, str) else asked:
        found = int(name) if isinstance(name, int | np.integer) else match_labels([name], names)[0]
        if found is None or not 0 <= found < len(names):
            raise OptionError(f"none_classes: there is no class {name!r}. The classes are: {', '.join(names[:20])}.")
        which.append(found)
    named = NoneClasses(model, tuple(which))
    named.opened_with = {**model.opened_with, "none_classes": list(named.which)}
    kept = tuple(names[i] for i in named.kept)
    named.class_names = kept
    held = sources.held
    if held is not None:
        held = _without(held, model, names, class_order(held, model, names, which="calibration")[1], named)
    images = _without(sources.images, model, names, order, named)
    return replace(sources, model=named, images=images, held=held), kept, tuple(names[i] for i in named.none)


def _without(
    source: Images, model: Model, names: Sequence[str], order: np.ndarray | None, named: NoneClasses
) -> Images:
    if not source.labelled or not isinstance(source, Entries):
        return source
    outputs = np.arange(len(names)) if order is None else order
    new = {output: k for k, output in enumerate(named.kept)}
    number = np.array([new.get(int(output), OUT) for output in outputs])
    # Labels are numbers of the kept outputs now, whatever the source called them.
    return Without(source, number, tuple(names[i] for i in named.kept))

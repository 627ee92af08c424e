"""Images of a source without those of some classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..arrays import InputSpec
from .base import Images
from .batching import Entries, Entry, Selection

OUT = -2  # the number of a class that is left out


class Without(Selection):
    """number [c]: what each label of the source is here, `OUT` for those left out."""

    def __init__(self, source: Entries, number: np.ndarray, class_names: tuple[str, ...] | None) -> None:
        super().__init__(source)
        self._number, self.class_names, self.names_are_hints = number, class_names, False

    @property
    def count(self) -> int | None:
        labels = getattr(self._source, "_labels", None)
        if labels is None:
            return None
        index = getattr(self._source, "_index", None)
        labels = labels if index is None else labels[index]
        return int(sum(self._to(int(k)) != OUT for k in labels))

    def places(self) -> Iterator[str]:
        return self._source.places()

    def equals(self, other: Images) -> bool:
        return isinstance(other, Without) and self._source.equals(other._source)

    def _to(self, label: int) -> int:
        return int(self._number[label]) if 0 <= label < len(self._number) else label

    def entries(self, start: int, spec: InputSpec | None) -> Iterator[Entry]:
        at = 0
        for entry in self._source.entries(0, spec):
            label = self._to(entry.label)
            if label == OUT:
                continue
            if at >= start:
                yield replace(entry, label=label)
            at += 1

    def shuffled(self, seed: int = 0) -> Without:
        some = self._source.shuffled(seed)
        assert isinstance(some, Entries)  # of a source that is
        made = Without(some, self._number, self.class_names)
        made.mixed = some.mixed
        return made

    def sample(self, n: int, seed: int = 0) -> Without:
        some = self._source.sample(n, seed)
        assert isinstance(some, Entries)  # of a source that is
        return Without(some, self._number, self.class_names)

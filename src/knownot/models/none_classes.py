"""A classifier whose last outputs are classes of nothing: "none of the above", one or several."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ..arrays import Activations, Array, Head
from ..errors import OptionError
from .base import Call, Model
from .wrapper import Wrapper

NONE = "none/logits"  # under `Activations.extra`


class NoneClasses(Wrapper):
    """Shows c of c + k outputs as the classes, and the logits of k others as "extra/none/logits" [n, k].

    So the closed-set class is always a known one, `head` has c rows, and every detector works as on a classifier
    without none-classes. Logits of both parts share their constant, if they are known up to one.

    inner: the classifier of c + k outputs, opened by its framework's adapter. none_classes: how many of its last
    outputs, or which outputs, by number.
    Raises OptionError unless at least two classes are left.
    """

    def __init__(self, inner: Model, none_classes: int | Sequence[int]) -> None:
        self.which = () if isinstance(none_classes, int | np.integer) else _numbers(inner, none_classes)
        k: Any = len(self.which) if self.which else none_classes
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= inner.capabilities.classes - 2:
            raise OptionError(
                f"none_classes={k!r}: expected how many of the classifier's {inner.capabilities.classes} outputs, the "
                "last ones, are classes of nothing; at least 1, and two or more classes have to be left."
            )
        super().__init__(inner)
        self.none_classes = int(k)
        c = inner.capabilities.classes - self.none_classes
        self.none = self.which or tuple(range(c, c + self.none_classes))
        self.kept = tuple(i for i in range(c + self.none_classes) if i not in self.none)
        self.capabilities = replace(inner.capabilities, outputs=inner.capabilities.outputs | {"none"}, classes=c)
        head = inner.head
        self.head = (
            None
            if head is None
            else Head(
                np.ascontiguousarray(np.asarray(head.weight)[list(self.kept)]), np.asarray(head.bias)[list(self.kept)]
            )
        )
        names = inner.class_names
        self.class_names = None if names is None else tuple(names[i] for i in self.kept)
        if "logits" in inner.gradients:
            self.gradients = (*inner.gradients, f"extra/{NONE}")
        last = "output is" if k == 1 else f"{k} outputs are"
        said = f"The last {last}" if not self.which else f"The outputs {', '.join(map(str, self.which))}"
        said += "" if not self.which else " is" if len(self.which) == 1 else " are"
        self.notes = (*inner.notes, f"{said} no class, but for images of none of the {c} classes.")

    def forward(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        return self._parted(self.inner.forward(batch, maps))

    def _parted(self, seen: Activations) -> Activations:
        kept, none = (_columns(seen.logits, which) for which in (self.kept, self.none))
        return replace(seen, logits=kept, extra={**seen.extra, NONE: none})

    def gradient(self, batch: np.ndarray, toward: Mapping[str, np.ndarray]) -> np.ndarray:
        """toward may have "extra/none/logits" [n, k] as well."""
        own = {name: v for name, v in toward.items() if name not in ("logits", f"extra/{NONE}")}
        if len(own) < len(toward):
            n, c = len(batch), self.capabilities.classes
            logits = np.zeros((n, c + self.none_classes), np.float32)
            logits[:, list(self.kept)] = toward.get("logits", 0)
            logits[:, list(self.none)] = toward.get(f"extra/{NONE}", 0)
            own["logits"] = logits
        return self.inner.gradient(batch, own)

    def confirm(self, batch: np.ndarray) -> None:
        self.inner.confirm(batch)

    def dropped(self, batch: np.ndarray, seed: int) -> np.ndarray:
        return self.inner.dropped(batch, seed)[:, list(self.kept)]

    def as_onnx(self, folder: Path, size: tuple[int, int] | None = None) -> NoneClasses:
        return NoneClasses(self.inner.as_onnx(folder, size), self.which or self.none_classes)

    def record(self, x: Array, call: Call, maps: Sequence[str] = ()) -> Activations:
        return self._parted(self.inner.record(x, call, maps))

    @property
    def fingerprint(self) -> str:
        """Another one than the same network's without none-classes, or with another number of them."""
        which = list(self.which) if self.which else self.none_classes
        return hashlib.sha256(f"none {which};{self.inner.fingerprint}".encode()).hexdigest()


def _numbers(inner: Model, given: Sequence[int]) -> tuple[int, ...]:
    classes = inner.capabilities.classes
    fits = all(isinstance(i, int | np.integer) and not isinstance(i, bool) and 0 <= i < classes for i in given)
    if isinstance(given, str) or not given or not fits or len(set(given)) != len(given):
        raise OptionError(f"none_classes={given!r}: expected numbers of outputs, from 0 to {classes - 1}, each once.")
    return tuple(sorted(int(i) for i in given))


def _columns(logits: Array, which: Sequence[int]) -> Array:
    """[n, c] -> [n, len(which)], by slices, which also trace to a graph."""
    runs: list[list[int]] = []
    for i in which:
        if runs and runs[-1][1] == i:
            runs[-1][1] = i + 1
        else:
            runs.append([i, i + 1])
    if len(runs) == 1:
        return logits[:, runs[0][0] : runs[0][1]]
    return array_namespace(logits).concat([logits[:, a:b] for a, b in runs], axis=1)

"""A classifier whose last outputs are classes of nothing: "none of the above", one or several."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..arrays import Activations, Array, Head
from ..errors import OptionError
from .base import Call, Model
from .wrapper import Wrapper

NONE = "none/logits"  # under `Activations.extra`


class NoneClasses(Wrapper):
    """Shows the first c of c + k outputs as the classes, and the logits of the last k as "extra/none/logits" [n, k].

    So the closed-set class is always a known one, `head` has c rows, and every detector works as on a classifier
    without none-classes. Logits of both parts share their constant, if they are known up to one.

    inner: the classifier of c + k outputs, opened by its framework's adapter.
    Raises OptionError unless at least two classes are left.
    """

    def __init__(self, inner: Model, none_classes: int) -> None:
        k = none_classes
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= inner.offers.classes - 2:
            raise OptionError(
                f"none_classes={k!r}: expected how many of the classifier's {inner.offers.classes} outputs, the last "
                "ones, are classes of nothing; at least 1, and two or more classes have to be left."
            )
        super().__init__(inner)
        self.none_classes = int(k)
        c = inner.offers.classes - self.none_classes
        self.offers = replace(inner.offers, kinds=inner.offers.kinds | {"none"}, classes=c)
        head = inner.head
        self.head = None if head is None else Head(np.asarray(head.weight)[:c], np.asarray(head.bias)[:c])
        names = inner.class_names
        self.class_names = None if names is None else tuple(names)[:c]
        if "logits" in inner.gradients:
            self.gradients = (*inner.gradients, f"extra/{NONE}")
        last = "output is" if k == 1 else f"{k} outputs are"
        self.notes = (*inner.notes, f"The last {last} no class, but for images of none of the {c} classes.")

    def forward(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        return self._parted(self.inner.forward(batch, maps))

    def _parted(self, seen: Activations) -> Activations:
        c = self.offers.classes
        return replace(seen, logits=seen.logits[:, :c], extra={**seen.extra, NONE: seen.logits[:, c:]})

    def gradient(self, batch: np.ndarray, toward: Mapping[str, np.ndarray]) -> np.ndarray:
        """toward may have "extra/none/logits" [n, k] as well."""
        own = {name: v for name, v in toward.items() if name not in ("logits", f"extra/{NONE}")}
        if len(own) < len(toward):
            n, c = len(batch), self.offers.classes
            logits = np.zeros((n, c + self.none_classes), np.float32)
            logits[:, :c] = toward.get("logits", 0)
            logits[:, c:] = toward.get(f"extra/{NONE}", 0)
            own["logits"] = logits
        return self.inner.gradient(batch, own)

    def confirm(self, batch: np.ndarray) -> None:
        self.inner.confirm(batch)

    def dropped(self, batch: np.ndarray, seed: int) -> np.ndarray:
        return self.inner.dropped(batch, seed)[:, : self.offers.classes]

    def as_onnx(self, folder: Path, size: tuple[int, int] | None = None) -> NoneClasses:
        return NoneClasses(self.inner.as_onnx(folder, size), self.none_classes)

    def record(self, x: Array, call: Call, maps: Sequence[str] = ()) -> Activations:
        return self._parted(self.inner.record(x, call, maps))

    @property
    def fingerprint(self) -> str:
        """Another one than the same network's without none-classes, or with another number of them."""
        return hashlib.sha256(f"none {self.none_classes};{self.inner.fingerprint}".encode()).hexdigest()

"""Labels of the known images and the classifier's outputs: which belongs to which, and whether they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import LabelsError
from ..images.base import Images
from ..images.labels import match_labels, names_of
from ..models.base import Model
from .trial import Trial

MOST_NAMES = 20  # in a message
BARELY = 0.1  # of the way from chance to always right: less, and the classifier is wrong on its own classes


class Confusion:
    """Counts of (label, prediction), gathered on the way, [c, c]."""

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes), dtype=np.int64)

    def add(self, labels: np.ndarray, predicted: np.ndarray) -> None:
        has = labels >= 0
        np.add.at(self.counts, (labels[has], predicted[has]), 1)

    def merge(self, other: Confusion) -> None:
        """Also what another pass counted."""
        self.counts = self.counts + other.counts

    @property
    def images(self) -> int:
        return int(self.counts.sum())

    @property
    def seen(self) -> int:
        """How many classes have a labelled image."""
        return int((self.counts.sum(axis=1) > 0).sum())

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.counts) / max(self.images, 1))

    @property
    def near_chance(self) -> bool:
        """Whether the accuracy is what guessing one class, or any, would give (three standard errors, at least 20
        images)."""
        n, c = self.images, len(self.counts)
        if n < 20 or c < 2:
            return False
        chance = 1 / c
        return self.accuracy <= chance + 3 * np.sqrt(chance * (1 - chance) / n)

    @property
    def hardly_better(self) -> bool:
        """Whether the accuracy is chance, or less than a tenth of the way from there to always right."""
        chance = 1 / len(self.counts)
        low = self.images >= 20 and len(self.counts) > 1 and (self.accuracy - chance) / (1 - chance) < BARELY
        return self.near_chance or low

    def reordered(self) -> tuple[float, list[tuple[int, int]]]:
        """Best accuracy over all one-to-one renamings of the labels, and the (label, output) pairs it changes."""
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(self.counts, maximize=True)
        moved = [(int(r), int(k)) for r, k in zip(rows, columns, strict=True) if r != k and self.counts[r, k]]
        return float(self.counts[rows, columns].sum() / max(self.images, 1)), moved


def class_order(
    images: Images, model: Model, class_names: Sequence[str] | Mapping[Any, Any] | None, *, which: str = "known"
) -> tuple[tuple[str, ...], np.ndarray | None]:
    """(names of the classifier's outputs, which output each label of the images is, [labels] or None: as they are).

    Raises LabelsError when the images' class names cannot be those of the classifier's outputs.
    """
    c = model.capabilities.classes
    named = names_of(class_names)
    if named is not None and list(named) == [str(k) for k in range(c)]:
        named = class_names = None  # numbers are no names: folders may say what the outputs are called
    outputs = named if named is not None else model.class_names
    if outputs is not None and len(outputs) != c:
        if class_names is not None:
            raise LabelsError(f"{len(outputs)} class names were given; the classifier has {c} outputs.")
        outputs = None
    folders = images.class_names
    if not folders:
        return outputs or tuple(str(k) for k in range(c)), None
    if outputs is None:
        if len(folders) != c:
            some = ", ".join(folders[:5]) + ", …" * (len(folders) > 5)
            more = " Leave out the folders that are no class of it, or" if len(folders) > c else ""
            raise LabelsError(
                f"The {which} images have {len(folders)} classes ({some}), the classifier has {c} outputs.{more} "
                "Give class_names=[…], the names of its outputs in order; folders may then be any of them."
            )
        return tuple(folders), None
    found = match_labels(folders, outputs)
    absent = [name for name, k in zip(folders, found, strict=True) if k is None]
    if not absent:
        return outputs, np.array(found)
    if images.names_are_hints:
        return outputs, None  # a data set's own words: its numbers count, and the accuracy tells whether they fit
    if len(folders) == c and class_names is None:
        return tuple(folders), None  # other words for the same outputs: the accuracy tells whether in the same order
    called = ", ".join(outputs[:20]) + ", …" * (c > 20)
    numbered = outputs == tuple(map(str, range(c)))
    cure = "Give class_names=[…], their names in order" if numbered else "Rename or leave out such folders"
    raise LabelsError(
        f"No output of the classifier has the name of the class {absent[0]!r} of the {which} images "
        f"({len(absent)} such). The outputs are called: {called}. {cure}."
    )


def named_rows(folders: Sequence[str] | None, order: np.ndarray | None, confusion: Confusion) -> Sequence[str] | None:
    """The names of a confusion's rows, which are numbered as the outputs: order[i] is the output of folder i."""
    if not folders or order is None:
        return folders
    names = [str(k) for k in range(len(confusion.counts))]
    for name, k in zip(folders, order.tolist(), strict=True):
        names[k] = name
    return names


def judge(
    confusion: Confusion,
    names: Sequence[str] | None,
    trials: Sequence[Trial] = (),
    accuracy: float | None = None,
    *,
    allow_low_accuracy: bool = False,
) -> None:
    """Raise LabelsError when labels and predictions do not belong together: another class order, chance level, or
    hardly better than that (unless allowed).

    accuracy: what a renaming has to beat, if not the accuracy of the labels as they are.
    """
    n, c = confusion.images, len(confusion.counts)
    if n < 20:
        return
    tried = "".join(f"\n  {t.preprocess.name or t.preprocess}: {t.accuracy:.1%}" for t in trials)
    tried = f" Tried:{tried}" if tried else ""
    better, moved = confusion.reordered() if n >= 10 * c else (0.0, [])

    def name(k: int) -> str:
        return repr(names[k]) if names and k < len(names) else str(k)

    beat = confusion.accuracy if accuracy is None else accuracy
    if better >= max(0.5, beat + max(0.08, min(1 / c, 0.3))) and len(moved) > 1:
        given = _in_order(names, moved, c)
        pairs = ", ".join(f"label {name(r)} is output {k}" for r, k in moved[:6])
        raise LabelsError(
            f"The labels are in another order than the classifier's outputs: accuracy {confusion.accuracy:.1%} on {n} "
            f"known images as they are, {better:.1%} when renamed ({pairs}{', …' if len(moved) > 6 else ''}). "
            f"Give class_names=[…] (--class-names FILE), the names of the classifier's outputs in order{given}.{tried}"
        )
    if confusion.hardly_better and accuracy is None and not allow_low_accuracy:
        much = "which is chance" if confusion.near_chance else "hardly better than chance"
        raise LabelsError(
            f"The classifier is right on {confusion.accuracy:.1%} of {n} labelled known images, {much} for "
            f"{c} classes. The labels do not match, or the images are preprocessed in another way than in training. "
            "Check the labels, or give preprocess=knownot.Preprocess(…). If it is as bad as that: "
            f"allow_low_accuracy=True (--allow-low-accuracy).{tried}"
        )


def in_order(labels: np.ndarray, order: np.ndarray | None, classes: int) -> np.ndarray:
    """Labels as indices of the classifier's outputs, -1 kept. Raises LabelsError when out of range."""
    if len(labels) and labels.max() >= (len(order) if order is not None else classes):
        raise LabelsError(
            f"A label is {int(labels.max())}; the classifier has {classes} outputs, so labels are 0 to {classes - 1} "
            "(or -1 for images without one)."
        )
    return np.where(labels < 0, -1, labels if order is None else order[labels])


def _in_order(names: Sequence[str] | None, moved: Sequence[tuple[int, int]], classes: int) -> str:
    """Names of the outputs in their order, for the message; "" where they are not known or too many."""
    if not names or len(names) != classes or classes > MOST_NAMES:
        return ""
    order = list(names)
    for r, k in moved:
        order[k] = names[r]
    numbers = all(name.isdecimal() for name in order) and order == sorted(order, key=int)
    return f": {order}{', sorted by number' if numbers else ''}"

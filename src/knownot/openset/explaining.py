"""What stands behind a verdict: the classifier's classes, the members' p-values, the known images most alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import softmax
from ..fitting.extraction import extract
from ..fitting.thumbnails import embed
from ..images import open_images
from .verdicts import Verdicts

if TYPE_CHECKING:
    from .classifier import OpenSetClassifier


@dataclass(frozen=True)
class Alike:
    """A known image that is near to an incoming one. likeness: the cosine of their features."""

    class_name: str
    likeness: float
    thumb: np.ndarray = field(repr=False)  # [side, side, 3] uint8


@dataclass(frozen=True)
class Explanation:
    """Of one readable image. top: (class, probability) by the classifier alone, the most probable first.

    members: {detector: its own p-value}; nearest: the known images most alike, the nearest first.
    """

    top: tuple[tuple[str, float], ...]
    members: dict[str, float] = field(default_factory=dict)
    nearest: tuple[Alike, ...] = ()
    features: np.ndarray | None = field(default=None, repr=False)  # [d] float32, of unit length


def explain(
    osc: OpenSetClassifier, images: Any, *, top: int = 5, nearest: int = 3
) -> tuple[Verdicts, list[Explanation | None]]:
    """The verdicts [n] of images, and an explanation for each, None where unreadable; no thread is started."""
    source = open_images(images)
    batches = osc.batches(source, ahead=False)
    parts, explanations = [osc.nothing], list[Explanation | None]()
    for batch, verdicts, activations, fine in extract(osc.looking, batches, osc.second, osc._verdicts, False):
        rows: list[Explanation | None] = [None] * len(batch)
        if len(fine):
            probabilities, seen = softmax(activations.logits), embed(activations)
            near = osc.bank.nearest(seen, nearest) if osc.bank is not None else np.empty((len(fine), 0), int)
            for i, row in enumerate(batch.rows[fine]):
                rows[row] = Explanation(
                    most_probable(osc.class_names, probabilities[i], top),
                    dict(zip(verdicts.members, verdicts.member_p_values[row].tolist(), strict=True)),
                    tuple(_alike(osc, seen[i], int(k)) for k in near[i]),
                    seen[i],
                )
        parts.append(verdicts)
        explanations += rows
    return Verdicts.concat(parts), explanations


def most_probable(names: Sequence[str], probabilities: np.ndarray, top: int) -> tuple[tuple[str, float], ...]:
    """(class, probability) of the `top` most probable of c classes. probabilities: [c]."""
    best = np.argsort(-probabilities, kind="stable")[:top]
    return tuple((names[k] if k < len(names) else str(k), float(probabilities[k])) for k in best.tolist())


def _alike(osc: OpenSetClassifier, seen: np.ndarray, k: int) -> Alike:
    bank = osc.bank
    assert bank is not None  # for the type checker: there are no neighbours without a bank
    label = int(bank.labels[k])
    name = osc.class_names[label] if 0 <= label < len(osc.class_names) else ""
    return Alike(name, float(bank.eyes[k] @ seen), bank.thumbs[k])

"""Per class: a good accuracy on the whole can hide a class that is hardly ever recognised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..measure import calibration_error, equal_count, equal_width
from .notes import Notes
from .record import Finding, Number, Share
from .sections import Classes, ClassLine, Confused, Mistake
from .words import pc, span

WHOLE = 50  # classes, up to which all counts are in the record
CONFUSED = 20
BELOW = 0.1  # a class this far below the accuracy of all is worth a warning
POOR, FEW = 0.5, 20


def section(seen: Notes, names: Sequence[str]) -> Classes:
    c = len(names)
    has = seen.labels >= 0
    labels, said, confidence = seen.labels[has], seen.said[has], seen.confidence[has]
    counts = np.zeros((c, c), np.int64)
    np.add.at(counts, (labels, said), 1)
    lines = tuple(_line(k, names[k], counts, labels, said, confidence) for k in range(c))
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED]
    confused = tuple(
        Confused(names[i], names[j], Share.of(int(wrong[i, j]), int(counts[i].sum())))
        for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[i, j]
    )
    accuracy = Share.of(int(np.trace(counts)), int(counts.sum())) if has.any() else None
    return Classes(
        findings=_findings(accuracy, lines, confused),
        images=int(has.sum()),
        accuracy=accuracy,
        lines=lines if has.any() else (),
        confused=confused,
        counts=tuple(tuple(int(x) for x in row) for row in counts) if has.any() and c <= WHOLE else None,
        names=tuple(names),
        mistakes=tuple(
            Mistake(id=w.id, true=names[w.true], said=names[w.said], confidence=w.confidence, picture=f"mistake-{i}")
            for i, w in enumerate(seen.wrong)
        ),
    )


def _line(
    k: int, name: str, counts: np.ndarray, labels: np.ndarray, said: np.ndarray, confidence: np.ndarray
) -> ClassLine:
    mine = labels == k
    sure, right = confidence[mine], said[mine] == k
    return ClassLine(
        name=name,
        images=int(mine.sum()),
        recall=Share.of(int(counts[k, k]), int(counts[k].sum())),
        precision=Share.of(int(counts[k, k]), int(counts[:, k].sum())),
        confidence=Number.mean(sure),
        gap=Number.mean(sure.astype(np.float64) - right),
        ece=calibration_error(equal_width(sure, right)) if len(sure) else None,
        adaptive_ece=calibration_error(equal_count(sure, right)) if len(sure) else None,
    )


def _findings(accuracy: Share | None, lines: Sequence[ClassLine], confused: Sequence[Confused]) -> tuple[Finding, ...]:
    if accuracy is None or accuracy.share is None:
        said = "Nothing can be said per class: the known images have no labels."
        return (
            Finding(
                severity="open", section="classes", title=said, text="", action="Give labels, or class sub-folders."
            ),
        )
    seen = [line for line in lines if line.images]
    text = f"{pc(accuracy)} of {accuracy.images:,} labelled known images are right ({span(accuracy)})."
    if len(seen) < len(lines):
        text += f" {len(lines) - len(seen):,} of {len(lines):,} classes have no image here."
    if confused:
        worst = confused[0]
        text += f" Most often confused: {worst.true} taken for {worst.said}, {pc(worst.share)}."
    if accuracy.high < POOR:
        said = f"It is wrong more often than right: {pc(accuracy)} of the known images are recognised."
        action = "Look first at how its images are prepared, then at labels and training."
        return (
            Finding(
                severity="problem" if accuracy.low <= 2 / len(lines) else "warning",
                section="classes",
                title=said,
                text=text,
                action=action,
            ),
        )
    weak = sorted((line for line in seen if line.recall.high < accuracy.share - BELOW), key=lambda x: x.recall.high)
    if weak:
        least = weak[0]
        many = "one weak class" if len(weak) == 1 else f"{len(weak)} weak classes"
        return (
            Finding(
                severity="problem" if least.recall.high < POOR else "warning", section="classes",
                title=f"{pc(accuracy)} right hides {many}: of {least.name}, only {pc(least.recall)} are recognised.",
                text=f"{text} {least.name}: {least.images:,} images, {span(least.recall)}.",
                action="More training images of these classes, or a look at their labels.",
            ),
        )  # fmt: skip
    least = min(seen, key=lambda line: (line.recall.share or 0.0, line.name))
    few = min(line.images for line in seen)
    if few < FEW:
        text += f" Some classes have few images (the fewest: {few}), so their intervals are wide."
    said = f"No class is far below the others: {pc(accuracy)} right, the least {pc(least.recall)} ({least.name})."
    return (Finding("ok", "classes", said, text),)

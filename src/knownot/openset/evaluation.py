"""What a fitted open-set classifier does on labelled known images, and on unknown ones: nobody has to count by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibration import Calibration, percent
from ..errors import LabelsError, OptionError
from ..fitting.extraction import Extractor, batch_size_for
from ..fitting.labels import class_order
from ..images import Images, open_images
from ..measure import auroc_interval, wilson

if TYPE_CHECKING:
    from .classifier import OpenSetClassifier

UNLIKELY = 0.01  # chance below which too many known images are rejected


@dataclass(frozen=True)
class Share:
    """`count` of `images`, with the 95 % Wilson interval of the share; NaN without images."""

    count: int
    images: int

    @property
    def value(self) -> float:
        return self.count / self.images if self.images else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.count, self.images)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{percent(self.value)} ({100 * low:.1f} to {100 * high:.1f} %)" if self.images else "–"


@dataclass(frozen=True)
class ClassLine:
    """One class: how many of its images the classifier alone gets right, and how many are called unknown."""

    name: str
    right: Share
    rejected: Share


@dataclass(frozen=True)
class UnknownLine:
    """One set of unknown images: how many are called unknown, and AUROC against the known ones with its 95 % interval
    (DeLong)."""

    name: str
    caught: Share
    auroc: float
    auroc_interval: tuple[float, float]


@dataclass(frozen=True)
class Evaluation:
    """What `OpenSetClassifier.evaluate` counted. accuracy is that of the classifier alone, accuracy_kept that on known
    images that are called known; rejected: known images called unknown. unreadable: (id, reason).

    chance: the probability of as many rejections or more, were these images drawn like those that calibrated: of m
    calibration images and N of these, the count follows BetaBinomial(N, k, m + 1 - k) (Vovk 2012, arXiv:1209.2673).
    None for "class-conditional", where each class has its own rule.
    """

    promise: str
    alpha: float
    guarantee: str
    chance: float | None
    expected: float | None  # share of known images that the rule rejects on average; None if each class has its own
    accuracy: Share
    accuracy_kept: Share
    rejected: Share
    classes: tuple[ClassLine, ...]
    unknown: tuple[UnknownLine, ...]
    unreadable: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        """What happened beside the promise, and the unknown sets, a line each."""
        lines = [f"{u.name}: {u.caught} caught, AUROC {u.auroc:.1%}" for u in self.unknown[:5]]
        more = [f"… and {len(self.unknown) - 5} more sets"] if len(self.unknown) > 5 else []
        return "\n  ".join([f"Evaluation: {self.finding}", f"right on {self.accuracy}", *lines, *more])

    @property
    def broken(self) -> bool:
        """Whether more known images were rejected than chance would explain, were they like those that calibrated."""
        return self.rejected.interval[0] > self.alpha if self.chance is None else self.chance < UNLIKELY

    @property
    def finding(self) -> str:
        """The promise beside what happened, in one sentence."""
        what = f"{self.rejected} of {self.rejected.images:,} known images were called unknown"
        if self.broken:
            return (
                f"{what}, too many for images like those that calibrated ({self.promise}). Calibrate again on images "
                "like these (osc.recalibrated, knownot recalibrate), and look at some of the rejected."
            )
        return f"{what}; promised: {self.promise}."

    def facts(self) -> dict[str, Any]:
        """Everything as plain JSON values; NaN as None."""

        def share(x: Share) -> dict[str, Any]:
            return {**asdict(x), "share": x.value if x.images else None, "interval": list(x.interval)}

        return {
            "promise": self.promise,
            "alpha": self.alpha,
            "guarantee": self.guarantee,
            "expected": self.expected,
            "chance": self.chance,
            "broken": self.broken,
            **{name: share(getattr(self, name)) for name in ("accuracy", "accuracy_kept", "rejected")},
            "classes": [
                {"class": c.name, "right": share(c.right), "rejected": share(c.rejected)} for c in self.classes
            ],
            "unknown": [
                {"name": u.name, "caught": share(u.caught), "auroc": u.auroc, "auroc_interval": list(u.auroc_interval)}
                for u in self.unknown
            ],
            "unreadable": [list(row) for row in self.unreadable],
        }

    def __str__(self) -> str:
        lines = [
            self.finding,
            f"Accuracy {self.accuracy} alone, {self.accuracy_kept} on the images called known.",
            "",
            *_table(("class", "images", "right", "called unknown"), [
                (c.name, f"{c.rejected.images:,}", str(c.right), str(c.rejected)) for c in self.classes
            ]),
        ]  # fmt: skip
        if self.unknown:
            rows = [
                (u.name, f"{u.caught.images:,}", str(u.caught),
                 f"{u.auroc:.3f} ({u.auroc_interval[0]:.3f} to {u.auroc_interval[1]:.3f})")
                for u in self.unknown
            ]  # fmt: skip
            lines += ["", *_table(("unknown set", "images", "caught", "AUROC"), rows)]
        lines += [f"- unreadable: {name}: {reason}" for name, reason in self.unreadable[:5]]
        more = len(self.unreadable) - 5
        return "\n".join(lines + ([f"- … and {more:,} more"] if more > 0 else []))


def evaluate(
    osc: OpenSetClassifier, known: Any, labels: Any, unknown: Any, batch_size: int | None, progress: bool
) -> Evaluation:
    """See `OpenSetClassifier.evaluate`."""
    source = open_images(known, labels)
    if not source.labelled:
        raise LabelsError(
            "The known images have no labels, so nothing can be counted as right: give labels=, or class sub-folders."
        )
    seen = _score(osc, source, "known", batch_size, progress)
    lines = []
    for name, images in _sets(unknown).items():
        found = _score(osc, open_images(images), name, batch_size, progress, labelled=False)
        area, low, high = auroc_interval(seen.scores, found.scores)
        lines.append(UnknownLine(name, Share(int(found.unknown.sum()), len(found.unknown)), area, (low, high)))
        seen.unreadable.extend(found.unreadable)
    right, kept = seen.labels == seen.closed, ~seen.unknown
    told = seen.labels >= 0
    classes = []
    for k, name in enumerate(osc.class_names):
        rows = seen.labels == k
        if rows.any():
            n = int(rows.sum())
            classes.append(ClassLine(name, Share(int(right[rows].sum()), n), Share(int(seen.unknown[rows].sum()), n)))
    rule = osc.calibration
    return Evaluation(
        promise=osc.promise,
        alpha=osc.alpha,
        guarantee=rule.guarantee,
        chance=_chance(rule, int(seen.unknown.sum()), len(seen.unknown)),
        expected=rule.expected,
        accuracy=Share(int(right[told].sum()), int(told.sum())),
        accuracy_kept=Share(int((seen.labels == seen.decided)[told].sum()), int((told & kept).sum())),
        rejected=Share(int(seen.unknown.sum()), len(seen.unknown)),
        classes=tuple(classes),
        unknown=tuple(lines),
        unreadable=tuple(seen.unreadable),
    )


def _chance(rule: Calibration, rejected: int, images: int) -> float | None:
    from scipy.stats import betabinom

    m = len(rule.scores)
    if rule.expected is None:
        return None
    k = round(rule.expected * (m + 1))
    return float(betabinom.sf(rejected - 1, images, k, m + 1 - k))


@dataclass(frozen=True)
class _Scored:
    labels: np.ndarray  # [n] int64, as the classifier numbers its outputs; -1 without one
    closed: np.ndarray  # [n] int64, the classifier's class
    scores: np.ndarray  # [n]
    decided: np.ndarray  # [n] int64, the label of the verdict
    unreadable: list[tuple[str, str]]

    @property
    def unknown(self) -> np.ndarray:  # [n] bool
        return self.decided < 0


def _score(
    osc: OpenSetClassifier, source: Images, what: str, batch_size: int | None, progress: bool, labelled: bool = True
) -> _Scored:
    """One pass over images of a source."""
    size = batch_size or batch_size_for(osc.model, osc.preprocess, osc.second)
    walk = Extractor(model=osc.looking, way=osc.preprocess, size=size, second=osc.second, progress=progress)
    walk.allow_low_accuracy = osc.record.low_accuracy_allowed
    order = class_order(source, osc.model, osc.class_names)[1] if labelled else None
    rows: list[tuple[np.ndarray, ...]] = []
    for activations, labels in walk.run(source, what, order=order, names=osc.class_names, labelled=labelled):
        scores, _ = osc.scores(activations)
        rows.append((labels, np.argmax(activations.logits, axis=1), scores, osc.decided(scores, activations)[1]))
    walk.judge(osc.class_names, osc.record.trials)
    labels, closed, scores, decided = (np.concatenate(x) for x in zip(*rows, strict=True))
    return _Scored(labels=labels, closed=closed, scores=scores, decided=decided, unreadable=walk.unreadable)


def _sets(unknown: Any) -> dict[str, Any]:
    if unknown is None:
        return {}
    if isinstance(unknown, Mapping):
        if not unknown:
            raise OptionError("unknown={} is empty: give {name: images}, or leave it out.")
        return {str(name): images for name, images in unknown.items()}
    return {"unknown": unknown}


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return ["  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]]

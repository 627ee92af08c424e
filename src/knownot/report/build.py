"""A report's data from an open-set classifier and what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from ..arguments import public
from ..calibration import KnownBound, known_bound, p_values
from ..errors import MissingExtraError
from ..openset.classifier import OpenSetClassifier
from ..openset.discovery import Cluster, find_clusters
from ..openset.gallery import Gallery
from ..openset.verdicts import Verdicts
from ..shifts.seen import Shift
from ..version import __version__
from .data import Card, ClassCount, Counts, Group, ModelDescription, Neighbour, ReportData
from .html import write_report as write
from .plane import places

SMALLEST = 5  # images of a group
PICTURED = 48  # images whose neighbours are shown as pictures, those of the others by name
STEPS = 60  # of the slider


@public
def write_report(osc: OpenSetClassifier, verdicts: Verdicts, path: str | Path, *, source: str = "") -> None:
    """Write the HTML report on the verdicts that `osc.predict` gave. source: what was looked at, for the title.

    Examples
    --------
    >>> osc = knownot.load("osc")
    >>> verdicts = osc.predict("incoming/")
    >>> knownot.write_report(osc, verdicts, "report.html", source="incoming")
    """
    readable = ~verdicts.unreadable
    classes: dict[str, list[int]] = {}
    for row in np.flatnonzero(readable):
        name = verdicts.name_of(int(verdicts.closed_label[row]))
        classes.setdefault(name, [0, 0])[int(verdicts.label[row] < 0)] += 1
    bad = [(i, e) for i, e in zip(verdicts.ids, verdicts.error, strict=True) if e is not None]
    counts = (int(verdicts.known.sum()), int(verdicts.unknown.sum()), len(bad))
    scores = verdicts.score[readable].astype(np.float64)
    data = build(osc, scores, counts, classes, bad, verdicts.gallery, verdicts.seconds, source)
    write(path, with_shift(data, verdicts.shift))


def with_shift(data: ReportData, shift: Shift | None) -> ReportData:
    """With what the images look like, where they look changed, as the first note."""
    if shift is None:
        return data
    said = f"{shift.sentence[0].upper()}{shift.sentence[1:]}."
    return replace(data, notes=(said, *data.notes))


def build(
    osc: OpenSetClassifier,
    scores: np.ndarray,
    counts: tuple[int, int, int],
    per_class: Mapping[str, Sequence[int]],
    unreadable: Sequence[tuple[str, str]],
    gallery: Gallery | None,
    seconds: float,
    source: str,
) -> ReportData:
    """scores [n]: of the readable images. counts: known, unknown, unreadable. per_class: {the classifier's class:
    (known, unknown)}."""
    record, images = osc.record, sum(counts)
    shown = gallery or Gallery()
    bound = known_bound(p_values(osc.calibration.scores, scores), len(osc.calibration.scores))
    p_threshold = osc.calibration.p_threshold if osc.calibration.score_threshold is not None else None
    return ReportData(
        title=f"Known or not: {source}" if source else "Known or not",
        when=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        model=ModelDescription(
            name=f"{osc.model.framework} classifier" + (f"; {record.second}" if record.second else ""),
            classes=osc.model.capabilities.classes,
            detector=" + ".join(osc.detector.members),
            preprocessing=record.preprocessing,
            accuracy=record.accuracy,
        ),
        guarantee=f"{osc.promise[0].upper()}{osc.promise[1:]}. {osc.cost}",
        alpha=osc.alpha,
        counts=Counts(*counts),
        calibration_scores=osc.calibration.scores,
        incoming_scores=scores,
        threshold=osc.calibration.score_threshold,
        p_threshold=p_threshold,
        groups=_groups(osc, shown),
        steps=_steps(osc.calibration.scores, bound, p_threshold),
        strangest=tuple(bound.some(counts[1])),
        borderline=_cards(osc, shown.borderline, shown.borderline_thumbs, shown.borderline_eyes),
        unreadable=tuple(unreadable),
        class_counts=tuple(ClassCount(name, known, unknown) for name, (known, unknown) in sorted(per_class.items())),
        notes=(
            *(note for note in record.notes if note != record.preprocessing),
            *(f"{c.detector}: {flag}" for c in record.checks if c.detector in osc.detector.members for flag in c.flags),
        ),
        changed=()
        if osc.telling is None
        else tuple(
            (kind.words, kind.accuracy, rejected)
            for kind, rejected in zip(osc.telling.shifts.kinds, osc.telling.expected, strict=True)
        ),
        seconds=seconds,
        images_per_second=images / seconds if seconds > 0 and images else None,
        version=__version__,
        command=source,
    )


def _groups(osc: OpenSetClassifier, shown: Gallery) -> tuple[Group, ...]:
    """The unknown images that were kept, by clusters of their features, the largest first; where there are none or
    scikit-learn is missing, by the class that the classifier alone gives them."""
    cards = _cards(osc, shown.unknown, shown.unknown_thumbs, shown.unknown_eyes)
    if not cards or shown.unknown_eyes is None:
        return ()
    # Pictures of the neighbours of all of them would be most of the page.
    cards = tuple(c if i < PICTURED else replace(c, neighbours=_named(c)) for i, c in enumerate(cards))
    if at := places(shown.unknown_eyes):
        cards = tuple(replace(c, at=place) for c, place in zip(cards, at, strict=True))
    closed = [card.closed_class for card in cards]
    left, groups = set(range(len(cards))), list[Group]()
    clusters: tuple[Cluster, ...] = ()
    with suppress(MissingExtraError):
        clusters, _ = find_clusters(shown.unknown_eyes, closed, smallest=SMALLEST)
    for number, cluster in enumerate(clusters, 1):
        rows = sorted(cluster.rows.tolist())
        left -= set(rows)
        groups.append(Group(f"Alike {number}: most taken for {cluster.like}", tuple(cards[i] for i in rows)))
    names: dict[str, list[Card]] = {}
    for i in sorted(left):
        names.setdefault(closed[i], []).append(cards[i])
    prefix = "Others taken" if groups else "Taken"
    groups += [
        Group(f"{prefix} for {name}", tuple(own)) for name, own in sorted(names.items(), key=lambda x: -len(x[1]))
    ]
    return tuple(groups)


def _named(card: Card) -> tuple[Neighbour, ...]:
    return tuple(Neighbour(near.class_name) for near in card.neighbours)


def _steps(calibration: np.ndarray, bound: KnownBound, threshold: float | None) -> tuple[tuple[float, int, int], ...]:
    """(a p-value, how many images have one up to it, how many of those may be known), from the smallest that there can
    be to twice the threshold."""
    if threshold is None or not threshold > 0 or not len(bound.p):
        return ()
    p, curve = np.sort(bound.p), np.append(0, bound.curve())
    at = np.geomspace(1 / (len(calibration) + 1), min(1.0, 2 * threshold), STEPS)
    if at[0] >= at[-1]:
        return ()
    at = np.unique(np.append(at, threshold))
    counts = np.searchsorted(p, at, side="right")
    return tuple(zip(at.tolist(), counts.tolist(), curve[counts].tolist(), strict=True))


def _cards(
    osc: OpenSetClassifier, verdicts: Verdicts | None, thumbs: np.ndarray | None, eyes: np.ndarray | None
) -> tuple[Card, ...]:
    if verdicts is None or thumbs is None or eyes is None or not len(verdicts):
        return ()
    near = osc.bank.nearest(eyes) if osc.bank is not None else np.empty((len(verdicts), 0), int)
    cards = []
    for verdict, thumb, ps, neighbours in zip(verdicts, thumbs, verdicts.member_p_values, near, strict=True):
        cards.append(
            Card(
                id=verdict.id,
                unknown=verdict.status == "unknown",
                closed_class=verdict.closed_class,
                confidence=verdict.confidence,
                p_value=verdict.p_value,
                thumb=thumb,
                member_p_values=dict(zip(verdicts.members, ps.tolist(), strict=True)),
                neighbours=tuple(_neighbour(osc, i) for i in neighbours),
            )
        )
    return tuple(cards)


def _neighbour(osc: OpenSetClassifier, i: int) -> Neighbour:
    bank = osc.bank
    assert bank is not None  # for the type checker: there are no neighbours without a bank
    label = int(bank.labels[i])
    return Neighbour(osc.class_names[label] if 0 <= label < len(osc.class_names) else "", bank.thumbs[i])

"""The search for the preprocessing, which `fit` and the audit both read: ways of feeding, tried on labelled images.

First how files are read (orientation, transparency, depth), where the images call for it; then the usual scales, with
red and blue either way round; then how images are resized: cut, stretched, cut from a larger size, and by which filter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arrays import InputSpec, Preprocess, usual_resizing
from ..images.base import Images
from ..images.batching import Entries, Entry
from ..images.decode import Traits, Unreadable, traits_of
from ..images.preprocess import candidates
from .race import TRIAL_IMAGES, TrialData, Tried, attempt, race

AFFECTED = 128  # images of one trait that ways of reading it are tried on
FEW = 8  # from how many of them on accuracy may tell
NEARLY = 0.98  # right on so many: only the best way is also tried with red and blue swapped
STRETCHED = 128  # images after which another way of resizing has to be better
RESIZINGS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"fit": "stretch", "crop_share": 1.0}, "stretched"),
    ({"fit": "crop", "crop_share": 1.0}, "cut to the middle"),
    ({"fit": "crop", "crop_share": 0.875}, "cut from 8/7 of its size"),
    ({"resample": "bicubic"}, "bicubic"),
)


@dataclass(frozen=True)
class Search:
    """best: the way taken; tried: all that were, in their order; notes: on how files are read, and on ties."""

    best: Tried
    tried: tuple[Tried, ...]
    notes: tuple[str, ...]


class Some(Entries):
    """Images of another source, picked."""

    def __init__(self, entries: Sequence[Entry], source: Images) -> None:
        self._entries, self.class_names, self.labelled = entries, source.class_names, source.labelled

    @property
    def count(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> tuple[int, int] | None:
        return None

    @property
    def ready(self) -> bool:
        return False

    def entries(self, start: int, spec: InputSpec | None) -> Iterator[Entry]:
        return iter(self._entries[start:])

    def sample(self, n: int, seed: int = 0) -> Some:
        return Some(self._entries[:n], self)


def best_of(tried: Sequence[Tried]) -> Tried:
    """The most accurate; of those that are as accurate within half a standard error the one of highest `rank`."""
    n = max(t.confusion.images for t in tried)
    tried = [t for t in tried if t.confusion.images == n]  # the others were clearly worse
    top = max(t.accuracy for t in tried)
    slack = max(1.5 / max(n, 1), 0.5 * float(np.sqrt(top * (1 - top) / max(n, 1)))) if n else 0.0
    return max((t for t in tried if t.accuracy >= top - slack), key=lambda t: t.rank)


def swapped(way: Preprocess) -> Preprocess | None:
    """Red and blue the other way round; None for greys."""
    if way.channels == "grey":
        return None
    other = "bgr" if way.channels == "rgb" else "rgb"
    return replace(way, channels=other, name=f"{way.name.removeprefix('BGR, ')}, {other.upper()}")


def search(
    data: TrialData, height: int, width: int, *, seed: int, progress: bool = False, whole: bool = False
) -> Search:
    """How labelled raw images are to be fed to a classifier that does not say. whole: every way on all of the sample,
    for a table."""
    model, resized = data.model, data.images.size != (height, width)
    data = replace(data, images=data.images.sample(TRIAL_IMAGES, seed).shuffled(seed))
    base = usual_resizing(model.stretches, height, width) if resized else {}
    usual = tuple(replace(way, **base) for way in candidates(model.input.channels or 3, height, width))
    read, notes, reading = readings(data, usual)
    usual = tuple(with_reading(way, read) for way in usual)
    tried = race(data, usual, whole=whole, progress=progress)
    best = best_of(tried)
    ranked = sorted(tried, key=lambda t: -t.accuracy)
    turned = [best] if best.accuracy >= NEARLY else [best, *(t for t in ranked if t is not best)]
    swaps = [way for t in turned if t.way is not None and (way := swapped(t.way)) is not None]
    again, *others = race(data, swaps, best=best, whole=whole)
    tried = [*(again if t is best else t for t in tried), *others]
    best = again
    if others:  # colours hardly matter to many a classifier: swapped ones have to be clearly better
        best = (best, best_of(others))[_clearly_best([best, best_of(others)])]
    if resized and best.way is not None:  # also try the other ways of resizing
        tried, best = resizings(data, tried, best, whole)
    equal = [t for t in tried if t is not best and t.right.shape == best.right.shape and (t.right == best.right).all()]
    if equal and best.way is not None:
        names = ", ".join(t.way.name for t in equal if t.way is not None)
        notes.append(
            f"The classifier is right on the same images when they are prepared as {names}. {best.way.name} was taken "
            "because its probabilities fit the labels better. If they look wrong, give preprocess=."
        )
    if resized and best.way is not None:
        notes.append(resizing_words(best.way))
    return Search(best, (*reading, *tried), tuple(notes))


def resizings(data: TrialData, tried: Sequence[Tried], best: Tried, whole: bool) -> tuple[list[Tried], Tried]:
    """(all that was tried, the best way) after other ways of resizing, which have to be clearly better: on images that
    the classifier was trained on it is right however they are cut, and chance would decide."""
    tried = list(tried)
    for changed, words in RESIZINGS:
        assert best.way is not None
        other = replace(best.way, **changed)
        if other == best.way or any(_resized_alike(other, t.way) for t in tried):
            continue
        other = replace(other, name=f"{best.way.name.partition(' — ')[0]} — {words}")
        again, new = race(data, [other], best=best, patience=STRETCHED, whole=whole)
        tried = [*(again if t is best else t for t in tried), new]
        best = new if _clearly_best([again, new]) == 1 else again
    return tried, best


def resizing_words(way: Preprocess) -> str:
    """How images become the classifier's size, in a sentence."""
    side = f"{way.height} × {way.width}"
    if way.fit == "stretch":
        how = f"stretched to {side}"
    elif way.crop_share == 1:
        how = f"scaled to cover {side}, and the middle is cut out"
    else:
        how = f"scaled to cover {1 / way.crop_share:.3g} times {side}, and the middle of {side} is cut out"
    return (
        f"Images of other sizes are {how} ({way.resample}). If training did otherwise, give "
        "preprocess=knownot.Preprocess(fit=…, crop_share=…, resample=…)."
    )


def _resized_alike(a: Preprocess, b: Preprocess | None) -> bool:
    return b is not None and replace(a, name=b.name) == b


# How files are read


def with_reading(way: Preprocess, read: Preprocess) -> Preprocess:
    """`way` with what `read` says of reading files, and of that in its name."""
    return replace(
        way, orientation=read.orientation, background=read.background, depth=read.depth,
        name=way.name + read.name if way.name else way.name,
    )  # fmt: skip


def readings(data: TrialData, ways: Sequence[Preprocess]) -> tuple[Preprocess, list[str], list[Tried]]:
    """(orientation, background and depth as a Preprocess of which nothing else counts, its name to be added to others;
    notes; what was tried), by images of the sample that can be read in several ways."""
    read, notes = Preprocess(), list[str]()
    tried: list[Tried] = []
    seen = traits(data.images)
    for field, options, what in alternatives([t for _, t in seen]):
        affected = [entry for entry, t in seen if _has(t, field)]
        some = replace(data, images=Some(affected[:AFFECTED], data.images))
        share = f"{len(affected) / len(seen):.1%} of {len(seen):,} images looked at {what}"
        found: dict[str, Tried] = {}
        for value, words in options.items():
            label = f"{read.name}, {words}"
            changed: dict[str, Any] = {field: value, "name": label}
            mine = replace(read, **changed)
            found[label] = best_of([attempt(some, with_reading(way, mine)) for way in ways])
        tried += found.values()
        chosen = _clearly_best(list(found.values()))
        best = list(found)[chosen]
        changed = {field: list(options)[chosen], "name": best if chosen else read.name}
        read = replace(read, **changed)
        shown = "; ".join(f"{label.split(', ')[-1]} {t.accuracy:.1%}" for label, t in found.items())
        n = min(AFFECTED, len(affected))
        told = "" if n >= FEW else ", too few to tell"
        notes.append(
            f"{share}. They are read so: {best.split(', ')[-1]} (right, of {n} such images: {shown}{told}). "
            f"Preprocess({field}=…) reads them otherwise."
        )
    return read, notes, tried


def traits(sample: Images) -> list[tuple[Entry, Traits]]:
    """The readable images of a sample, and what of each could be read in several ways."""
    if not isinstance(sample, Entries) or sample.ready:
        return []
    found = []
    for entry in sample.entries(0, None):
        try:
            found.append((entry, Traits() if entry.error else traits_of(entry.image)))
        except Unreadable:
            continue
    return found


def alternatives(seen: Sequence[Traits]) -> Iterator[tuple[str, dict[Any, str], str]]:
    """(field of Preprocess, {value: in words}, of what images), the first value as it is without a choice."""
    if any(t.turned for t in seen):
        words = {"turned": "turned upright by EXIF orientation", "stored": "EXIF orientation ignored"}
        yield "orientation", dict(words), "carry an EXIF orientation (torchvision and Keras ignore it)"
    if any(t.transparent for t in seen):
        names = {"white": "transparency on white", "black": "transparency on black", "ignored": "transparency ignored"}
        yield "background", dict(names), "have transparent pixels"
    if brightest := max((t.brightest for t in seen), default=0):
        least = max(9, brightest.bit_length())
        depths = [16, *(d for d in (least, 10, 12, 14) if least <= d < 16), 8]
        bits: dict[Any, str] = {d: f"{d} bits" + " (brighter is white)" * (d == 8) for d in dict.fromkeys(depths)}
        yield "depth", bits, f"have more than 8 bits, values up to {brightest:,}"


def _has(t: Traits, field: str) -> bool:
    return {"orientation": t.turned, "background": t.transparent, "depth": t.brightest > 0}[field]


def _clearly_best(found: Sequence[Tried]) -> int:
    """Which: the first, unless another is right more often, or makes the labels likelier, by more than chance."""
    if len(found) < 2:
        return 0
    a, b = found[0], best_of(found[1:])
    if len(a.right) != len(b.right) or len(b.right) < FEW:
        return 0
    gains, losses = int((b.right & ~a.right).sum()), int((a.right & ~b.right).sum())
    more = b.log_likelihood - a.log_likelihood
    likelier = more.mean() > 3 * more.std() / np.sqrt(len(more)) and gains >= losses
    sure = gains - losses >= 3 and gains - losses > 2 * np.sqrt(gains + losses)
    return next(i for i, t in enumerate(found) if t is b) if sure or likelier else 0

"""What can be known of detectors without unknown images: by made outliers, classes left out, and known images alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from ..arrays import Activations, Capabilities, Head
from ..detectors import Detector, Recipe
from ..detectors.base import to_namespace
from ..errors import KnownotError
from ..fitting.extraction import Extractor
from ..fitting.remade import Remade
from ..measure import auroc
from ..outliers import OUTLIERS, make
from ..stats import Statistic, StatisticRequest, gather

KINDS = tuple(name for name, kind in OUTLIERS.items() if kind.proper)
LEFT_OUT = "class left out"
CLASSES = 5  # left out at most
TIED = 0.2  # share of known images with one and the same score
CLEARLY = 0.45  # AUROC below which a detector is wrong rather than blind


@dataclass(frozen=True)
class Check:
    """What the evidence says of one detector."""

    detector: str
    flags: tuple[str, ...] = ()  # what is wrong with it on this classifier, a sentence each
    auroc: Mapping[str, float] = field(default_factory=dict)  # {kind of unknown: of known images against it}
    verdict: str = ""  # of the automatic choice: "kept", "dropped", "added", "left out"; "" where nothing was chosen
    why: str = ""

    @property
    def median(self) -> float | None:
        """AUROC, over the kinds."""
        return float(np.median(list(self.auroc.values()))) if self.auroc else None

    @property
    def worst(self) -> tuple[str, float] | None:
        """(kind, AUROC) of the kind it sees least."""
        return min(self.auroc.items(), key=lambda pair: pair[1]) if self.auroc else None


def table(checks: Sequence[Check], others: int | None = None) -> str:
    """For people: one line per detector, and its flags below it. others: how many to show that were not chosen."""
    shown = list(checks)
    if others is not None and any(c.verdict for c in checks):
        rest = [c for c in checks if not c.verdict]
        shown = [c for c in checks if c.verdict] + rest[:others]
    lines = [("detector", "median", "worst", "on", "", "")]
    for c in shown:
        numbers = ("", "", "") if c.worst is None else (f"{c.median:.3f}", f"{c.worst[1]:.3f}", c.worst[0])
        lines.append((c.detector, *numbers, c.verdict, c.why))
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    out = []
    for line, check in zip(lines, [None, *shown], strict=True):
        out.append("  ".join([*map(str.ljust, line, widths), line[5]]).rstrip())
        out += [f"  ! {flag}" for flag in (check.flags if check else ())]
    return "\n".join([*out, f"… and {len(checks) - len(shown)} more."] if len(shown) < len(checks) else out)


def failing(known: np.ndarray, found: Mapping[str, float] | None = None) -> tuple[str, ...]:
    """Why a detector must not be used, by its scores [n] of known images and its AUROC per kind of unknown; () if not.

    Not a number, one number for all, or upside down.
    """
    said = []
    bad = ~np.isfinite(known)
    if bad.any():
        said.append(f"Its score is not a finite number for {bad.mean():.1%} of the known images.")
    elif len(known) > 1 and np.ptp(known) == 0:
        said.append("It gives every known image the same score.")
    numbers = np.array(list((found or {}).values()))
    below = [kind for kind, x in (found or {}).items() if x < CLEARLY]
    if len(numbers) and (np.median(numbers) < 0.5 or len(below) > len(numbers) / 2):
        said.append(
            f"It takes unknown images for more known than known ones: median AUROC {np.median(numbers):.2f}, clearly "
            f"below one half on {len(below)} of {len(numbers)} kinds ({_some(below)})."
        )
    return tuple(said)


def flags(known: np.ndarray, found: Mapping[str, float] | None = None) -> tuple[str, ...]:
    """`failing`, and what is suspicious without being wrong: scores that many images share, and upside down on some."""
    said = failing(known, found)
    if said:
        return said
    if len(known) >= 20:
        values, counts = np.unique(known, return_counts=True)
        share = counts.max() / len(known)
        if share > TIED:
            value = values[counts.argmax()]
            said = (f"Its score is saturated: {share:.0%} of the known images have the very same, {value:.3g}.",)
    below = [kind for kind, x in (found or {}).items() if x < CLEARLY]
    if len(below) > len(found or {}) / 4:
        said += (f"It takes these for more known than known images: {_some(below)}.",)
    return said


def _some(kinds: Sequence[str]) -> str:
    return ", ".join(kinds[:4]) + (", …" if len(kinds) > 4 else "")


def checked(names: Iterable[str], member_scores: np.ndarray) -> tuple[Check, ...]:
    """The cheap check, by known images alone: member_scores [n, m]. Only detectors that have a flag."""
    checks = (Check(name, flags(column)) for name, column in zip(names, np.asarray(member_scores).T, strict=True))
    return tuple(c for c in checks if c.flags)


# Made outliers


def answers(walk: Extractor, x: np.ndarray, labels: np.ndarray, *, each: int, seed: int) -> dict[str, Activations]:
    """{kind: what the classifier computes for `each` made outliers}, made from known images and passed the same way.

    walk: that of the known images. x [m, h, w, k], labels [m]: some of its images as the classifier's input (or as the
    second network's, where that is the larger one), and their classes, -1 where unknown. Both networks see the same
    made images, each preprocessed in its own way. A kind for which one of them computes nothing but NaN is left out;
    all of them, with other than 1 or 3 channels.
    """
    remade = Remade.of(walk, x)
    if remade is None:
        return {}
    found: dict[str, Activations] = {}
    for kind in KINDS:
        made = make(kind, each, like=remade.pictures, labels=labels, seed=seed)
        with suppress(KnownotError):
            found[kind] = remade.run(made, kind)
    return found


def auroc_of(known: np.ndarray, unknown: np.ndarray) -> float:
    """Of finite scores; a score that is none counts as the most known, as it would be no alarm."""
    low = np.finfo(np.float64).min
    known, unknown = (np.where(np.isfinite(x), x.astype(np.float64), low) for x in (known, unknown))
    return auroc(known, unknown)


# Classes left out


def rounds(classes: int, seed: int) -> list[np.ndarray]:
    """Which classes are left out together: at most five in all, few enough that the others remain a classifier."""
    if classes < 3:
        return []
    size = int(np.clip(classes // 10, 1, CLASSES))
    chosen = np.random.default_rng([seed, 4]).permutation(classes)[: min(CLASSES, classes)]
    return [np.sort(chosen[i : i + size]) for i in range(0, len(chosen) // size * size, size)]


def without(batch: Activations, classes: np.ndarray) -> Activations:
    """The activations of a classifier that does not have these classes: their logits are gone."""
    keep = np.setdiff1d(np.arange(batch.logits.shape[1]), classes)
    return replace(batch, logits=batch.logits[:, keep])


def left_out(
    recipes: Mapping[str, Recipe],
    sample: tuple[Activations, np.ndarray],
    held: tuple[Activations, np.ndarray],
    head: Head | None,
    capabilities: Capabilities,
    seed: int = 0,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each round (scores [n, m] of held-out known images, scores [k, m] of those of classes it was fitted without).

    sample, held: (activations, labels [n]) of known images to fit on, and held-out ones; where there is no label the
    predicted class stands for it. Class statistics, head row and logit of the classes are withheld. What the network
    learnt of them in its features is not, so this evidence flatters; and it is one kind among many. A detector that
    cannot be fitted without the classes has NaN.
    """
    found = []
    (train, label), (test, truth) = ((a, np.where(y < 0, np.argmax(a.logits, axis=1), y)) for a, y in (sample, held))
    for gone in rounds(capabilities.classes, seed):
        stay, new = ~np.isin(label, gone), np.isin(truth, gone)
        if stay.sum() < 10 or new.sum() < 5 or (~new).sum() < 20:
            continue
        keep = np.setdiff1d(np.arange(capabilities.classes), gone)
        renamed = np.searchsorted(keep, label[stay])
        fewer = replace(capabilities, classes=len(keep))
        top = None if head is None else Head(head.weight[keep], head.bias[keep])
        on, seen = without(train.take(stay), gone), without(test, gone)
        stats = gather(
            [(on, renamed)], [w for recipe in recipes.values() for w in recipe.required_statistics(fewer).values()]
        )
        columns = [_column(recipe, stats, top, fewer, seen) for recipe in recipes.values()]
        member_scores = np.stack(columns, axis=1)
        found.append((member_scores[~new], member_scores[new]))
    return found


def _column(
    recipe: Recipe,
    stats: Mapping[StatisticRequest, Statistic],
    head: Head | None,
    capabilities: Capabilities,
    seen: Activations,
) -> np.ndarray:
    try:
        detector: Detector = recipe.fit(stats, head, capabilities)
        return np.asarray(to_namespace(detector, np, np.float32).member_scores(seen))[:, 0]
    except (KnownotError, np.linalg.LinAlgError, ValueError, IndexError):
        return np.full(len(seen), np.nan)

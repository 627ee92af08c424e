"""Is the classifier fed as it was trained? What the trials of other ways of preprocessing say."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np

from ..arrays import Preprocess
from ..fitting.auxiliary import same_values
from ..fitting.race import TrialData, Tried, attempt
from ..images import Images
from ..images.preprocess import CANDIDATES, GREY_CANDIDATES
from ..measure import paired_interval
from ..models import Model
from .notes import Spread
from .record import Finding, Number, Share
from .sections import Channel, Inputs, Trial
from .trials import TRIED, Fed
from .words import pc, points, span

CONFIRMED = 2_000  # that the best is compared with the used one on
SURE = 0.99
EVERY = (*CANDIDATES, *GREY_CANDIDATES)
Z, Z95 = 3.0, 1.96  # standard errors a better way has to be better by, as it was chosen among several; of an interval
MISMATCH = "Its images are prepared"
SMALL, LARGE = 0.01, 0.05  # of accuracy: worth a warning, a problem


def section(
    model: Model,
    images: Images,
    given: Fed,
    tried: dict[str, tuple[Preprocess | None, Tried]],
    spread: Spread,
    order: np.ndarray | None,
    *,
    size: int,
    seed: int,
) -> tuple[Inputs, str]:
    """(the section, the way to preprocess instead as the command line takes it: "" when what is fed is right, or cannot
    be told).
    """
    used = given.way.name if given.way is not None else "as given"
    trials = tuple(
        Trial(
            name=name,
            used=name == used,
            accuracy=Share.of(a.right),
            confidence=Number.mean(a.confidence),
            sure=Share.of(a.confidence >= SURE),
            fields={} if way is None else asdict(way),
        )
        for name, (way, a) in tried.items()
    )
    best, gain, confirmed = None, None, None
    if len(tried) > 1 and len(tried[used][1].right):
        best = max(tried, key=lambda name: (tried[name][1].right.mean(), name == used))
        gain, confirmed = _gain(model, images, tried, used, best, order, size, seed)
    findings = _findings(given, used, best, gain, confirmed, tried, images)
    mismatch = any(f.title.startswith(MISMATCH) for f in findings)
    made = Inputs(
        findings=findings,
        used=used,
        found=given.found,
        fields=None if given.way is None else asdict(given.way),
        image_size=images.size,
        input_size=(model.input.height, model.input.width),
        channels=model.input.channels,
        layout=model.input.layout,
        range=tuple(
            Channel(float(a), float(b), float(c), float(d))
            for a, b, c, d in zip(spread.low, spread.high, spread.mean, spread.std, strict=True)
        ),
        trials=trials,
        best=best,
        gain=gain,
    )
    return made, _write_option(tried[best][0]) if mismatch and best is not None and not images.ready else ""


def _write_option(way: Preprocess | None) -> str:
    """As --preprocess takes it: the name of a usual way, else a JSON object."""
    if way is None or any(way.name == p.name and same_values(way, p.sized(way.height, way.width)) for p in EVERY):
        return "" if way is None else way.name
    default = asdict(Preprocess())
    return json.dumps({name: x for name, x in asdict(way).items() if x != default[name] and name != "name"})


def _gain(
    model: Model,
    images: Images,
    tried: dict[str, tuple[Preprocess | None, Tried]],
    used: str,
    best: str,
    order: np.ndarray | None,
    size: int,
    seed: int,
) -> tuple[Number, tuple[Share, Share]]:
    """(how much better, (accuracy used, accuracy best)); where it matters and can be had, on more images."""
    a, b = tried[used][1], tried[best][1]
    if used != best and not images.ready and len(a.right) >= TRIED and b.right.mean() - a.right.mean() > 0.01:
        more = TrialData(model, images.sample(CONFIRMED, seed + 1), order, size)
        a, b = (attempt(more, tried[name][0]) for name in (used, best))
    n = min(len(a.right), len(b.right))
    first, second = a.right[:n], b.right[:n]
    difference = paired_interval(int((second & ~first).sum()), int((first & ~second).sum()), n)
    return Number(*difference), (Share.of(first), Share.of(second))


def _findings(
    given: Fed,
    used: str,
    best: str | None,
    gain: Number | None,
    confirmed: tuple[Share, Share] | None,
    tried: dict[str, tuple[Preprocess | None, Tried]],
    images: Images,
) -> tuple[Finding, ...]:
    if not images.labelled:
        said = "Whether images are prepared as in training could not be checked."
        text = f"The known images have no labels. They were prepared as {used} ({given.found})."
        action = "Give labels, or class sub-folders: accuracy then tells which preprocessing is right."
        return (Finding(severity="open", section="inputs", title=said, text=text, action=action),)
    found: list[Finding] = []
    mine = tried[used][1]
    most = max((a.confusion for _, a in tried.values()), key=lambda c: c.reordered()[0])
    better, moved = most.reordered()
    accuracy = max(a.confusion.accuracy for _, a in tried.values())
    many = most.images >= 10 * len(most.counts)  # with few images any renaming fits
    if many and better >= max(0.5, accuracy + 0.1) and len(moved) > 1:
        said = f"Labels and outputs are in another order: {pc(accuracy)} right as they are, {pc(better)} when renamed."
        text = f"Renaming {len(moved)} classes one to one makes the {most.images:,} labelled known images fit."
        action = "Give the names of the classifier's outputs in their order (--class-names, class_names=)."
        return (
            Finding(severity="problem", section="inputs", title=said, text=text, action=action),
        )  # which makes any way of preprocessing look best
    if best is not None and best != used and gain is not None and confirmed is not None:
        found += _mismatch(mine, used, best, gain, confirmed)
    if not found and all(a.confusion.near_chance for _, a in tried.values()):
        best_of_all = f"{pc(accuracy)} at best"
        said = f"However images are prepared, the classifier is no more often right than by chance ({best_of_all})."
        text = f"{len(tried)} ways of preprocessing were tried on {most.images:,} labelled known images."
        action = "Check that the labels are those of this classifier, and give its preprocessing (--preprocess)."
        found.append(Finding(severity="problem", section="inputs", title=said, text=text, action=action))
    return tuple(found) or (_fine(given, used, tried),)


def _mismatch(mine: Tried, used: str, best: str, gain: Number, confirmed: tuple[Share, Share]) -> list[Finding]:
    """A better way, if it is better by more than chance among several could make it."""
    value = gain.value or 0.0
    if value - ((gain.high or 0.0) - value) * Z / Z95 <= 0 or value < SMALL:
        return []
    grave = (gain.low or 0.0) >= LARGE
    verb = "the wrong way" if grave else "in a way that costs accuracy"
    text = (
        f"On the same {confirmed[0].images:,} labelled known images: {points(value)} better ({span(gain)}). As "
        f"images are prepared now, its mean softmax probability is {pc(float(mine.confidence.mean()))}, and "
        f"{pc(Share.of(mine.confidence >= SURE))} of the images get at least 0.99. All that follows was measured "
        "in this way."
    )
    return [
        Finding(
            severity="problem" if grave else "warning", section="inputs",
            title=f"{MISMATCH} {verb}: {pc(confirmed[0])} right as now ({used}), {pc(confirmed[1])} as {best}.",
            text=text,
            action=f"Preprocess as {best}, then audit again: every other finding may change.",
        )
    ]  # fmt: skip


def _fine(given: Fed, used: str, tried: dict[str, tuple[Preprocess | None, Tried]]) -> Finding:
    mine = tried[used][1]
    right = Share.of(mine.right)
    text = f"{pc(right)} of {right.images:,} labelled known images are right, prepared as {used} ({given.found})"
    others = [name for name in tried if name != used]
    if others:
        worst = min(others, key=lambda name: tried[name][1].right.mean())
        theirs = tried[worst][1]
        text += (
            f". Prepared as {worst}, {pc(Share.of(theirs.right))} would be, with a mean softmax probability of "
            f"{pc(float(theirs.confidence.mean()))}"
        )
    return Finding("ok", "inputs", "Images are prepared as the classifier expects.", text + ".")

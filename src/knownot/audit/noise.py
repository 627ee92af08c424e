"""Why is it so sure of `np.random.rand`? What the audit found, joined to one paragraph in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..arrays import Activations, Preprocess, softmax
from ..images.preprocess import apply
from ..models import Model
from .known import Known
from .notes import Spread
from .record import Share
from .sections import RandomInput, UnknownKind
from .unknown_images import RAND, Shown
from .words import pc, span

BLACK, WHOLE = 8, 200  # of 255: what still looks black; a range that is nearly that of pictures
PICTURE = "random-input-nearest"
ENOUGH = 0.5  # lower end of the share caught from which a detector changes the answer


def section(
    known: Known, shown: Sequence[Shown], lines: Sequence[UnknownKind]
) -> tuple[RandomInput, dict[str, np.ndarray]]:
    """(the section, {key: picture of the nearest known image})."""
    job = known.job
    one = next((s for s in shown if s.kind.name == RAND), None)
    line = next((x for x in lines if x.kind == RAND), None)
    if one is None or line is None:
        return RandomInput("The classifier computes nothing for random numbers from 0 to 1 as its input."), {}
    x, labels = known.watch.pictures()
    range_ = None if job.way is None else pixels(job.way)
    called = f"np.random.rand(1, {x.shape[1]}, {x.shape[2]}, {x.shape[3]})"
    text = [f"{called} is an image of random numbers from 0 to 1. {meaning(range_, known.seen.spread)}"]
    text.append(
        f"Of {line.images} such images the classifier calls most {line.said}; it is {pc(line.confidence)} sure on "
        f"average, and at least 99 % sure of {pc(line.sure)} of them ({span(line.sure)})."
    )
    black = None if job.way is None else black_image(job.model, job.way, x.shape[1:3])
    name, sure = (None, None) if black is None else (job.names[int(black.argmax())], float(black.max()))
    if sure is not None:
        text.append(f"An image that is black all over it calls {name}, {pc(sure)} sure.")
    mine, _ = known.watch.rows(len(x))
    text += why(job.model, one.activations, mine)
    at, likeness = nearest(one.activations, mine)
    near = job.names[int(labels[at])] if labels[at] >= 0 else None
    text.append(
        f"Of {len(mine)} known images looked at, the one that it sees most alike is "
        + (f"of the class {near}" if near is not None else "one without a label")
        + f" (cosine {likeness:.2f})."
    )
    text.append(cure(line))
    zero, unit = range_ or (None, None)
    found = RandomInput(
        text=" ".join(text),
        zero=zero,
        unit=unit,
        black_class=name,
        black_confidence=sure,
        nearest=near,
        likeness=likeness,
    )
    return found, {PICTURE: thumb(x[at], job.way)}


def pixels(way: Preprocess) -> tuple[float, float]:
    """Which pixel values, of 0 to 255, an input of 0 and one of 1 are; the least and the largest over channels."""
    mean, std = np.asarray(way.mean, np.float64), np.asarray(way.std, np.float64)
    ends = np.stack([np.broadcast_to(mean, np.broadcast(mean, std).shape), mean + std]) / (way.scale or 1.0)
    return float(ends.min()), float(ends.max())


def meaning(range_: tuple[float, float] | None, spread: Spread) -> str:
    """In plain words, what numbers from 0 to 1 are to the network."""
    if range_ is None:
        low, high = float(spread.low.min()), float(spread.high.max())
        return f"The inputs of the known images go from {low:.3g} to {high:.3g}."
    low, high = range_
    if high <= BLACK:
        return "This classifier takes numbers from 0 to 255: to it that is no noise but an image as good as black."
    if high - low >= WHOLE:
        return "To this classifier that is what it looks like: coloured noise, from black to white."
    tone = "dark" if high < 100 else "bright" if low > 155 else "grey"
    return (
        f"To this classifier those are pixel values from {low:.0f} to {high:.0f} of 255: {tone} noise of low contrast."
    )


def black_image(model: Model, way: Preprocess, size: tuple[int, int]) -> np.ndarray:
    """Softmax [c] of an image that is 0 everywhere."""
    x = apply(np.zeros((*size, 3), np.uint8), way)[None]
    return np.asarray(softmax(np.asarray(model.forward(model.input.to_layout(x)).logits, np.float64)))[0]


def why(model: Model, noise: Activations, known: Activations) -> list[str]:
    """Where the winning logit comes from: its size, the bias, the length of the features."""
    if (
        model.head is None
        or noise.features is None
        or known.features is None
        or "logits" not in model.capabilities.outputs
    ):
        return []
    tops = [float(np.median(np.asarray(a.logits).max(axis=1))) for a in (noise, known)]
    lengths = [float(np.median(np.linalg.norm(np.asarray(a.features), axis=1))) for a in (noise, known)]
    bias = np.asarray(model.head.bias, np.float64)[np.argmax(noise.logits, axis=1)]
    share = lengths[0] / lengths[1] if lengths[1] else 0.0
    f = np.asarray(noise.features, np.float64).mean(axis=0)
    pushed = f * np.asarray(model.head.weight, np.float64)[int(np.bincount(np.argmax(noise.logits, axis=1)).argmax())]
    pushing = np.sort(pushed[pushed > 0])[::-1]
    few = int(np.searchsorted(np.cumsum(pushing), 0.5 * pushing.sum())) + 1 if len(pushing) else 0
    half = f"; {few} of {len(f)} features make half of what speaks for it" if few else ""
    return [
        f"Its winning logit is {tops[0]:.3g} there (of known images {tops[1]:.3g}), {float(np.median(bias)):.2g} of it "
        f"the class's bias, from features {share:.2f} times as long as those of known images{half}."
    ]


def nearest(noise: Activations, known: Activations) -> tuple[int, float]:
    """(which known image, the cosine) of the known image that noise is most like on average."""
    a, b = (np.asarray(x.logits if x.features is None else x.features, np.float64) for x in (noise, known))
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
    mean = (b @ a.T).mean(axis=1)
    return int(mean.argmax()), float(mean.max())


def cure(line: UnknownKind) -> str:
    """Which detector changes the answer, by the lower end of its interval."""
    if not line.caught:
        return "Whether a detector changes that could not be measured."
    best = max(line.caught, key=lambda d: (line.caught[d].low, d == "default"))
    softmax_ = _softmax(line.caught, best)
    if line.caught[best].low >= ENOUGH:
        return (
            f"What changes it: the detector {best} calls {pc(line.caught[best])} of them unknown "
            f"({span(line.caught[best])}){softmax_}."
        )
    return (
        f"No detector measured here changes it: the best, {best}, calls {pc(line.caught[best])} of them unknown"
        f"{softmax_}. Retraining with a class for what is none (knownot retrain none-class) may."
    )


def _softmax(caught: Mapping[str, Share], best: str) -> str:
    return "" if best == "msp" or "msp" not in caught else f", a threshold on softmax {pc(caught['msp'])}"


def thumb(x: np.ndarray, way: Preprocess | None) -> np.ndarray:
    """A picture of an input [h, w, k], for people."""
    from ..fitting.remade import pixels_of

    found = pixels_of(x[None], way)
    return np.zeros((1, 1, 3), np.uint8) if found is None else found[0][0]

"""Every usual way of preprocessing, tried on the same labelled known images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..arrays import Preprocess
from ..errors import OptionError
from ..fitting.auxiliary import same_values
from ..fitting.preprocessing import size_for
from ..fitting.race import TrialData, Tried, attempt
from ..fitting.search import readings, search, swapped, with_reading
from ..images import Images, open_images
from ..images.preprocess import apply, candidates
from ..models import Model

TRIED = 512  # labelled known images that every way is tried on


@dataclass(frozen=True)
class Fed:
    """How raw images become the classifier's input, and how that was found."""

    way: Preprocess | None
    found: str  # "given", "said by the model", "found by accuracy", "the classifier's own input"


def fed(
    model: Model, images: Images, given: Preprocess | None, order: np.ndarray | None, *, size: int, seed: int
) -> tuple[Fed, dict[str, tuple[Preprocess | None, Tried]]]:
    """(what is fed, {name of a way: (the way, what the classifier answers)}), the second empty without labels."""
    if images.ready:
        own = Fed(None, "the classifier's own input")
        return own, _of_arrays(model, images, order, size, seed) if images.labelled else {}
    height, width = size_for(model, images, given)
    named = given or model.preprocess
    found = "given" if given is not None else "said by the model"
    way = None if named is None else _called(named.sized(height, width), model)
    usual = candidates(model.input.channels, height, width) if model.input.channels in (None, 1, 3) else ()
    if way is None and not (images.labelled and usual):
        raise OptionError(
            "How this classifier expects its input is not known: the model does not say, and without labels the usual "
            "ways cannot be compared. Give labels (or class sub-folders), or preprocess=knownot.Preprocess(…)."
        )
    if not images.labelled:
        return Fed(way, found), {}
    if way is None:
        result = search(TrialData(model, images, order, size), height, width, seed=seed, whole=True)
        whole = [t for t in result.tried if t.confusion.images >= result.best.confusion.images]
        return Fed(result.best.way, "found by accuracy"), _by_name(whole)
    data = TrialData(model, images.sample(TRIED, seed), order, size)
    others = [way, *(p for p in usual if not same_values(p, way))]
    turned = swapped(way)
    if turned is not None and not any(same_values(turned, p) for p in others):
        others.append(replace(turned, name=f"{way.name}, red and blue swapped"))
    read, _, _ = readings(data, [way])
    if read.name:
        others.append(with_reading(way, read))
    if images.size != (height, width):
        fit = "stretch" if way.fit == "crop" else "crop"
        name = f"{way.name}, {'stretched' if fit == 'stretch' else 'cut to the middle'}"
        others.append(replace(way, fit=fit, name=name))
    return Fed(way, found), _by_name([attempt(data, p) for p in others])


def _by_name(tried: list[Tried]) -> dict[str, tuple[Preprocess | None, Tried]]:
    return {t.way.name: (t.way, t) for t in tried if t.way is not None}


def _called(way: Preprocess, model: Model) -> Preprocess:
    """With a name: that of the usual way it is, else its numbers."""
    if way.name:
        return way
    for p in candidates(model.input.channels, None, None) if model.input.channels in (None, 1, 3) else ():
        if same_values(p.sized(way.height, way.width), way):
            return replace(way, name=p.name)
    return replace(way, name=f"scale {way.scale:.4g}, mean {_list(way.mean)}, std {_list(way.std)}, {way.channels}")


def _list(x: tuple[float, ...]) -> str:
    return " ".join(f"{v:.4g}" for v in x)


def _of_arrays(
    model: Model, images: Images, order: np.ndarray | None, size: int, seed: int
) -> dict[str, tuple[Preprocess | None, Tried]]:
    """The same for float arrays, if their range tells how they were scaled."""
    sample = images.sample(TRIED, seed)
    parts = [(b.x, b.labels[b.rows]) for b in sample.batches(size, None, spec=model.input) if len(b.x)]
    x, labels = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    named = "as given"
    own = open_images(x, labels)
    tried: dict[str, tuple[Preprocess | None, Tried]] = {
        named: (None, attempt(TrialData(model, own, order, size), None))
    }
    raw = _raw(x)
    if raw is None:
        return tried
    for p in candidates(x.shape[-1], None, None):
        again = np.stack([apply(image, p) for image in raw])
        if np.abs(again - x).max() > 0.02 * max(float(np.abs(x).max()), 1e-6):  # else it is what was given
            tried[p.name] = (p, attempt(TrialData(model, open_images(again, labels), order, size), None))
    return tried


def _raw(x: np.ndarray) -> np.ndarray | None:
    """The pixels, uint8 [n, h, w, 3], of floats in [0, 1], [-1, 1] or [0, 255]; None for any other range."""
    low, high = float(x.min()), float(x.max())
    if x.shape[-1] not in (1, 3):
        return None
    if low >= 0 and high <= 1:
        scaled = x * 255
    elif low >= -1 and high <= 1:
        scaled = (x + 1) * 127.5
    elif low >= 0 and 1.5 < high <= 255:
        scaled = x
    else:
        return None
    raw = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return np.repeat(raw, 3, axis=-1) if raw.shape[-1] == 1 else raw

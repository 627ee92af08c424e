"""How the classifier expects its input: given, said by the model, or found on labelled known images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..arrays import Preprocess
from ..errors import ImagesError, OptionError
from ..images.base import Images
from ..images.preprocess import candidates
from ..images.ways import as_preprocess
from ..models.base import Model
from .labels import Confusion, class_order, in_order, judge, named_rows
from .race import SURELY, TRIAL_IMAGES, TrialData, Tried, race
from .search import alternatives, readings, resizings, search, swapped, traits, with_reading
from .trial import Trial

__all__ = ["Confusion", "Trial", "choose", "class_order", "in_order", "judge", "size_for"]

CLEARLY = 0.05  # so much better, and three standard errors, another way has to be to be taken instead


def choose(
    model: Model,
    images: Images,
    given: Preprocess | None,
    order: np.ndarray | None,
    *,
    batch_size: int,
    seed: int = 0,
    doubt: bool = True,
    progress: bool = False,
) -> tuple[Preprocess | None, tuple[Trial, ...], list[str]]:
    """(the preprocessing to use, what was tried, notes). None for arrays that are the classifier's own input.

    Given by the user: taken. Said by the model: taken, unless labelled known images show another way to be clearly
    better (`doubt`). Otherwise the usual conventions are tried on up to 512 labelled known images and the most
    accurate one is taken.
    Raises ImagesError without a size to resize to, OptionError without labels to choose by.
    """
    if images.ready:
        if given is not None:
            raise OptionError(
                "preprocess= was given, but these images are float arrays, which are taken as the classifier's own "
                "input. Give uint8 images, or leave preprocess out."
            )
        return None, (), ["The images are float arrays: taken as the classifier's own input."]
    given = as_preprocess(given, channels=model.input.channels)
    size = size_for(model, images, given)
    if given is not None:
        way = given.sized(*size)
        return way, (), [f"Preprocessing as given: {given.name or given}.", *_noted(images, way, seed)]
    if model.preprocess is not None:
        said = model.preprocess.sized(*size)
        if not (doubt and images.labelled):
            return said, (), [_read(said), *_noted(images, said, seed)]
        return _doubted(TrialData(model, images, order, batch_size), said, seed, progress)
    if not images.labelled:
        raise OptionError(
            "How this classifier expects its input is not known: the model does not say, and without labels the usual "
            "conventions cannot be compared. Give labels (or class sub-folders), or preprocess=knownot.Preprocess(…)."
        )
    found = search(TrialData(model, images, order, batch_size), *size, seed=seed, progress=progress)
    best, table = found.best, tuple(t.trial for t in found.tried)
    assert best.way is not None  # raw images are fed some way
    if not best.confusion.images:
        raise OptionError(
            "How this classifier expects its input is not known, and the usual conventions cannot be compared. None of "
            "the known images drawn at random has a label (-1 and None are none). Give labels, or "
            "preprocess=knownot.Preprocess(…)."
        )
    # Labels in another order can make a wrong convention look best: judge by the one that a renaming helps most.
    full = [t for t in found.tried if t.confusion.images >= best.confusion.images]
    most = max((t.confusion for t in full), key=lambda c: c.reordered()[0])
    judge(most, named_rows(images.class_names, order, most), table, best.accuracy)
    judge(best.confusion, named_rows(images.class_names, order, best.confusion), table)
    others = ", ".join(f"{t.trial.preprocess.name} {t.accuracy:.1%}" for t in full if t is not best)
    note = (
        f"Preprocessing found by accuracy on {best.confusion.images} labelled known images: {best.way.name} "
        f"({best.accuracy:.1%}; {others})."
    )
    return best.way, table, [note, *found.notes, *_poor(best, len(table))]


def _poor(best: Tried, ways: int) -> list[str]:
    if best.confusion.images < 20 or best.accuracy >= SURELY:
        return []
    return [
        f"None of the {ways} ways of preprocessing that were tried makes the classifier right on more than "
        f"{best.accuracy:.1%} of {best.confusion.images} labelled known images. If it was better in training, its "
        "images were preprocessed in yet another way: give preprocess=knownot.Preprocess(…)."
    ]


def _noted(images: Images, way: Preprocess, seed: int) -> list[str]:
    """Sentences on images that could be read in several ways, where nobody has tried which."""
    notes, seen = [], traits(images.sample(TRIAL_IMAGES // 4, seed))
    for field, options, what in alternatives([t for _, t in seen]):
        if (words := options.get(getattr(way, field))) is not None:
            notes.append(f"Some images {what}: {words}. Preprocess({field}=…) reads them otherwise.")
    return notes


def _read(said: Preprocess) -> str:
    return f"Preprocessing read from the model: {said.name or said}."


def _doubted(
    data: TrialData, said: Preprocess, seed: int, progress: bool
) -> tuple[Preprocess, tuple[Trial, ...], list[str]]:
    """What `choose` returns for a model that says how it expects its input. Layers can say it wrongly: a network with a
    Rescaling layer that was trained on images scaled before, as happens by mistake, wants them scaled twice."""
    sample = data.images.sample(TRIAL_IMAGES, seed).shuffled(seed)
    resized = data.images.size != (said.height, said.width)
    data = replace(data, images=sample)
    read, notes, reading = readings(data, [said])
    said = with_reading(said, read)
    (trial,) = trials = race(data, [said], progress=progress)
    if resized:
        trials, trial = resizings(data, trials, trial, False)
    assert trial.way is not None  # raw images are fed some way
    said = trial.way
    if trial.accuracy < SURELY and trial.confusion.images >= 20:
        channels = data.model.input.channels or 3
        usual = candidates(channels, said.height, said.width) if channels in (1, 3) else ()
        usual = tuple(replace(with_reading(p, read), fit=said.fit, resample=said.resample) for p in usual)
        swaps = [p for p in map(swapped, (said, *usual)) if p is not None]
        others = [p for p in (*usual, *swaps) if _differs(p, said)]
        again, *more = race(data, others, best=trial, progress=progress)
        trials, trial = [*(again if t is trial else t for t in trials), *more], again
    best = max((t for t in trials if t.looked == trial.looked), key=lambda t: t.accuracy)
    table = tuple(t.trial for t in (*reading, *trials))
    gain, n = best.accuracy - trial.accuracy, max(trial.confusion.images, 1)
    error = np.sqrt(sum(t.accuracy * (1 - t.accuracy) for t in (best, trial)) / n)
    # Labels in another order make any way look wrong: the better one has to be better whatever the order.
    better = gain > max(CLEARLY, 3 * error) and best.confusion.reordered()[0] > trial.confusion.reordered()[0]
    if not better or best.way is None:
        return said, table, [_read(said), *notes, *_poor(trial, len(table))]
    judge(best.confusion, named_rows(sample.class_names, data.order, best.confusion), table)
    why = (
        "Were its colours in another order in training?"
        if best.way.channels != said.channels
        else ("Were its images scaled before they met that layer in training, so that they were scaled twice?")
    )
    note = (
        f"The model says how it expects its input ({said.name or said}), but fed so it is right on "
        f"{trial.accuracy:.1%} of {n} labelled known images, and on {best.accuracy:.1%} as "
        f"{best.way.name}: taken instead. ({why}) With preprocess= you decide."
    )
    return best.way, table, [note, *notes, *_poor(best, len(table))]


def _differs(a: Preprocess, b: Preprocess) -> bool:
    return (a.channels, a.scale, a.mean, a.std) != (b.channels, b.scale, b.mean, b.std)


def size_for(model: Model, images: Images, given: Preprocess | None) -> tuple[int, int]:
    """(height, width) that images are to have: given, the classifier's, said by it, or their own. Raises OptionError,
    ImagesError."""
    asked = (given.height, given.width) if given else (None, None)
    spec = (model.input.height, model.input.width)
    said = (model.preprocess.height, model.preprocess.width) if model.preprocess else (None, None)
    for height, width in (asked, spec, said, images.size or (None, None)):
        if height and width:
            if all(spec) and (height, width) != spec:
                raise OptionError(
                    f"preprocess= makes images of {height}×{width}; the classifier takes {spec[0]}×{spec[1]}."
                )
            return height, width
    raise ImagesError(
        "The classifier takes images of any size and the known images differ in size: tell the size it was trained "
        "with, for example preprocess=knownot.Preprocess(height=224, width=224, …) or open_model(…, size=(224, 224))."
    )

"""Finding out how the classifier wants its input, and whether the labels are its own, from labelled known images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..arrays import Preprocess
from ..errors import ImagesError, LabelsError, OptionError
from ..images.base import Images
from ..images.preprocess import candidates
from ..models.base import Model
from ..progress import bar

TRIAL_IMAGES = 512
SURELY = 0.85  # right on so many: what the model says of its input is not doubted
BARELY = 0.1  # of the way from chance to always right: less, and the classifier is wrong on its own classes
CLEARLY = 0.05  # so much better, and three standard errors, another way has to be to be taken instead


@dataclass(frozen=True)
class Trial:
    """One way of preprocessing, tried on labelled known images."""

    preprocess: Preprocess
    accuracy: float
    images: int


class Confusion:
    """Counts of (label, prediction), gathered on the way, [c, c]."""

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes), dtype=np.int64)

    def add(self, labels: np.ndarray, predicted: np.ndarray) -> None:
        has = labels >= 0
        np.add.at(self.counts, (labels[has], predicted[has]), 1)

    @property
    def images(self) -> int:
        return int(self.counts.sum())

    @property
    def seen(self) -> int:
        """How many classes have a labelled image."""
        return int((self.counts.sum(axis=1) > 0).sum())

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.counts) / max(self.images, 1))

    @property
    def near_chance(self) -> bool:
        """Whether the accuracy is what guessing one class, or any, would give (three standard errors, at least 20
        images)."""
        n, c = self.images, len(self.counts)
        if n < 20 or c < 2:
            return False
        chance = 1 / c
        return self.accuracy <= chance + 3 * np.sqrt(chance * (1 - chance) / n)

    @property
    def hardly_better(self) -> bool:
        """Whether the accuracy is chance, or less than a tenth of the way from there to always right."""
        chance = 1 / len(self.counts)
        low = self.images >= 20 and len(self.counts) > 1 and (self.accuracy - chance) / (1 - chance) < BARELY
        return self.near_chance or low

    def reordered(self) -> tuple[float, list[tuple[int, int]]]:
        """Best accuracy over all one-to-one renamings of the labels, and the (label, output) pairs it changes."""
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(self.counts, maximize=True)
        moved = [(int(r), int(k)) for r, k in zip(rows, columns, strict=True) if r != k and self.counts[r, k]]
        return float(self.counts[rows, columns].sum() / max(self.images, 1)), moved


def class_order(
    images: Images, model: Model, class_names: Sequence[str] | None, *, which: str = "known"
) -> tuple[tuple[str, ...], np.ndarray | None]:
    """(names of the classifier's outputs, which output each label of the images is, [labels] or None: as they are).

    Raises LabelsError when the images' class names cannot be those of the classifier's outputs.
    """
    c = model.offers.classes
    if class_names is not None and list(class_names) == [str(k) for k in range(c)]:
        class_names = None  # numbers are no names: folders may say what the outputs are called
    outputs = tuple(class_names) if class_names is not None else model.class_names
    if outputs is not None and len(outputs) != c:
        if class_names is not None:
            raise LabelsError(f"{len(outputs)} class names were given; the classifier has {c} outputs.")
        outputs = None
    folders = images.class_names
    if not folders:
        return outputs or tuple(str(k) for k in range(c)), None
    if outputs is None:
        if len(folders) != c:
            some = ", ".join(folders[:5]) + ", …" * (len(folders) > 5)
            more = " Leave out the folders that are no class of it, or" if len(folders) > c else ""
            raise LabelsError(
                f"The {which} images have {len(folders)} classes ({some}), the classifier has {c} outputs.{more} "
                "Give class_names=[…], the names of its outputs in order; folders may then be any of them."
            )
        return tuple(folders), None
    index = {name.casefold(): k for k, name in enumerate(outputs)}
    absent = [name for name in folders if name.casefold() not in index]
    if not absent:
        return outputs, np.array([index[name.casefold()] for name in folders])
    if len(folders) == c and class_names is None:
        return tuple(folders), None  # other words for the same outputs: the accuracy tells whether in the same order
    called = ", ".join(outputs[:20]) + ", …" * (c > 20)
    numbered = outputs == tuple(map(str, range(c)))
    cure = "Give class_names=[…], their names in order" if numbered else "Rename or leave out such folders"
    raise LabelsError(
        f"No output of the classifier has the name of the class {absent[0]!r} of the {which} images "
        f"({len(absent)} such). The outputs are called: {called}. {cure}."
    )


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
    size = size_for(model, images, given)
    if given is not None:
        return given.sized(*size), (), [f"Preprocessing as given: {given.name or given}."]
    if model.preprocess is not None:
        said = model.preprocess.sized(*size)
        if not (doubt and images.labelled):
            return said, (), [_read(said)]
        return _doubted(model, images, said, order, batch_size, seed, progress)
    if not images.labelled:
        raise OptionError(
            "How this classifier wants its input is not known: the model does not say, and without labels the usual "
            "conventions cannot be compared. Give labels (or class sub-folders), or preprocess=knownot.Preprocess(…)."
        )
    sample = images.sample(TRIAL_IMAGES, seed)
    usual = candidates(model.input.channels or 3, *size)
    trials = _tried(model, sample, usual, order, batch_size, progress)
    if not trials[0][0].images:
        raise OptionError(
            f"How this classifier wants its input is not known, and none of {TRIAL_IMAGES} known images drawn at "
            "random has a label (-1 and None are none), so the usual conventions cannot be compared. Give labels, or "
            "preprocess=knownot.Preprocess(…)."
        )
    best = max(trials, key=lambda t: t[0].accuracy)
    if images.size != size:  # something is resized: also try the other way of doing it
        other = replace(best[0].preprocess, fit="stretch", name=best[0].preprocess.name + ", stretched")
        trials += _tried(model, sample, [other], order, batch_size, progress)
        best = max(trials, key=lambda t: t[0].accuracy)
    table = tuple(t for t, _ in trials)
    # Labels in another order can make a wrong convention look best: judge by the one that a renaming helps most.
    judge(max((c for _, c in trials), key=lambda c: c.reordered()[0]), sample.class_names, table, best[1].accuracy)
    judge(best[1], sample.class_names, table)
    others = ", ".join(f"{t.preprocess.name} {t.accuracy:.1%}" for t in table if t is not best[0])
    note = (
        f"Preprocessing found by accuracy on {best[0].images} labelled known images: {best[0].preprocess.name} "
        f"({best[0].accuracy:.1%}; {others})."
    )
    return best[0].preprocess, table, [note]


def _read(said: Preprocess) -> str:
    return f"Preprocessing read from the model: {said.name or said}."


def _doubted(
    model: Model,
    images: Images,
    said: Preprocess,
    order: np.ndarray | None,
    batch_size: int,
    seed: int,
    progress: bool,
) -> tuple[Preprocess, tuple[Trial, ...], list[str]]:
    """What `choose` returns for a model that says how it wants its input. Layers can say it wrongly: a network with a
    Rescaling layer that was trained on images scaled before, as happens by mistake, wants them scaled twice."""
    sample = images.sample(TRIAL_IMAGES, seed)
    ways = [said]
    if images.size != (said.height, said.width) and said.fit == "crop":
        ways.append(replace(said, fit="stretch", name=said.name + ", stretched"))
    trials = _tried(model, sample, ways, order, batch_size, progress)
    trial, first = max(trials, key=lambda t: t[0].accuracy)
    said = trial.preprocess
    if first.accuracy < SURELY and first.images >= 20:
        channels = model.input.channels or 3
        usual = candidates(channels, said.height, said.width) if channels in (1, 3) else ()
        others = [replace(p, fit=said.fit, resample=said.resample) for p in usual if _differs(p, said)]
        trials += _tried(model, sample, others, order, batch_size, progress)
    best, seen = max(trials, key=lambda t: t[0].accuracy)
    table, gain, n = tuple(t for t, _ in trials), best.accuracy - trial.accuracy, max(first.images, 1)
    error = np.sqrt(sum(t.accuracy * (1 - t.accuracy) for t in (best, trial)) / n)
    # Labels in another order make any way look wrong: the better one has to be better whatever the order.
    if gain <= max(CLEARLY, 3 * error) or seen.reordered()[0] <= first.reordered()[0]:
        return said, table, [_read(said)]
    judge(seen, sample.class_names, table)
    note = (
        f"The model says how it wants its input ({said.name or said}), but fed so it is right on "
        f"{trial.accuracy:.1%} of {n} labelled known images, and on {best.accuracy:.1%} as "
        f"{best.preprocess.name}: taken instead. (Were its images scaled before they met that layer in training, "
        "so that they were scaled twice?) With preprocess= you decide."
    )
    return best.preprocess, table, [note]


def _differs(a: Preprocess, b: Preprocess) -> bool:
    return a.channels == b.channels and (a.scale, a.mean, a.std) != (b.scale, b.mean, b.std)


def judge(
    confusion: Confusion,
    names: Sequence[str] | None,
    trials: Sequence[Trial] = (),
    accuracy: float | None = None,
    *,
    allow_low_accuracy: bool = False,
) -> None:
    """Raise LabelsError when labels and predictions do not belong together: another class order, chance level, or
    hardly better than that (unless allowed).

    accuracy: what a renaming has to beat, if not the accuracy of the labels as they are.
    """
    n, c = confusion.images, len(confusion.counts)
    if n < 20:
        return
    tried = "".join(f"\n  {t.preprocess.name or t.preprocess}: {t.accuracy:.1%}" for t in trials)
    tried = f" Tried:{tried}" if tried else ""
    better, moved = confusion.reordered() if n >= 10 * c else (0.0, [])

    def name(k: int) -> str:
        return repr(names[k]) if names and k < len(names) else str(k)

    beat = confusion.accuracy if accuracy is None else accuracy
    if better >= max(0.5, beat + max(0.08, min(1 / c, 0.3))) and len(moved) > 1:
        pairs = ", ".join(f"label {name(r)} is output {k}" for r, k in moved[:6])
        raise LabelsError(
            f"The labels are in another order than the classifier's outputs: accuracy {confusion.accuracy:.1%} on {n} "
            f"known images as they are, {better:.1%} when renamed ({pairs}{', …' if len(moved) > 6 else ''}). "
            f"Give class_names=[…], the names of the classifier's outputs in order.{tried}"
        )
    if confusion.hardly_better and accuracy is None and not allow_low_accuracy:
        much = "which is chance" if confusion.near_chance else "hardly better than chance"
        raise LabelsError(
            f"The classifier is right on {confusion.accuracy:.1%} of {n} labelled known images, {much} for "
            f"{c} classes: the labels do not match, or the images are preprocessed in another way than in training. "
            "Check the labels, or give preprocess=knownot.Preprocess(…). If it is as bad as that: "
            f"allow_low_accuracy=True (--allow-low-accuracy).{tried}"
        )


def _tried(
    model: Model,
    sample: Images,
    ways: Sequence[Preprocess],
    order: np.ndarray | None,
    batch_size: int,
    progress: bool,
) -> list[tuple[Trial, Confusion]]:
    found = []
    count = None if sample.count is None else sample.count * len(ways)
    with bar("how to feed it", count, progress) as advance:
        for way in ways:
            confusion = Confusion(model.offers.classes)
            for batch in sample.batches(batch_size, way, spec=model.input):
                if len(batch.x):
                    labels = in_order(batch.labels[batch.rows], order, model.offers.classes)
                    confusion.add(labels, np.argmax(model.activations(batch.x).logits, axis=1))
                advance(len(batch))
            found.append((Trial(way, confusion.accuracy, confusion.images), confusion))
    return found


def in_order(labels: np.ndarray, order: np.ndarray | None, classes: int) -> np.ndarray:
    """Labels as indices of the classifier's outputs, -1 kept. Raises LabelsError when out of range."""
    if len(labels) and labels.max() >= (len(order) if order is not None else classes):
        raise LabelsError(
            f"A label is {int(labels.max())}; the classifier has {classes} outputs, so labels are 0 to {classes - 1} "
            "(or -1 for images without one)."
        )
    return np.where(labels < 0, -1, labels if order is None else order[labels])


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

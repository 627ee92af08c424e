"""The one door: a classifier, known images and a remedy go in; a retrained classifier comes out, or a refusal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import check_fields, number, public
from ..arrays import Preprocess
from ..errors import ImagesError, LabelsError, ModelError, OptionError, UnsoundError, unknown_name
from ..fitting.extraction import batch_size_for
from ..fitting.labels import class_order
from ..fitting.preprocessing import choose
from ..images import Images, open_images
from ..models import Model, open_model
from .base import Outcome, Remedy, Settings, Task, chosen_mode
from .saved import Remedied
from .table import REMEDIES, remedy_class
from .training.batches import check_augment
from .training.data import Outliers, Pool, outliers_of, read
from .training.frameworks import check_trainable
from .training.memory import bytes_of

VALIDATION_SHARE, VALIDATION_MOST = 0.1, 2_000
SHARES = (0.8, 0.6, 0.4, 0.2, 0.1)  # of the way, tried in this order when all of it costs too much accuracy


@public
def retrain(
    remedy: str,
    model: Any,
    known: Any,
    labels: Any = None,
    *,
    outliers: Any = None,
    validation: Any = None,
    validation_labels: Any = None,
    tolerance: float | None = 0.005,
    interpolate: bool = True,
    mode: str | None = None,
    epochs: int | None = None,
    preprocess: Preprocess | None = None,
    class_names: Sequence[str] | None = None,
    head: str | None = None,
    stages: Sequence[str] | None = None,
    folder: str | Path | None = None,
    **options: Any,
) -> Remedied:
    """Retrain a classifier so that it knows what it does not know. The one given stays bit for bit as it was.

    Parameters
    ----------
    remedy : str
        A name of `REMEDIES`.
    model : ModelLike
        Anything that `open_model` opens and whose weights can be trained: a `keras.Model`, an `nn.Module`, or a
        .keras, .h5 or .pt2 file. Remedies beside the classifier take any model.
    known, labels
        As of `knownot.fit`; labels are needed.
    outliers : str or ImagesLike or list of both, optional
        "made:KINDS" (see `outliers.kinds_named`), or images of no class, or a list of both.
    validation : ImagesLike, optional
        Known images that the classifier was not trained on, with labels: the accuracy before and after is theirs.
        Without them a tenth of `known` (at most 2,000) is held out. The classifier may know these from its own
        training, so the accuracy before is then too high.
    validation_labels : LabelsLike, optional
        Their classes.
    tolerance : float or None, default 0.005
        By how much that accuracy may fall; None: by anything.
    interpolate : bool, default True
        When it falls by more, go back towards the classifier's own weights as far as it takes, but not the last tenth
        of the way (Wortsman et al. 2022, arXiv:2109.01903); False: refuse.
    mode : {"head", "full"}, optional
        Which weights are trained (see `Settings`); by default what is usual for the remedy.
    epochs : int, optional
        By default 2 ("full") or 20 ("head").
    preprocess, class_names, head, stages
        As of `knownot.fit`.
    folder : path, optional
        Where a training that is interrupted goes on from.
    **options
        Further fields of `Settings`, and those of the remedy.

    Returns
    -------
    Remedied

    Raises
    ------
    UnsoundError
        The accuracy falls by more than the tolerance all the same.
    InputError
        OptionError, ImagesError, LabelsError, ModelError: before anything is trained.
    """
    begin = time.perf_counter()
    kind = remedy_class(remedy)
    chosen, settings = _configured(kind, mode, epochs, folder, options)
    if tolerance is not None:
        number("tolerance", tolerance, 0, 1)
    if outliers is None and kind.outliers == "required":
        raise OptionError(f"{remedy} learns from outliers: give outliers=, images of no class or 'made:all'.")
    if outliers is not None and kind.outliers == "none":
        raise OptionError(f"{remedy} learns without outliers: leave out outliers=.")
    opened = open_model(model, head=head, stages=stages) if head or stages else open_model(model)
    if settings.mode not in kind.keeps:
        try:
            check_trainable(opened)  # before the first image is read
        except ModelError as error:
            others = ", ".join(repr(name) for name in REMEDIES if remedy_class(name).keeps)
            raise ModelError(f"{error} Beside any classifier, which stays as it is: {others}.") from None
    images = open_images(known, labels)
    held = None if validation is None else open_images(validation, validation_labels)
    task = prepared(opened, images, held, outliers, preprocess, class_names, settings)
    were = rights(opened, task.validation)
    outcome = chosen.retrain(task)
    taken = _accept_weights(outcome, task, were, tolerance, interpolate)
    if not taken.accepted:
        raise UnsoundError(_refusal(kind, task.settings, were, taken, tolerance))
    notes = [*task.notes, *outcome.notes]
    if taken.share < 1:
        notes.append(
            f"The weights went {taken.share:.0%} of the way from the classifier's own to those learnt: all the way, "
            f"the accuracy falls from {were.mean():.2%} to {taken.whole.mean():.2%}."
        )
    return Remedied(
        remedy=remedy, model=taken.model, opened=taken.opened, none_classes=outcome.none_classes,
        detector=outcome.detector or kind.detector, history=outcome.history, accuracy_before=float(were.mean()),
        accuracy_after=float(taken.are.mean()), accuracy_images=len(task.validation),
        validation_is_new=held is not None, seconds=time.perf_counter() - begin, class_names=task.names,
        options=_said(chosen) | _said(settings), notes=tuple(notes), share=taken.share,
    )  # fmt: skip


@dataclass(frozen=True)
class _Taken:
    """A model on the way from the classifier's own weights to those learnt. share: how far; are, whole: which
    validation images are right with it, and all the way, [n] bool; accepted: whether few enough became wrong."""

    model: Any
    opened: Model
    share: float
    are: np.ndarray
    whole: np.ndarray
    accepted: bool
    back: bool  # whether going back was tried, or would have been


def _accept_weights(
    outcome: Outcome, task: Task, were: np.ndarray, tolerance: float | None, interpolate: bool
) -> _Taken:
    """All the way if the accuracy allows it, else as far as it does; what was tried last if it never does."""
    back = SHARES if interpolate and tolerance is not None and outcome.at is not None else ()
    tried: list[np.ndarray] = []
    model, opened = outcome.model, task.opened
    for share in (1.0, *back):
        if share < 1:
            model = outcome.at(share)  # type: ignore[misc]
        if model is not None:
            opened = _reopen(model, outcome.none_classes, task)
        tried.append(were if model is None else rights(opened, task.validation))
        accepted = tolerance is None or float(tried[-1].mean()) >= float(were.mean()) - tolerance
        if accepted:
            break
    return _Taken(
        model=model, opened=opened, share=share, are=tried[-1], whole=tried[0], accepted=accepted, back=bool(back)
    )


def _refusal(kind: type[Remedy], settings: Settings, were: np.ndarray, taken: _Taken, tolerance: float | None) -> str:
    are = taken.whole
    worse, better = int((were & ~are).sum()), int((are & ~were).sum())
    return (
        f"{kind.name} lowers the accuracy on {len(were):,} known images from {were.mean():.2%} to {are.mean():.2%}, by "
        f"more than the tolerance of {100 * (tolerance or 0):g} points. So its outcome is refused ({worse} images "
        f"became wrong, {better} right). Give a smaller learning_rate (it was {settings.rate:g}), more "
        "known images, fewer epochs, a smaller ratio of outliers"
        + (", or mode='head'" if settings.mode == "full" and "head" in kind.modes else "")
        + "; or accept it with a larger tolerance=."
        + (f" A tenth of the way there it is {taken.are.mean():.2%}." if taken.back else "")
    )


def from_stream(model: Any, known: Any, labels: Any = None, *, wild: Any, **options: Any) -> Remedied:
    """`retrain("stream", …)`: learn from images that nobody has sorted, known and unknown ones among each other.

    wild: anything that `open_images` reads. options: of `retrain`, of `Stream` and of `Settings`.
    """
    return retrain("stream", model, known, labels, outliers=wild, **options)


def _reopen(model: Any, none_classes: int, task: Task) -> Model:
    """A retrained model, opened as the user's own was."""
    opened = task.opened
    sides = opened.input.height, opened.input.width
    asked = {"size": sides if all(sides) else None, **opened.opened_with, "none_classes": none_classes or None}
    again = open_model(model, **{name: x for name, x in asked.items() if x is not None})
    again.class_names, again.preprocess = task.names, task.known.way or opened.preprocess
    return again


def prepared(
    opened: Model,
    images: Images,
    held: Images | None,
    outliers: Any,
    preprocess: Preprocess | None,
    class_names: Sequence[str] | None,
    settings: Settings,
) -> Task:
    """Everything read and checked, nothing trained. Raises as `retrain` does."""
    if not images.labelled or (held is not None and not held.labelled):
        raise LabelsError("Training needs the class of each known image: give labels=, or class sub-folders.")
    names, order = class_order(images, opened, class_names)
    size = batch_size_for(opened, preprocess)
    way, _, found = choose(
        opened, images, preprocess, order, batch_size=size, seed=settings.seed, progress=settings.progress
    )
    if way is None and not (opened.input.height and opened.input.width) and images.size is None:
        raise ImagesError("The known images differ in size; training takes batches of one size.")
    spec, classes = opened.input, opened.capabilities.classes
    pool, unreadable = read(
        images, way, spec=spec, order=order, classes=classes, what="known", progress=settings.progress
    )
    pool, notes = _labelled(pool), [*opened.notes, *found, *_left_out(unreadable)]
    if held is None:
        most = min(VALIDATION_MOST, int(VALIDATION_SHARE * len(pool)))
        if most < 20:
            raise ImagesError(
                f"{len(pool)} known images are too few to hold some out for validation. Give more, or validation=."
            )
        rows = np.random.default_rng([settings.seed, 5]).permutation(len(pool))
        pool, validation = pool.take(np.sort(rows[most:])), pool.take(np.sort(rows[:most]))
        notes.append(
            f"No validation images were given: {most:,} known images were held out. If the classifier was trained on "
            "them, its accuracy before is higher than on new images, and seems to fall more. Give validation= images."
        )
    else:
        _, own = class_order(held, opened, names)
        validation, bad = read(
            held, way, spec=spec, order=own, classes=classes, what="validation", progress=settings.progress
        )
        validation, notes = _labelled(validation), [*notes, *_left_out(bad)]
    drawn: Outliers | None = None
    if outliers is not None:
        drawn = outliers_of(outliers, pool, spec=spec, progress=settings.progress)
        notes.append(f"Outliers: {drawn.words}, {settings.ratio:g} per known image.")
    return Task(
        opened=opened,
        known=pool,
        validation=validation,
        outliers=drawn,
        names=tuple(names),
        settings=settings,
        notes=tuple(notes),
    )


def rights(opened: Model, pool: Pool) -> np.ndarray:
    """Of which images the largest logit is that of their label, [n] bool."""
    predicted = [np.asarray(seen.logits).argmax(axis=1) for seen in pool.activations(opened)]
    right: np.ndarray = np.concatenate(predicted) == pool.labels
    return right


def _labelled(pool: Pool) -> Pool:
    has = pool.labels >= 0
    return pool if has.all() else pool.take(np.flatnonzero(has))


def _left_out(unreadable: list[tuple[str, str]]) -> list[str]:
    if not unreadable:
        return []
    return [f"Left out: {len(unreadable):,} unreadable images, the first: {': '.join(unreadable[0])}."]


def _configured(
    kind: type[Remedy], mode: str | None, epochs: int | None, folder: str | Path | None, options: dict[str, Any]
) -> tuple[Remedy, Settings]:
    """(the remedy, the settings) of options. Raises OptionError for an unknown one, or one out of range."""
    own = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    shared = {f.name for f in fields(Settings)} - own
    for name in options:
        if name not in own | shared:
            raise unknown_name(f"option of {kind.name}", name, own | shared)
    chosen = chosen_mode(kind, mode)
    settings = Settings(
        mode=chosen, epochs={"full": 2, "head": 20}[chosen] if epochs is None else epochs,
        folder=None if folder is None else Path(folder), **{n: x for n, x in options.items() if n in shared},
    )  # fmt: skip
    _check(settings)
    return kind(**{n: x for n, x in options.items() if n in own}), settings


def _check(settings: Settings) -> None:
    check_fields(settings)
    check_augment(settings.augment)
    number("epochs", settings.epochs, 1, 100_000, whole=True)
    number("batch_size", settings.batch_size, 2, 1_000_000, whole=True)
    number("ratio", settings.ratio, 0, 100)
    bytes_of(settings.memory)
    number("seed", settings.seed, 0, 2**32 - 1, whole=True)
    if settings.learning_rate is not None:
        number("learning_rate", settings.learning_rate, 0, 100)
    for name in ("patience", "save_every"):
        if getattr(settings, name) is not None:
            number(name, getattr(settings, name), 1, whole=True)


def _said(thing: Any) -> dict[str, Any]:
    return {f.name: getattr(thing, f.name) for f in fields(thing)}

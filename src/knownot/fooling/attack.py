"""Making images that fool a classifier: the function for users."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..arguments import number, one_of, public
from ..arrays import Preprocess, PreprocessLike
from ..errors import ModelError, OptionError, unknown_name
from ..fitting.extraction import batch_size_for, forward
from ..images.ways import as_preprocess
from ..models import Model, open_model
from ..openset.classifier import OpenSetClassifier
from ..progress import bar
from . import ascent, evolution
from .cppn import Cppn
from .objective import AttackObjective, log_odds
from .pixels import sized
from .prior import Prior
from .record import Fooling

METHODS = {"gradient": ascent.QUERIES, "evolution": evolution.QUERIES}  # {method: most queries per image, usually}
MOST = 64  # images in a batch


@public
def fool(
    classifier: Any,
    classes: Sequence[int | str] | int | str | None = None,
    count: int = 10,
    *,
    adaptive: bool = False,
    method: str = "auto",
    target: float = 0.99,
    queries: int | None = None,
    smoothness: float = 1.0,
    preprocess: PreprocessLike = None,
    seed: int = 0,
    progress: bool = False,
) -> Fooling:
    """Make images of nothing that the classifier is sure of, from noise alone (Nguyen, Yosinski & Clune, Deep Neural
    Networks are Easily Fooled, CVPR 2015, arXiv:1412.1897).

    No known image is looked at. The same seed gives the same images.

    Parameters
    ----------
    classifier : OpenSetClassifier or ModelLike
        An open-set classifier, or anything that `open_model` opens. Of an open-set classifier the detector's verdict on
        each image is reported too.
    classes : sequence of int or str, optional
        Which classes the images are made for, by number or name; all of them if left out.
    count : int, default 10
        Images, spread evenly over the classes.
    adaptive : bool, default False
        Whether the attacker knows the detector, and makes images that it accepts.
    method : {"auto", "gradient", "evolution"}, default "auto"
        "gradient" (white box): gradient ascent with a smooth image prior, through classifier and detector.
        "evolution" (black box): CMA-ES on smooth images, needs the package cma, and nothing of the classifier but its
        answers. "auto": gradient where the classifier has one.
    target : float, default 0.99
        The probability to reach, at least 0.5, of the image as a uint8 file.
    queries : int, optional
        Most images through the classifier for each image made; by default 600 for "gradient", 10,000 for "evolution".
    smoothness : float, default 1.0
        Of the images that "gradient" makes: spatial frequencies f are weighted by 1 / f^smoothness, 0 for pixel noise,
        1 as in photographs, 2 for blurs. It decides what the images look like, and how a detector sees them.
    preprocess : PreprocessLike, optional
        How raw images become the classifier's input, where neither classifier nor open-set classifier says.
    seed : int, default 0
        Of all that is random.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    Fooling
        What was reached, fooled or not.

    Raises
    ------
    OptionError
        An option is out of range, or a class is unknown.
    UnsoundError
        The gradient that is asked for is not there.
    MissingExtraError
        The package that a method needs is not there.

    Examples
    --------
    >>> osc = knownot.load("osc")
    >>> made = knownot.fool(osc, ["red"], count=2)
    >>> made.images.shape
    (2, 16, 16, 3)
    """
    begin = time.perf_counter()
    osc = classifier if isinstance(classifier, OpenSetClassifier) else None
    model = classifier.model if osc is not None else open_model(classifier)
    _check(model, osc, count, adaptive, method, target, queries, smoothness)
    names = _names(model, osc)
    wanted = np.resize(_numbers(classes, names, count), count)
    way = sized(
        _way(model, osc, as_preprocess(preprocess, channels=model.input.channels)),
        model.input,
        model.opened_with.get("size"),
    )
    objective = AttackObjective(model, way, target, osc if adaptive else None)
    if method == "auto":
        method = "gradient" if objective.differentiable else "evolution"
    if method == "gradient":
        objective.check_differentiable()
    attack: Any = {
        "gradient": partial(ascent.ascend, objective, Prior(*objective.chain.size, float(smoothness))),
        "evolution": partial(evolution.evolve, objective, Cppn(*objective.chain.size)),
    }[method]
    batch = min(batch_size_for(model, way, back=method == "gradient"), MOST)
    with bar("fool", count, progress) as advance:
        images, used = attack(wanted, queries=queries or METHODS[method], seed=seed, batch=batch, advance=advance)
    probability, accepted, p_value = _measured(model, osc, objective, images, wanted, batch)
    fooled = probability >= target
    if adaptive and accepted is not None:
        fooled &= accepted
    members = "" if osc is None else ", ".join(osc.detector.members)
    return Fooling(
        images=images,
        wanted=wanted,
        probability=probability,
        fooled=fooled,
        accepted=accepted,
        p_value=p_value,
        queries=used,
        class_names=names,
        method=method,
        adaptive=adaptive,
        target=float(target),
        seed=int(seed),
        seconds=time.perf_counter() - begin,
        detector=members,
    )


def _check(
    model: Model,
    osc: OpenSetClassifier | None,
    count: int,
    adaptive: bool,
    method: str,
    target: float,
    queries: int | None,
    smoothness: float,
) -> None:
    if not model.capabilities.classes:
        raise ModelError("This network was opened with embedding=True: it has no classes that it could be sure of.")
    number("count", count, 1, whole=True)
    number("target", target, 0.5, 1 - 1e-6)
    one_of("method", method, ("auto", *METHODS))
    one_of("adaptive", adaptive, (True, False))
    number("smoothness", smoothness, 0, 4)
    if queries is not None:
        number("queries", queries, 1, whole=True)
    if adaptive and osc is None:
        raise OptionError(
            "adaptive=True attacks a classifier and its detector together: give an open-set classifier, what "
            "knownot.fit or knownot.load returns."
        )


def _names(model: Model, osc: OpenSetClassifier | None) -> tuple[str, ...]:
    names = osc.class_names if osc is not None else model.class_names
    return tuple(names) if names else tuple(str(k) for k in range(model.capabilities.classes))


def _numbers(classes: Sequence[int | str] | int | str | None, names: tuple[str, ...], count: int) -> np.ndarray:
    if classes is None:
        return np.unique(np.rint(np.linspace(0, len(names) - 1, min(count, len(names)))).astype(np.int64))
    given = [classes] if isinstance(classes, str | int | np.integer) else list(classes)
    if not given:
        raise OptionError("classes=[]: expected at least one class, by number or name; leave it out for all.")
    return np.array([_number(one, names) for one in given], dtype=np.int64)


def _number(given: Any, names: tuple[str, ...]) -> int:
    if isinstance(given, str) and given in names:
        return names.index(given)
    if isinstance(given, str):
        if not given.isdigit():
            raise unknown_name("class", given, names)
        given = int(given)
    number("classes", given, 0, len(names) - 1, whole=True)
    return int(given)


def _way(model: Model, osc: OpenSetClassifier | None, given: Preprocess | None) -> Preprocess:
    """How uint8 images become the classifier's input. Raises OptionError when it is not known, or said twice."""
    if osc is not None and osc.preprocess is not None:
        if given is not None and given != osc.preprocess:
            raise OptionError("preprocess= was given, but the open-set classifier has one of its own: leave it out.")
        return osc.preprocess
    way = given or model.preprocess
    if way is None:
        raise OptionError(
            "How images become this classifier's input is not known, so images that fool it cannot be made. Give "
            "preprocess=knownot.Preprocess(…), or an open-set classifier fitted on raw images."
        )
    return way


def _measured(
    model: Model,
    osc: OpenSetClassifier | None,
    objective: AttackObjective,
    images: np.ndarray,
    wanted: np.ndarray,
    batch: int,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """(probability of the wanted class, accepted, p-value), each [n], as for any other image."""
    inputs = objective.chain.input(images)
    seen = forward(model, (inputs[i : i + batch] for i in range(0, len(images), batch)))
    odds = log_odds(np.concatenate([np.asarray(one.check().logits) for one in seen]), wanted)
    probability = (1 + np.tanh(odds / 2)) / 2  # the sigmoid, without overflow
    if osc is None:
        return probability, None, None
    verdicts = osc.predict(inputs if osc.preprocess is None else images, gallery=False)
    return probability, verdicts.label == wanted, verdicts.p_value

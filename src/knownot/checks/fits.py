"""What every detector promises of its fit on known images that are few, alike, or of a strange scale."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arrays import Activations, Head
from ..detectors import Recipe, to_namespace
from ..errors import KnownotError
from .problems import Problem, auroc, both, fitted, problem
from .toy import Toy


@dataclass(frozen=True)
class Strange:
    """A problem with a fit that is hard. tells: known and unknown are as easily told apart there as in the plain one,
    so that a detector has to work; elsewhere it may also refuse, with the reason."""

    made: Callable[[Problem], Problem]
    tells: bool


def vary(
    on: Problem, rows: Any = slice(None), *, scale: float = 1.0, surer: float = 1.0, constant: bool = False
) -> Problem:
    """The problem with only these training images, all that the network computes `scale` times as large (and the
    weights of its head as much smaller), its logits `surer` times as large, its first feature the same for all."""
    toy = on.model
    second = toy.second.copy()
    second[:, 0] *= not constant
    head = Head(toy.own.weight * (surer / scale), toy.own.bias * surer)
    made = Toy(
        first=toy.first * scale,
        second=second,
        head=head,
        capabilities=on.capabilities,
        dtype=toy.dtype,
        shift=toy.shift * scale,
    )
    inputs = {**on.inputs, "train": on.inputs["train"][rows]}

    def seen(x: np.ndarray, old: Activations) -> Activations:
        new = made.forward(x)
        means = {"first": new.stages["first"], "last": new.features}
        patterns = {name: x - x.mean(axis=(2, 3), keepdims=True) for name, x in old.maps.items()}
        maps = {name: patterns[name] * scale + mean[:, :, None, None] for name, mean in means.items()}
        return replace(old, logits=new.logits, features=new.features, stages=new.stages, maps=maps)

    old = {name: getattr(on, name) for name in inputs} | {"train": on.train.take(rows)}
    sets: dict[str, Any] = {name: seen(x, old[name]) for name, x in inputs.items()}
    return replace(on, head=head, model=made, inputs=inputs, labels=on.labels[rows], **sets)


def _of_each_class(on: Problem, count: int) -> np.ndarray:
    return np.concatenate([np.flatnonzero(on.labels == k)[:count] for k in range(on.capabilities.classes)])


STRANGE: dict[str, Strange] = {
    "one_image_per_class": Strange(lambda on: vary(on, _of_each_class(on, 1)), False),
    "each_image_many_times": Strange(lambda on: vary(on, np.repeat(_of_each_class(on, 2), 30)), False),
    "more_features_than_images": Strange(lambda on: vary(on, _of_each_class(on, 4)), False),
    "a_constant_feature": Strange(lambda on: vary(on, constant=True), True),
    "two_classes": Strange(lambda on: problem(classes=2, dtype=on.model.dtype), True),
    "large_features": Strange(lambda on: vary(on, scale=1e6), True),
    "small_features": Strange(lambda on: vary(on, scale=1e-6), True),
    "large_logits": Strange(lambda on: vary(on, surer=1e6), False),
    "small_logits": Strange(lambda on: vary(on, surer=1e-6), False),
}


def _check(strange: Strange) -> Callable[[Recipe, Problem], None]:
    def check(recipe: Recipe, on: Problem) -> None:
        hard = strange.made(on)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an overflow that the result does not show
            try:
                detector = fitted(recipe, hard)
            except KnownotError as error:
                if strange.tells or not str(error):
                    raise AssertionError(f"refused: {error or 'without a reason'}") from error
                return
            hard = hard.shown(detector.passes)
            for dtype in (np.float64, np.float32):
                given = Activations.of({path: x.astype(dtype) for path, x in both(hard).named().items()})
                score = np.asarray(to_namespace(detector, np, dtype).score(given))
                bad = int((~np.isfinite(score)).sum())
                assert not bad, f"{bad} of {len(score)} scores are NaN or infinite ({np.dtype(dtype)})"
                found = auroc(score[: len(hard.known)], score[len(hard.known) :])
                assert found > 0.8 or not strange.tells, f"AUROC {found:.3f} ({np.dtype(dtype)})"

    return check


FIT_CHECKS: dict[str, Callable[[Recipe, Problem], None]] = {
    f"fitted_on_{name}": _check(strange) for name, strange in STRANGE.items()
}

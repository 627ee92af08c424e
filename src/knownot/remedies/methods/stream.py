"""From the stream: unlabelled images that the deployed classifier sees, known and unknown ones among each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...arguments import number, one_of
from ...arrays import Activations
from ...detectors import resolve, to_namespace
from ...errors import ImagesError, UnsoundError
from ...fitting.many import fitted_on, measured_on
from ..base import Outcome, Task
from ..training.activations import Seen, look, places_of
from ..training.gradients import LastLayer
from .none_head import SAME, Beside, as_detector, is_unknown, learnt

FEWEST = 20
CHUNK = 1024


@dataclass(frozen=True)
class Stream(Beside):
    r"""Du, Fang, Diakonikolas & Li, How Does Unlabeled Data Provably Help OOD Detection?, ICLR 2024 (SAL).

        1. filter: candidates are the wild images with tau(x) > T, T the value that `kept` of the validation images,
           known and new to the classifier, stay below
        2. train a discriminator of the known images from the candidates (see `discriminator`)

    Some candidates are known images, about 1 - kept of those in the mixture: known images outnumber them on the other
    side, so the discriminator learns what is common to the rest.

    filter: "gradient", the paper's: tau = <g(x) - mean over known of g, v>^2, with g the gradient of -log p(y | x) for
    the last layer, y the label or else the predicted class, and v the top singular vector of those of the wild images;
    or "default": tau is the score of the default detectors, which finds far more of the unknown
    (docs/results/measured.md). The wild images are given as outliers=. Calibrate on other images than these and the
    validation images.
    """

    filter: str = "default"
    kept: float = 0.95

    name = "stream"
    paper = "Du et al. 2024, arXiv:2402.03502"
    summary = "a discriminator learnt from unlabelled images of the stream, filtered first; the classifier stays"

    def retrain(self, task: Task) -> Outcome:
        hidden, places = self.settled(task)
        one_of("filter", self.filter, tuple(FILTERS))
        number("kept", self.kept, 0.5, 1)
        needed = places_of(task.opened) if self.filter == "default" else ("features",)
        seen = look(task, tuple(dict.fromkeys([*places, *needed, "logits"])))
        validation, wild = FILTERS[self.filter](task, seen)
        threshold = float(np.quantile(validation, self.kept, method="higher"))
        chosen = wild > threshold
        note = f"{int(chosen.sum()):,} of {len(wild):,} images of the stream were taken for candidates of the unknown."
        if chosen.sum() < FEWEST:
            raise ImagesError(
                f"{note} {FEWEST} are needed. Give more images of the stream, or, if it has no unknown images, none: "
                "then there is nothing to learn from it."
            )
        found = {place: rows[chosen] for place, rows in (seen.outliers or {}).items()}
        seen = Seen(seen.known, seen.labels, seen.validation, found)
        net, history, mean, std = learnt(self, task, seen, places, hidden, is_unknown(seen))
        return Outcome(detector=as_detector(net, mean, std, places), history=history, notes=(SAME, note))


def by_gradient(task: Task, seen: Seen) -> tuple[np.ndarray, np.ndarray]:
    """(tau of validation images, of wild ones)."""
    if "features" not in task.opened.capabilities.outputs:
        raise UnsoundError("filter='gradient' reads features, which this classifier does not show: filter='default'.")

    def of(part: dict[str, Any], labels: np.ndarray | None = None, less: np.ndarray | None = None) -> LastLayer:
        closed = np.argmax(part["logits"], axis=1) if labels is None else labels
        return LastLayer.of(part["features"], part["logits"], closed, less)

    known = of(dict(seen.known), seen.labels).mean()
    wild, validation = (of(dict(part), None, known) for part in (seen.outliers or {}, seen.validation))
    v = wild.direction(task.settings.seed)
    return validation.times(v) ** 2, wild.times(v) ** 2


def by_default(task: Task, seen: Seen) -> tuple[np.ndarray, np.ndarray]:
    """(scores of validation images, of wild ones) by the default detectors, fitted on the known ones.

    Their members are ranked on the same validation images: no guarantee rests on the threshold.
    """
    recipe, _ = resolve("default", task.opened.capabilities)
    known = activations(seen.known)
    cuts = [slice(i, i + CHUNK) for i in range(0, len(known), CHUNK)]
    (detector,) = fitted_on([recipe], [(known.take(cut), seen.labels[cut]) for cut in cuts], task.opened)
    member_scores = [
        measured_on([detector], [activations(part)])[0][0] for part in (seen.validation, seen.outliers or {})
    ]
    ranked = to_namespace(detector.fit_reference(member_scores[0]), np, np.float32)
    validation, wild = (np.asarray(ranked.combine(part)) for part in member_scores)
    return validation, wild


FILTERS = {"default": by_default, "gradient": by_gradient}


def activations(part: Any) -> Activations:
    """As detectors read them; "logits" are log probabilities here, the logits up to a constant."""
    return Activations.of(dict(part))

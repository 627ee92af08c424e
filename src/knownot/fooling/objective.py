"""What an attacker sees: the classifier's answers to uint8 images, the detector's if there is one, and slopes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..arrays import Activations, Preprocess, softmax
from ..detectors.formulas import logsumexp
from ..detectors.passes import with_extra_passes
from ..detectors.reducing import reducing
from ..errors import ActivationsError, MissingExtraError, UnsoundError
from ..fitting.extraction import run_batch
from ..images.base import Batch
from ..models import Model
from ..openset.classifier import OpenSetClassifier
from .guard import DetectorConstraint
from .pixels import PixelPipeline

DAMP = 10.0  # nats of suspicion from which on they count less and less
ROUNDING = 1e-3  # of log-odds: another batch size may compute a little less
SPARE = 0.5  # log-odds above the target that a class is pushed to


@dataclass(frozen=True)
class Seen:
    """Of n images. done: everything wanted is reached. merit: larger is better, for comparing those that are not."""

    inputs: tuple[np.ndarray, ...]  # the classifier's, and the second network's if there is one, NHWC
    activations: Activations
    log_odds: np.ndarray  # [n] float64, of the wanted class
    enough: np.ndarray  # [n] bool: the wanted class is as probable as wanted
    easy: np.ndarray  # [n] bool: accepted by the detector with something to spare; all True without one
    done: np.ndarray  # [n] bool
    merit: np.ndarray  # [n] float64


@dataclass(frozen=True)
class View:
    """A network that looks. prefix: of the paths of what it shows; size: of the images."""

    prefix: str
    model: Model
    chain: PixelPipeline
    size: tuple[int, int]

    @property
    def paths(self) -> tuple[str, ...]:
        """Those with slopes down to the pixels; none where images are resampled for it."""
        return tuple(self.prefix + path for path in self.model.gradients) if self.chain.size == self.size else ()

    def back(self, x: np.ndarray, toward: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """The slope with respect to pixels, [n, h, w, 3]; None where nothing of `toward` is this network's."""
        own = {p.removeprefix(self.prefix): np.asarray(toward[p], np.float32) for p in self.paths if p in toward}
        return self.chain.back(self.model.gradient(self.model.input.to_layout(x), own)) if own else None


class AttackObjective:
    """target: the probability wanted. guard: the detector that has to accept too, or None."""

    def __init__(self, model: Model, way: Preprocess, target: float, osc: OpenSetClassifier | None) -> None:
        self.chain, self.looking = PixelPipeline(way, model.input), model
        self.guard = None if osc is None else DetectorConstraint(osc)
        self.second = None if osc is None else osc.second
        self.views = [View("", model, self.chain, self.chain.size)]
        if osc is not None:
            self.looking = with_extra_passes(
                reducing(model, osc.detector.map_reductions), osc.detector.passes, osc.preprocess
            )
            if osc.second is not None:
                other = PixelPipeline(osc.second.preprocess or way, osc.second.model.input)
                self.views.append(View("second/", osc.second.model, other, self.chain.size))
        self.target = float(np.log(target) - np.log1p(-target)) + ROUNDING

    def check_differentiable(self) -> None:
        """Raise UnsoundError, saying why, where slopes of the classifier or of the detector cannot be had."""
        try:
            self.views[0].model.shows_or_raise("gradient")
        except UnsoundError as error:
            raise UnsoundError(f"{error} Here: method='evolution'.") from None
        if self.guard is not None:
            h, w = self.chain.size
            noise = np.random.default_rng(0).integers(0, 256, (2, h, w, 3), dtype=np.uint8)
            found = self.guard.pull(self.look(noise, np.zeros(2, np.int64)).activations, self._paths)
            if not any(pull.any() for pull in found.values()):
                raise UnsoundError(
                    "The detector's score cannot be differentiated: it reads what gradients do not reach (extra "
                    "passes, raw maps, or a network without gradients). Attack it without: method='evolution'."
                )

    @property
    def differentiable(self) -> bool:
        try:
            self.check_differentiable()
        except (UnsoundError, MissingExtraError):
            return False
        return True

    @property
    def _paths(self) -> tuple[str, ...]:
        return tuple(path for view in self.views for path in view.paths)

    def look(self, images: np.ndarray, wanted: np.ndarray) -> Seen:
        """images: uint8 [n, h, w, 3]; wanted: [n] classes."""
        n = len(images)
        inputs = tuple(view.chain.input(images) for view in self.views)
        batch = Batch(
            ids=[""] * n, x=inputs[0], rows=np.arange(n), labels=np.full(n, -1), errors=[None] * n, also=inputs[-1]
        )
        activations, fine, errors = run_batch(self.looking, batch, self.second)
        if len(fine) < n:
            raise ActivationsError(f"An image cannot be judged: {next(e for e in errors if e)}.")
        odds = log_odds(activations.logits, wanted)
        enough = odds >= self.target
        merit = np.minimum(odds, self.target + SPARE)
        if self.guard is None:
            return Seen(
                inputs=inputs,
                activations=activations,
                log_odds=odds,
                enough=enough,
                easy=np.ones(n, bool),
                done=enough,
                merit=merit,
            )
        accepted, easy, suspicion = self.guard.judge(activations)
        penalty = np.where(easy, 0.0, DAMP * np.log1p(suspicion / DAMP))
        return Seen(
            inputs=inputs,
            activations=activations,
            log_odds=odds,
            enough=enough,
            easy=easy,
            done=enough & accepted,
            merit=merit - penalty,
        )

    def slopes(self, seen: Seen, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(the way up [n, h, w, 3], how many passes back it took for each image [n]).

        Up is more log-odds while they are too small, and towards acceptance while the wanted class leads but is
        rejected (before, the detector would defend the class that leads). Where both, each counts as much.
        """
        short = seen.log_odds < self.target + SPARE
        ways = [(short, {"logits": _odds_slope(seen.activations.logits, wanted)})]
        if self.guard is not None:
            rejected = ~seen.easy & (seen.log_odds > 0)
            if rejected.any():
                ways.append((rejected, self.guard.pull(seen.activations, self._paths)))
        total = np.zeros((len(wanted), *self.chain.size, 3))
        for rows, toward in ways:
            if rows.any():
                total += _unit(self._back(seen, {path: x * rows[:, None] for path, x in toward.items()}))
        return total, np.sum([rows for rows, _ in ways], axis=0)

    def _back(self, seen: Seen, toward: Mapping[str, np.ndarray]) -> np.ndarray:
        found = [view.back(x, toward) for view, x in zip(self.views, seen.inputs, strict=True)]
        return np.sum([slope for slope in found if slope is not None], axis=0)


def _unit(slope: np.ndarray) -> np.ndarray:
    """Each image's slope with a mean square of 1; one that is zero stays so."""
    size = np.sqrt(np.mean(slope**2, axis=(1, 2, 3), keepdims=True))
    return slope / np.where(size > 0, size, 1)


def log_odds(logits: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of the wanted class, [n] float64; nothing cancels when p is near 1."""
    z = np.array(logits, np.float64)
    rows = np.arange(len(z))
    own = z[rows, wanted].copy()
    z[rows, wanted] = -np.inf
    return own - np.asarray(logsumexp(z))


def _odds_slope(logits: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Its derivative with respect to the logits, [n, c]."""
    z = np.array(logits, np.float64)
    rows = np.arange(len(z))
    z[rows, wanted] = -np.inf
    slope = -np.asarray(softmax(z))
    slope[rows, wanted] = 1.0
    return slope

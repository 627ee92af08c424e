"""The pass over known images: every detector is fitted on it, and those held out (or calibration images) calibrate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..arrays import Preprocess
from ..calibration import images_needed
from ..detectors import Detector, Recipe
from ..errors import CalibrationError
from ..fitting.extraction import Extractor, HoldOut, Subsample
from ..fitting.many import CalibratedDetector, decide, fitted_on, measured_on
from ..images import Images
from ..models import Model
from ..selection.choice import choose, enough, watch
from .helping import GUARANTEE
from .look import Seen, look

DELTA = 0.01  # plays no part in the marginal guarantee


@dataclass
class Known:
    """What the pass is over, and what it gave."""

    model: Model
    images: Images
    held: Images | None  # calibration images
    orders: tuple[np.ndarray | None, np.ndarray | None]  # which output each label is, of both
    way: Preprocess | None
    size: int
    alpha: float
    seed: int
    progress: bool
    watch: Subsample = field(init=False)  # some of those that calibrate
    seen: Seen = field(init=False)
    new: Seen | None = field(init=False, default=None)  # of calibration images
    rules: dict[str, CalibratedDetector] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    why_none: str = ""  # why there are no rules at all

    def __post_init__(self) -> None:
        classes = self.model.offers.classes
        self.watch, self.seen = watch(self.seed), Seen(classes)
        self.new = None if self.held is None else Seen(classes)

    @property
    def needed(self) -> int:
        return images_needed(self.alpha, guarantee=GUARANTEE)

    def passed(self, recipes: Mapping[str, Recipe], timed: Callable[[str], Any]) -> None:
        """Walk over known images, fit, calibrate. A detector that cannot be had is left out with its reason."""
        hold = None
        if self.held is None:
            try:
                hold = self._hold(recipes)
            except CalibrationError as error:
                self.why_none, recipes = str(error), {}
        refused: dict[int, str] = {}
        with timed("known images"):
            walk = look(
                self.model, self.way, self.images, "known", self.seen, size=self.size, order=self.orders[0], hold=hold,
                watch=self.watch if self.held is None else None, progress=self.progress,
            )  # fmt: skip
            offers = replace(self.model.offers, labels=self.images.labelled)
            fitted = fitted_on(list(recipes.values()), walk, self.model, offers, refused)
            for _ in walk:  # without detectors nobody has walked yet
                pass
        self.left_out |= {name: refused[i] for i, name in enumerate(recipes) if i in refused}
        kept = {name: recipe for i, (name, recipe) in enumerate(recipes.items()) if i not in refused}
        with timed("calibration"):
            parts, predicted, numbers = self._scores(fitted, hold)
            for (name, recipe), detector, mine in zip(kept.items(), fitted, parts, strict=True):
                try:
                    self.rules[name] = self._decided(name, detector, recipe, mine, predicted, numbers)
                except CalibrationError as error:
                    self.left_out[name] = str(error)
        if not self.rules and not self.why_none:
            self.why_none = "; ".join(f"{name}: {why}" for name, why in self.left_out.items())

    def _hold(self, recipes: Mapping[str, Recipe]) -> HoldOut:
        count = self.images.count
        want = self.needed + 10 * any(r.kind.ranks for r in recipes.values())
        if any(r.kind.chooses for r in recipes.values()) and (count is None or enough(self.needed) <= count // 2):
            want = max(want, enough(self.needed))
        return HoldOut(count, want, self.seed, self.alpha, DELTA, GUARANTEE)

    def _scores(self, fitted: list[Detector], hold: HoldOut | None) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """(scores of each detector's members, classes, random numbers) of the images that calibrate."""
        if self.held is not None and self.new is not None:
            walk = look(
                self.model, self.way, self.held, "calibration", self.new, size=self.size, order=self.orders[1],
                watch=self.watch, progress=self.progress,
            )  # fmt: skip
            return (*measured_on(fitted, (a for a, _ in walk)), self.watch.numbers)
        if hold is None or not hold.kept:
            return [np.empty((0, len(d.members))) for d in fitted], np.empty(0, np.int64), np.empty(0)
        return (*measured_on(fitted, [hold.activations()]), hold.numbers)

    def _decided(
        self, name: str, detector: Any, recipe: Recipe, parts: np.ndarray, predicted: np.ndarray, numbers: np.ndarray
    ) -> CalibratedDetector:
        evidence = 0
        if detector.chooses and len(parts):
            walk = Extractor(self.model, self.way, self.size, 0, self.seed, False)
            offers = replace(self.model.offers, labels=self.images.labelled)
            chosen = choose(
                detector, recipe, parts, numbers, self.watch, walk=walk, offers=offers, needed=self.needed,
                seed=self.seed,
            )  # fmt: skip
            self.notes.append(f"{name}: {chosen.note}")
            detector, parts, evidence = chosen.detector, chosen.parts, chosen.evidence
        return decide(
            detector, parts, predicted, alpha=self.alpha, guarantee=GUARANTEE, delta=DELTA, seed=self.seed,
            numbers=numbers, evidence=evidence,
        )  # fmt: skip

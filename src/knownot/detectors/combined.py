from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ..arrays import Activations, Array, Head, Offers
from ..errors import ActivationsError, CalibrationError, OptionError, UnsoundError
from ..stats import Want, one_blas_thread
from .base import Detector, Recipe
from .gen import GEN
from .knn import KNN
from .mahalanobis import Mahalanobis
from .passes import Pass, each_once


@dataclass(frozen=True)
class Combined(Detector):
    r"""Several detectors as one: the sum of minus the log of their p-values (Fisher 1932).

        score(x) = sum over members m of -w_m log((1 + #{r in reference_m : r >= score_m(x)}) / (len(reference_m) + 1))

    reference_m: the scores of known images that are new to the classifier, from `rank`; until then there is no score.
    The images that calibrate the sum have to be others than those, or its false-alarm rate is not guaranteed.
    Members need not be independent for that: the sum is calibrated itself. Weights w (Good 1955) are 1 unless given.

    members: {name: recipe}; None stands for `default_recipe`.
    """

    detectors: tuple[Detector, ...]
    names: tuple[str, ...]
    references: tuple[Array, ...] = ()  # one [r] each, ascending
    weights: tuple[float, ...] = ()  # of each member in the sum; none: all 1

    ranks = True
    needs = frozenset({"probabilities"})
    paper = "Fisher 1932; members as listed"
    summary = "GEN, KNN and Mahalanobis++ on features and earlier stages, their p-values combined"

    @classmethod
    def settle(cls, recipe: Recipe, offers: Offers) -> tuple[Recipe, list[str]]:
        given: Mapping[str, Recipe] | None = recipe.options.get("members")
        if given is None:
            return default_recipe(offers)
        recipes = list(given.values()) if isinstance(given, Mapping) else []
        if not recipes or not all(isinstance(r, Recipe) and issubclass(r.kind, Detector) for r in recipes):
            raise OptionError(f"members={given!r}: expected {{name: recipe of a detector}}, at least one.")
        choosing = [name for name, member in given.items() if member.kind.chooses]
        if len(choosing) > 1:
            raise OptionError(
                f"{' and '.join(map(repr, choosing))} both choose members by themselves: give one of them."
            )
        if choosing and len(given) == 1:
            return given[choosing[0]].settled(offers)
        if choosing:
            others = {name: member for name, member in given.items() if name not in choosing}
            alone, said = cls.settle(recipe.with_options(members=others), offers)
            starting, notes = given[choosing[0]].kind.beside(given[choosing[0]], alone.options["members"], offers)
            return starting, [*notes, *said]
        members: dict[str, Recipe] = {}
        notes = []
        for name, member in given.items():
            member, said = member.settled(offers)
            notes += said
            # A combination among the members joins with its own members: sums of sums are one sum.
            inside = member.options["members"] if issubclass(member.kind, Combined) else {name: member}
            twice = members.keys() & inside.keys()
            if twice:
                raise OptionError(f"The detector {min(twice)!r} is there twice; give each once.")
            members |= inside
        return recipe.with_options(members=members), notes

    @classmethod
    def wants(cls, offers: Offers, *, members: Mapping[str, Recipe] | None = None) -> dict[str, Want]:
        return {
            f"{name}: {key}": want
            for name, recipe in (members or {}).items()
            for key, want in recipe.wants(offers).items()
        }

    @classmethod
    def fit(cls, seen: Mapping[str, Any], head: Head | None, *, members: Mapping[str, Recipe] | None = None) -> Self:
        fitted = []
        for name, recipe in (members or {}).items():
            own = {key.removeprefix(f"{name}: "): x for key, x in seen.items() if key.startswith(f"{name}: ")}
            try:
                fitted.append(recipe.kind.fit(own, head, **recipe.options))
            except UnsoundError as error:
                raise UnsoundError(f"{name}, a member of the combination: {error}") from error
        return cls(tuple(fitted), tuple(members or {}))

    @property
    def members(self) -> tuple[str, ...]:
        return self.names

    @property
    def passes(self) -> tuple[Pass, ...]:
        return each_once(one for detector in self.detectors for one in detector.passes)

    def parts(self, batch: Activations) -> Array:
        xp, batch = array_namespace(batch.logits), batch.sharing()
        with one_blas_thread():
            return xp.stack([detector.score(batch) for detector in self.detectors], axis=1)

    def rank(self, parts: np.ndarray) -> Self:
        parts = np.asarray(parts, dtype=np.float64)
        if parts.ndim != 2 or parts.shape[1] != len(self.names):
            raise OptionError(f"parts of shape {parts.shape}: expected [n, {len(self.names)}], a column per member.")
        if not len(parts):
            raise CalibrationError(
                "A combination of detectors is ranked on known images new to the classifier: give some."
            )
        if not np.isfinite(parts).all():
            column = int(np.argmax(~np.isfinite(parts).all(axis=0)))
            raise ActivationsError(f"Scores of {self.names[column]!r} are not finite for some of the known images.")
        return replace(self, references=tuple(np.sort(column) for column in parts.T))

    def join(self, parts: Array) -> Array:
        if not self.references:
            raise CalibrationError(
                "This combination of detectors has not been ranked, so its members' scores cannot be compared. "
                "First: detector = detector.rank(detector.parts(activations of known images new to the classifier))."
            )
        xp = array_namespace(parts)
        total = xp.zeros_like(parts[:, 0])
        for i, reference in enumerate(self.references):
            r = reference.shape[0]
            column = xp.asarray(parts[:, i], copy=True)  # contiguous, which torch wants
            below = xp.searchsorted(reference, column, side="left")
            surprise = -xp.log((1 + r - xp.astype(below, parts.dtype)) / (r + 1))
            total = total + (self.weights[i] * surprise if self.weights else surprise)
        return total

    def score(self, batch: Activations) -> Array:
        return self.join(self.parts(batch))


def default_recipe(offers: Offers) -> tuple[Recipe, list[str]]:
    """The combination that "default" stands for on this classifier, and a sentence for each thing left out.

    GEN; KNN and Mahalanobis++ of the features; Mahalanobis++ of each earlier stage; the same of a second network, if
    there is one. Measured best over networks and
    unknown sets among all detectors here, without choosing by unknown images.
    """
    members = {"gen": Recipe(GEN)}
    notes = []
    if "features" in offers.kinds:
        members |= {"knn": Recipe(KNN), "mahalanobis++": Recipe(Mahalanobis, {"unit": True})}
    else:
        notes.append("The classifier shows no features, so KNN and Mahalanobis++ on them are left out.")
    stages = offers.stages if "stages" in offers.kinds else ()
    for name in stages:
        members[f"mahalanobis++ {name}"] = Recipe(Mahalanobis, {"unit": True, "of": f"stages/{name}"})
    if not stages:
        notes.append("No earlier stages were found in the classifier, so Mahalanobis++ on them is left out.")
    for path in offers.second:
        name = path.removeprefix("second/").removeprefix("features").removeprefix("stages/")
        if not name:
            members["second knn"] = Recipe(KNN, {"of": path})
        members[f"second mahalanobis++ {name}".rstrip()] = Recipe(Mahalanobis, {"unit": True, "of": path})
    if len(members) == 1:
        return members["gen"], [*notes, "Only GEN is left: it reads nothing but the probabilities."]
    return Recipe(Combined, {"members": members}), notes

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace, device

from ..arrays import Activations, Array, Capabilities, Head
from ..errors import ActivationsError, CalibrationError, OptionError, UnsoundError
from ..stats import StatisticRequest, one_blas_thread, raised
from .base import Detector, Recipe, number
from .methods.fdbd import FDBD
from .methods.gen import GEN
from .methods.knn import KNN
from .methods.mahalanobis import Mahalanobis
from .methods.msp import MSP
from .passes import Pass, each_once

FARTHEST = 1e6  # nats of a tail, so that a sum of them stays a number in float32


@dataclass(frozen=True)
class Combined(Detector):
    r"""Several detectors as one: the sum of minus the log of their p-values (Fisher 1932).

        score(x) = sum over members m of -w_m log((1 + #{r in reference_m : r >= score_m(x)}) / (len(reference_m) + 1))

    reference_m: the scores of known images that are new to the classifier, from `fit_reference`, raised by what
    rounding may add (`stats.raised`), so that no count depends on the size of a batch; until then there is no score.
    Beyond the largest reference, where counting ends, p goes on as an exponential tail (Pickands 1975, shape 0):

        -log p = log(len(reference_m) + 1) + rate_m (score_m(x) - max reference_m)

    1 / rate_m: mean excess of the largest tenth of reference_m. So what is far from all known images for one member is
    not outvoted by members that see nothing strange in it, however few images ranked them.
    The images that calibrate the sum have to be others than those, or its false-alarm rate is not guaranteed.
    Members need not be independent for that: the sum is calibrated itself. Weights w (Good 1955) are 1 unless given.

    members: {name: recipe}; None stands for `default_recipe`.
    weights: {name: weight > 0} of some members in the sum, 1 for the others.
    """

    detectors: tuple[Detector, ...]
    names: tuple[str, ...]
    references: tuple[Array, ...] = ()  # one [r] each, ascending, raised
    weights: tuple[float, ...] = ()  # of each member in the sum; none: all 1
    rates: tuple[float, ...] = ()  # of each member's tail, 0 where it has none; none: no tails

    needs_reference = True
    needs = frozenset({"probabilities"})
    paper = "Fisher 1932; members as listed"
    summary = "GEN, MSP, fDBD, KNN, and Mahalanobis++ on features and stages, their p-values combined"

    @classmethod
    def resolve_defaults(cls, recipe: Recipe, capabilities: Capabilities) -> tuple[Recipe, list[str]]:
        given: Mapping[str, Recipe] | None = recipe.options.get("members")
        if given is None:
            return default_recipe(capabilities)
        recipes = list(given.values()) if isinstance(given, Mapping) else []
        if not recipes or not all(isinstance(r, Recipe) and issubclass(r.kind, Detector) for r in recipes):
            raise OptionError(f"members={given!r}: expected {{name: recipe of a detector}}, at least one.")
        given_weights = cls._checked_weights(recipe.options.get("weights"), given)
        choosing = [name for name, member in given.items() if member.kind.chooses]
        if len(choosing) > 1:
            raise OptionError(
                f"{' and '.join(map(repr, choosing))} both choose members by themselves: give one of them."
            )
        if choosing and len(given) == 1:
            return given[choosing[0]].settled(capabilities)
        if choosing:
            others = {name: member for name, member in given.items() if name not in choosing}
            own_weights = {name: weight for name, weight in given_weights.items() if name in others} or None
            alone, said = cls.resolve_defaults(Recipe(cls, {"members": others, "weights": own_weights}), capabilities)
            counts = alone.options["weights"] or {}
            starting, notes = given[choosing[0]].kind.beside(
                given[choosing[0]], alone.options["members"], counts, capabilities
            )
            return starting, [*notes, *said]
        members: dict[str, Recipe] = {}
        weights: dict[str, float] = {}
        notes = []
        for name, member in given.items():
            member, said = member.settled(capabilities)
            notes += said
            # A combination among the members joins with its own members: sums of sums are one sum.
            joins = issubclass(member.kind, Combined)
            inside = member.options["members"] if joins else {name: member}
            twice = members.keys() & inside.keys()
            if twice:
                raise OptionError(f"The detector {min(twice)!r} is there twice; give each once.")
            members |= inside
            own = (member.options.get("weights") or {}) if joins else {}
            weights |= {key: given_weights.get(name, 1.0) * own.get(key, 1.0) for key in inside}
        return recipe.with_options(members=members, weights=weights if set(weights.values()) != {1.0} else None), notes

    @staticmethod
    def _checked_weights(weights: Any, members: Mapping[str, Recipe]) -> Mapping[str, float]:
        """Raises OptionError unless it is None or {name of a member: finite number above 0}."""
        if weights is None:
            return {}
        if not isinstance(weights, Mapping) or not weights.keys() <= members.keys():
            raise OptionError(f"weights={weights!r}: expected {{name of a member: weight}} of {', '.join(members)}.")
        for name, weight in weights.items():
            number(f"weight of {name}", weight, np.nextafter(0.0, 1.0))
        return weights

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        return {
            f"{name}: {key}": want
            for name, recipe in (options["members"] or {}).items()
            for key, want in recipe.required_statistics(capabilities).items()
        }

    @classmethod
    def fit(
        cls,
        statistics: Mapping[str, Any],
        head: Head | None,
        *,
        members: Mapping[str, Recipe] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> Self:
        fitted = []
        for name, recipe in (members or {}).items():
            own = {key.removeprefix(f"{name}: "): x for key, x in statistics.items() if key.startswith(f"{name}: ")}
            try:
                fitted.append(recipe.kind.fit(own, head, **recipe.options))
            except UnsoundError as error:
                raise UnsoundError(f"{name}, a member of the combination: {error}") from error
        names = tuple(members or {})
        shares = tuple(float(weights.get(name, 1.0)) for name in names) if weights else ()
        return cls(tuple(fitted), names, weights=shares)

    @property
    def members(self) -> tuple[str, ...]:
        return self.names

    @property
    def passes(self) -> tuple[Pass, ...]:
        return each_once(one for detector in self.detectors for one in detector.passes)

    def member_scores(self, batch: Activations) -> Array:
        xp, batch = array_namespace(batch.logits), batch.with_cache()
        with one_blas_thread():
            return xp.stack([detector.score(batch) for detector in self.detectors], axis=1)

    def fit_reference(self, member_scores: np.ndarray) -> Self:
        member_scores = np.asarray(member_scores, dtype=np.float64)
        if member_scores.ndim != 2 or member_scores.shape[1] != len(self.names):
            raise OptionError(
                f"member_scores of shape {member_scores.shape}: expected [n, {len(self.names)}], a column per member."
            )
        if not len(member_scores):
            raise CalibrationError(
                "A combination of detectors is ranked on known images new to the classifier: give some."
            )
        if not np.isfinite(member_scores).all():
            column = int(np.argmax(~np.isfinite(member_scores).all(axis=0)))
            raise ActivationsError(f"Scores of {self.names[column]!r} are not finite for some of the known images.")
        references = tuple(raised(np.sort(column)) for column in member_scores.T)
        return replace(self, references=references, rates=tuple(map(tail_rate, references)))

    def combine(self, member_scores: Array) -> Array:
        if not self.references:
            raise CalibrationError(
                "This combination of detectors has not been ranked, so its members' scores cannot be compared. "
                "First: detector = detector.fit_reference(detector.member_scores(activations of known images new to "
                "the classifier))."
            )
        return _joined(member_scores, self.references, self.rates, self.weights)

    def score(self, batch: Activations) -> Array:
        return self.combine(self.member_scores(batch))


def surprise(scores: Array, reference: Array, rate: float) -> Array:
    """[n]: minus the log of p-values by ascending reference scores, with a tail of that rate (see `Combined`)."""
    xp = array_namespace(scores)
    r = reference.shape[0]
    below = xp.searchsorted(reference, scores, side="left")
    counted = -xp.log((1 + r - xp.astype(below, scores.dtype)) / (r + 1))
    if not rate:
        return counted
    return counted + xp.clip(xp.clip(scores - reference[-1], min=0.0) * rate, max=FARTHEST)


def _joined(
    member_scores: Array, references: Sequence[Array], rates: Sequence[float], weights: Sequence[float]
) -> Array:
    """The weighted sum of every member's `surprise` [n], of scores [n, m], written for all members together: one image
    takes a few calls, and a graph being recorded a few nodes."""
    xp = array_namespace(member_scores)
    where = {} if hasattr(xp, "counted_below") else {"device": device(member_scores)}

    def row(values: Sequence[float]) -> Array:
        return xp.asarray(np.array(values, np.float64), dtype=member_scores.dtype, **where)

    r = row([reference.shape[0] for reference in references])
    total = -xp.log((1 + r - _counted_below(references, member_scores)) / (r + 1))
    if any(rates):
        farthest = xp.stack([reference[-1] for reference in references])
        total = total + xp.clip(xp.clip(member_scores - farthest, min=0.0) * row(rates), max=FARTHEST)
    return xp.sum(total * row(weights) if weights else total, axis=-1)


def _counted_below(references: Sequence[Array], member_scores: Array) -> Array:
    """[n, m]: how many of each member's ascending references lie below its scores."""
    xp = array_namespace(member_scores)
    if hasattr(xp, "counted_below"):  # a graph being recorded, which has no search
        return xp.counted_below(references, member_scores)
    columns = [xp.asarray(member_scores[:, i], copy=True) for i in range(len(references))]  # contiguous, for torch
    below = [xp.searchsorted(reference, x, side="left") for reference, x in zip(references, columns, strict=True)]
    return xp.astype(xp.stack(below, axis=1), member_scores.dtype)


def tail_rate(reference: np.ndarray) -> float:
    """Of the exponential tail of ascending scores: one over the mean excess of their largest tenth (at least 5 scores)
    over the next one below; 0 where they are too few or do not vary."""
    count = max(5, len(reference) // 10)
    if count >= len(reference):
        return 0.0
    excess = float(np.mean(reference[-count:]) - reference[-count - 1])
    return 1 / excess if excess > 1e-9 * float(np.abs(reference[-1])) else 0.0


def default_recipe(capabilities: Capabilities) -> tuple[Recipe, list[str]]:
    """The combination that "default" stands for on this classifier, and a sentence for each thing left out.

    GEN, MSP and fDBD, which read the output, have a vote each; KNN and Mahalanobis++ of the features half a vote each;
    Mahalanobis++ of the earlier stages one together; the same of the features and stages of a second network, if there
    is one. Near the known classes the output tells most and earlier stages next to nothing, and in an equal sum many
    stages would drown it; far from them distances tell most, and there they are heard by their tails (see `Combined`).
    """
    bounded = capabilities.classes > 1 and not Recipe(FDBD).missing(capabilities)
    votes: list[dict[str, Recipe]] = [{"gen": Recipe(GEN)}, {"msp": Recipe(MSP)}]
    votes += [{"fdbd": Recipe(FDBD)}] if bounded else []
    notes = []

    def distance(path: str) -> Recipe:
        return Recipe(Mahalanobis, {"unit": True} if path == "features" else {"unit": True, "of": path})

    if "features" in capabilities.outputs:
        votes.append({"knn": Recipe(KNN), "mahalanobis++": distance("features")})
    else:
        notes.append("The classifier shows no features, so KNN and Mahalanobis++ on them are left out.")
    stages = capabilities.stages if "stages" in capabilities.outputs else ()
    votes.append({f"mahalanobis++ {name}": distance(f"stages/{name}") for name in stages})
    if not stages:
        notes.append("No earlier stages were found in the classifier, so Mahalanobis++ on them is left out.")
    features = [path for path in capabilities.second if path == "second/features"]
    votes += [{"second knn": Recipe(KNN, {"of": p}), "second mahalanobis++": distance(p)} for p in features]
    early = [path for path in capabilities.second if path not in features]
    votes.append({f"second mahalanobis++ {p.removeprefix('second/stages/')}": distance(p) for p in early})
    members = {name: recipe for vote in votes for name, recipe in vote.items()}
    if len(members) == 2:
        return members["gen"], [*notes, "Only GEN is left: it reads nothing but the probabilities."]
    weights = {name: 1 / len(vote) for vote in votes for name in vote if len(vote) > 1}
    return Recipe(Combined, {"members": members, "weights": weights or None}), notes

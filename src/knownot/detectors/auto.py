from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from ..arrays import Activations, Array, Capabilities, Head
from ..errors import KnownotError, OptionError, UnsoundError
from ..stats import Reservoir, StatisticRequest
from .base import Detector, Recipe, some_images
from .combined import Combined, default_recipe
from .recipe import DETECTORS, options_of

MOST = 64  # candidates, so that the table may grow without end
CHEAP = frozenset({"probabilities", "logits", "features", "head", "stages", "second"})  # what one forward pass gives
SAMPLE = 4_000  # known images kept as activations, to fit again without some of the classes


@dataclass(frozen=True)
class Auto(Detector):
    r"""The default combination, changed only where evidence is strong: see `knownot.selection.choice`.

        score(x) = that of the members it starts from, until they are chosen

    Fits the members of the default and every other detector of the table that this classifier allows, in the same pass.
    `knownot.fit` then shows them made outliers and classes left out, and keeps the members that hold; whoever calls
    `score` before sees the default. A detector that cannot be fitted on this classifier is left out with its reason.

    candidates: {name: recipe}, the first `start` of them the members to start from.
    weights: {name: weight} of some of these in the sum they start with, 1 for the others.
    """

    detectors: tuple[Detector, ...]
    names: tuple[str, ...]
    start: tuple[int, ...]  # columns of `member_scores`: the members to start from
    failed: tuple[tuple[str, str], ...] = ()  # (name, why it could not be fitted)
    sample: tuple[tuple[str, Array], ...] = ()  # (path, rows): activations of some known images, and their "class"
    references: tuple[Array, ...] = ()  # of the members to start from, one [r] each, ascending
    weights: tuple[float, ...] = ()  # of the members to start from, in the sum; none: all 1
    rates: tuple[float, ...] = ()  # of their tails, see `Combined`

    needs_reference = True
    chooses = True
    needs = frozenset({"probabilities"})
    paper = "here; members as listed"
    summary = "default, with weights or other members where the evidence of made outliers and left-out classes is clear"

    @classmethod
    def resolve_defaults(cls, recipe: Recipe, capabilities: Capabilities) -> tuple[Recipe, list[str]]:
        if recipe.options.get("candidates") is not None:
            return recipe, []
        start, notes = default_recipe(capabilities)
        members: dict[str, Recipe] = dict(start.options.get("members") or {"gen": start})
        options = {"candidates": members | others(capabilities, members), "start": len(members)}
        return recipe.with_options(**options, weights=start.options.get("weights")), notes

    @classmethod
    def beside(
        cls, recipe: Recipe, others: Mapping[str, Recipe], weights: Mapping[str, float], capabilities: Capabilities
    ) -> tuple[Recipe, list[str]]:
        """One that starts from these members too, and keeps them or not, like those of the default; and notes.

        weights: {name: weight} of some of the others, 1 for the rest.

        Raises OptionError for one that needs several passes of every image, or has the name of another.
        """
        settled, notes = cls.resolve_defaults(recipe, capabilities)
        candidates: dict[str, Recipe] = dict(settled.options["candidates"])
        start = dict(list(candidates.items())[: settled.options["start"]])
        for name, other in others.items():
            if not other.needs() <= CHEAP:
                raise OptionError(
                    f"{name!r} needs {', '.join(sorted(other.needs() - CHEAP))}, which one forward pass does not give: "
                    "the automatic choice cannot show it all the made images. Give it alone, or without 'auto'."
                )
            if name in start and start[name] != other:
                raise OptionError(f"The detector {name!r} is there twice; give one of them another name.")
            start[name] = other
        more = {name: one for name, one in candidates.items() if name not in start and one not in start.values()}
        counts = {**(settled.options.get("weights") or {}), **weights} or None
        return recipe.with_options(candidates=start | more, start=len(start), weights=counts), notes

    @classmethod
    def required_statistics(cls, capabilities: Capabilities, **options: Any) -> dict[str, StatisticRequest]:
        requests = {
            f"{n}: {key}": request
            for n, r in (options["candidates"] or {}).items()
            for key, request in r.required_statistics(capabilities).items()
        }
        paths = ["logits", "class"]
        paths += ["features"] if "features" in capabilities.outputs else []
        paths += [f"stages/{name}" for name in capabilities.stages] if "stages" in capabilities.outputs else []
        paths += capabilities.second
        return requests | {"sample": StatisticRequest(Reservoir, tuple(paths), options=(("size", SAMPLE),))}

    @classmethod
    def fit(
        cls,
        statistics: Mapping[str, Any],
        head: Head | None,
        *,
        candidates: Mapping[str, Recipe] | None = None,
        start: int = 0,
        weights: Mapping[str, float] | None = None,
    ) -> Self:
        some_images(len(statistics["sample"]), "Auto")
        fitted: dict[str, Detector] = {}
        failed: list[tuple[str, str]] = []
        for name, recipe in (candidates or {}).items():
            own = {key.removeprefix(f"{name}: "): x for key, x in statistics.items() if key.startswith(f"{name}: ")}
            try:
                fitted[name] = recipe.kind.fit(own, head, **recipe.options)
            except (KnownotError, np.linalg.LinAlgError) as error:
                failed.append((name, str(error)))
        first = [name for name in list(candidates or {})[:start] if name in fitted]
        if not first:
            raise UnsoundError(f"No member of the default can be fitted here: {failed}.")
        names = tuple(fitted)
        sample = tuple((path, np.asarray(x)) for path, x in statistics["sample"].rows.items())
        counts = tuple(float(weights.get(name, 1.0)) for name in first) if weights else ()
        begin = tuple(names.index(name) for name in first)
        return cls(tuple(fitted.values()), names, begin, tuple(failed), sample, weights=counts)

    @property
    def members(self) -> tuple[str, ...]:
        return self.names

    def member_scores(self, batch: Activations) -> Array:
        xp = array_namespace(batch.logits)
        return xp.stack([detector.score(batch) for detector in self.detectors], axis=1)

    def only(self, columns: tuple[int, ...], weights: Sequence[float] = ()) -> Detector:
        """Those candidates alone: a combination to be ranked, or the one. weights: of each in the sum, none: all 1."""
        if len(columns) == 1:
            return self.detectors[columns[0]]
        names = tuple(self.names[i] for i in columns)
        shares = tuple(map(float, weights)) if set(weights) != {1.0} else ()
        return Combined(tuple(self.detectors[i] for i in columns), names, weights=shares)

    def votes_of(self, columns: Sequence[int]) -> np.ndarray:
        """[len(columns)]: what each candidate counts in a sum before weights are learnt."""
        votes = dict(zip(self.start, self.weights, strict=True)) if self.weights else {}
        return np.array([votes.get(j, 1.0) for j in columns])

    def fit_reference(self, member_scores: np.ndarray) -> Self:
        ranked = self.only(self.start, self.weights).fit_reference(np.asarray(member_scores)[:, list(self.start)])
        found = {name: getattr(ranked, name, ()) for name in ("references", "rates")}
        return replace(self, **found)

    def combine(self, member_scores: Array) -> Array:
        xp = array_namespace(member_scores)
        return self._joined(xp.stack([member_scores[:, i] for i in self.start], axis=1))

    def _joined(self, member_scores: Array) -> Array:
        """member_scores: of the members it starts from alone."""
        first = self.only(self.start, self.weights)
        first = replace(first, references=self.references, rates=self.rates) if isinstance(first, Combined) else first
        return first.combine(member_scores)

    def score(self, batch: Activations) -> Array:
        """Without the other candidates: nothing of the score is theirs."""
        xp = array_namespace(batch.logits)
        return self._joined(xp.stack([self.detectors[i].score(batch) for i in self.start], axis=1))


def others(capabilities: Capabilities, members: Mapping[str, Recipe], most: int = MOST) -> dict[str, Recipe]:
    """The other detectors of the table that one forward pass of this classifier allows; `most`, with the members.

    Those that measure distances look at the second network's features as well, if there is one. Where there are more,
    each kind of detector (by what it reads) gives one in turn, in the order of the table.
    """
    groups: dict[frozenset[str], dict[str, Recipe]] = {}
    for name, recipe in DETECTORS.items():
        if recipe.kind.needs_reference or recipe.kind.chooses:
            continue
        looks = {name: recipe}
        if "of" in options_of(recipe.kind):
            looks |= {f"second {name}": recipe.with_options(of=path) for path in capabilities.second if _whole(path)}
        for title, one in looks.items():
            if title in members or one in members.values() or not one.needs() <= CHEAP:
                continue
            settled, _ = one.settled(capabilities)
            try:
                settled.required_statistics(capabilities)
            except KnownotError:
                continue
            groups.setdefault(settled.needs(), {})[title] = settled
    turns = (row for row in zip_longest(*(group.items() for group in groups.values())))
    found = dict([pair for row in turns for pair in row if pair is not None][: max(0, most - len(members))])
    order = [name for group in groups.values() for name in group]
    return {name: found[name] for name in order if name in found}


def _whole(path: str) -> bool:
    return path == "second/features"

"""The options of a detector stand in one place: the keyword-only parameters of its `fit`, with their defaults."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import pytest

from knownot.arrays import Capabilities
from knownot.detectors import DETECTORS, KNN, Combined, Detector, Recipe, Shaped, classes
from knownot.detectors.base import Fitted, number
from knownot.detectors.recipe import REQUIRED, options_of
from knownot.errors import OptionError
from knownot.stats import Reservoir, StatisticRequest

OFFERS = Capabilities(frozenset({"features"}), 3)
KINDS = [kind for kind in classes().values() if issubclass(kind, Fitted)]


@dataclass(frozen=True)
class Nearest(Detector):
    """Tells what its class methods were given."""

    k: int

    needs = frozenset({"features"})

    @classmethod
    def needs_with(cls, **options):
        return frozenset({"features"} if options["of"] == "features" else {"stages"})

    @classmethod
    def passes_before(cls, **options):
        assert options.keys() == {"k", "of"}
        return ()

    @classmethod
    def required_statistics(cls, capabilities, **options):
        number("k", options["k"], 1, whole=True)
        return {"bank": StatisticRequest(Reservoir, options["of"], options=(("size", options["k"]),))}

    @classmethod
    def fit(cls, statistics, head, *, k, of="features"):
        return cls(k)

    def score(self, batch):
        return batch.features[:, 0]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_only_fit_names_them(kind):
    for method in (kind.required_statistics, kind.needs_with, kind.passes_before):
        named = [p.name for p in inspect.signature(method).parameters.values() if p.kind is p.KEYWORD_ONLY]
        assert named == [], f"{kind.__name__}.{method.__name__} declares {named} again"


def test_what_is_declared_is_what_can_be_given():
    assert dict(options_of(KNN)) == {
        "k": 10, "bank": 10_000, "of": "features", "keep": None, "compact": "reservoir", "index": "auto",
    }  # fmt: skip
    assert options_of(Shaped) == {"shaper": REQUIRED, "detector": REQUIRED}
    assert sum(len(options_of(kind)) for kind in KINDS) > 70
    for recipe in DETECTORS.values():
        assert recipe.options.keys() <= options_of(recipe.kind).keys()
    assert Recipe(KNN, {"k": 3}).filled == {**options_of(KNN), "k": 3}
    assert Recipe(Combined).filled == {"members": None, "weights": None}


def test_defaults_reach_every_class_method():
    recipe = Nearest.recipe(k=4)
    assert recipe.needs() == {"features"}
    assert recipe.passes(held_out=True) == ()
    assert recipe.required_statistics(OFFERS)["bank"] == StatisticRequest(Reservoir, "features", options=(("size", 4),))
    assert Nearest.recipe(k=4, of="stages/a").needs() == {"stages"}
    with pytest.raises(OptionError, match="k=0: expected a whole number"):
        Nearest.recipe(k=0).required_statistics(OFFERS)


def test_an_option_without_default_has_to_be_given():
    with pytest.raises(OptionError, match=r"Nearest needs the option 'k'"):
        Nearest.recipe().required_statistics(OFFERS)
    with pytest.raises(OptionError, match=r"no option of Nearest 'kk'.* Did you mean 'k'"):
        Nearest.recipe(kk=3)

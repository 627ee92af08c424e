"""What users may hand over as a detector, an option or a classifier that does not fit: a clear error each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import knownot.detectors as detectors
from knownot.arrays import Capabilities
from knownot.checks.detectors import check_detector, fitted, problem
from knownot.detectors import DETECTORS, KNN, Combined, Detector, Energy, Recipe, Shaped, configure, resolve
from knownot.errors import InputError, OptionError, UnsoundError

EVERYTHING = Capabilities(frozenset({"probabilities", "logits", "features", "head", "stages"}), 10, ("a", "b"))
FEATURES = Capabilities(frozenset({"probabilities", "features", "head"}), 10)
ONLY_PROBABILITIES = Capabilities(frozenset({"probabilities"}), 10)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("mahalanobi", "Did you mean 'mahalanobis'"),
        ("KNN", "Did you mean|There is no detector 'KNN'"),
        ("", "There is no detector ''"),
        ([], "No detector was given"),
        ({}, "No detector was given"),
        (["knn", "knn"], "'knn' is there twice"),
        (["default", "knn"], "'knn' is there twice"),
        (["knn", KNN], "'knn' is there twice"),
        (["knn", 3], "3 is no detector"),
        (None, "None is no detector"),
        (3.5, "3.5 is no detector"),
        (int, "is no detector"),
        (Recipe(detectors.ReAct), "is no detector"),
        ({"nearest": {"k": 3}}, "There is no detector 'nearest'"),
        ({"knn": {"kk": 3}}, "There is no option of KNN 'kk'. Did you mean 'k'"),
    ],
    ids=str,
)
def test_what_is_no_detector(given: Any, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        resolve(given, EVERYTHING)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("energy", {"temperature": 0}),
        ("energy", {"temperature": -1.0}),
        ("energy", {"temperature": "hot"}),
        ("energy", {"temperature": float("nan")}),
        ("gen", {"gamma": 0}),
        ("gen", {"gamma": 2}),
        ("gen", {"top": 0}),
        ("gen", {"top": 2.5}),
        ("knn", {"k": 0}),
        ("knn", {"k": True}),
        ("knn", {"k": 1.5}),
        ("knn", {"k": 20, "bank": 10}),
        ("knn", {"bank": float("inf")}),
        ("mahalanobis", {"unit": "yes"}),
        ("mahalanobis", {"of": "logits"}),
        ("mahalanobis", {"of": "stages/c"}),
        ("mahalanobis", {"of": 3}),
        ("vim", {"dim": -1}),
        ("vim", {"dim": "all"}),
        ("react", {"shaper": Recipe(detectors.ReAct, {"percentile": 0})}),
        ("react", {"shaper": Recipe(detectors.ReAct, {"percentile": 101})}),
        ("ash-s", {"shaper": Recipe(detectors.AshS, {"percentile": 100})}),
        ("react", {"shaper": Recipe(Energy)}),
        ("react", {"shaper": "ash-s"}),
        ("react", {"detector": Recipe(KNN)}),
        ("react", {"detector": Recipe(detectors.ReAct)}),
        ("default", {"members": {}}),
        ("default", {"members": {"knn": 3}}),
        ("default", {"members": ["knn"]}),
        ("default", {"members": {"react": Recipe(detectors.ReAct)}}),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_before_any_image_is_seen(name: str, options: dict[str, Any]) -> None:
    with pytest.raises((OptionError, UnsoundError)) as caught:
        resolve(configure(name, **options), EVERYTHING)
    said = str(caught.value)
    told = {*options, *(str(value) for value in options.values()), "percentile", "KNN learns", "to measure distances"}
    assert any(word in said for word in told), said
    assert "expected" in said or "There are" in said or "Detectors that" in said, "no cure in: " + said


@pytest.mark.parametrize("name", DETECTORS)
def test_an_unknown_option_is_refused_when_it_is_named(name: str) -> None:
    with pytest.raises(OptionError, match="no option of"):
        configure(name, colour="red")


@pytest.mark.parametrize("name", ["energy", "maxlogit", "vim", "react", "ash-s"])
@pytest.mark.parametrize("capabilities", [ONLY_PROBABILITIES, FEATURES], ids=["probabilities", "features"])
def test_what_a_softmax_output_makes_unsound(name: str, capabilities: Capabilities) -> None:
    """Energy of log p is 0 for every image: refused, with the reason and what works."""
    with pytest.raises(UnsoundError, match=r"up to a constant|features and head") as caught:
        resolve(name, capabilities)
    works = str(caught.value).partition("Detectors that work here: ")[2].rstrip(".").split(", ")
    assert "gen" in works
    assert name not in works
    for other in works:
        resolve(other, capabilities)
    for other in DETECTORS.keys() - set(works):
        with pytest.raises(UnsoundError):
            resolve(other, capabilities)


@pytest.mark.parametrize("name", ["knn", "mahalanobis", "mahalanobis++", "relative-mahalanobis", "she", "fdbd"])
def test_what_a_classifier_without_features_makes_impossible(name: str) -> None:
    with pytest.raises(UnsoundError, match="features"):
        resolve(name, ONLY_PROBABILITIES)
    resolve(name, FEATURES)


def test_a_stage_of_a_classifier_without_stages() -> None:
    with pytest.raises(UnsoundError, match="stages"):
        resolve(configure("mahalanobis", of="stages/a"), FEATURES)


def test_a_member_that_is_unsound_makes_the_combination_so() -> None:
    with pytest.raises(UnsoundError, match="Energy needs the classifier's logits"):
        resolve(["gen", "energy"], ONLY_PROBABILITIES)


def test_the_default_falls_back_to_what_can_be_computed_and_says_so() -> None:
    recipe, notes = resolve("default", EVERYTHING)
    members = recipe.options["members"]
    assert list(members) == ["gen", "msp", "fdbd", "knn", "mahalanobis++", "mahalanobis++ a", "mahalanobis++ b"]
    assert [m.options.get("of") for m in members.values()] == [*[None] * 5, "stages/a", "stages/b"]
    halves = dict.fromkeys(list(members)[3:], 0.5)  # distances of the features, and of the stages: one vote each
    assert recipe.options["weights"] == halves
    assert resolve({"mine": "default"}, EVERYTHING)[0] == recipe
    twice = Combined.recipe(members={"a": recipe, "she": detectors.SHE.recipe()}, weights={"a": 2.0})
    joined = dict.fromkeys(members, 2.0) | dict.fromkeys(halves, 1.0) | {"she": 1.0}
    assert resolve(twice, EVERYTHING)[0].options["weights"] == joined
    for wrong in ({"a": 0}, {"a": -1.0}, {"a": np.inf}, {"a": True}, {"b": 1.0}, [1.0]):
        with pytest.raises(OptionError, match="weight"):
            resolve(
                Combined.recipe(members={"a": KNN.recipe(), "c": detectors.SHE.recipe()}, weights=wrong), EVERYTHING
            )
    assert notes == []
    recipe, notes = resolve("default", FEATURES)
    assert list(recipe.options["members"]) == ["gen", "msp", "fdbd", "knn", "mahalanobis++"]
    assert len(notes) == 1
    assert "stages" in notes[0]
    recipe, notes = resolve("default", Capabilities(frozenset({"probabilities", "stages"}), 10, ("a",)))
    assert list(recipe.options["members"]) == ["gen", "msp", "mahalanobis++ a"]
    assert "features" in notes[0]
    recipe, notes = resolve("default", ONLY_PROBABILITIES)
    assert recipe == Recipe(detectors.GEN)
    assert len(notes) == 3
    assert "Only GEN" in notes[-1]


def test_every_way_to_name_a_detector() -> None:
    for given in ("knn", KNN, Recipe(KNN), KNN.recipe(), ["knn"], {"knn": {}}, {"anything": "knn"}):
        assert resolve(given, EVERYTHING)[0] == Recipe(KNN)
    for given in (
        ["knn", "gen"],
        ("knn", KNN.recipe(k=3)),
        {"a": "knn", "b": KNN.recipe(k=3)},
        {"knn": {"k": 3}, "gen": {}},
    ):
        recipe, _ = resolve(given, EVERYTHING)
        assert recipe.kind is Combined
        assert len(recipe.options["members"]) == 2
    assert list(resolve([KNN.recipe(k=3), "knn"], EVERYTHING)[0].options["members"]) == ["knn(k=3)", "knn"]
    assert list(resolve(["default", "she"], FEATURES)[0].options["members"])[-2:] == ["mahalanobis++", "she"]
    assert resolve("gen", Capabilities(frozenset({"logits"}), 3))[0].kind is detectors.GEN


def test_no_images_at_all() -> None:
    on = problem()
    for recipe in DETECTORS.values():
        on = on.shown(recipe.passes(held_out=False))
        if recipe.required_statistics(on.capabilities):
            with pytest.raises(InputError, match="no known images"):
                recipe.fit({}, on.head, on.capabilities)
            empty = on.train.take(slice(0, 0))
            nothing = {
                want: want.part(empty, on.labels[:0]) for want in recipe.required_statistics(on.capabilities).values()
            }
            with pytest.raises(InputError, match="no known images"):
                recipe.fit(nothing, on.head, on.capabilities)


def test_the_table_can_be_called() -> None:
    table = detectors()
    assert [row.name for row in table] == list(DETECTORS)
    lines = repr(table).splitlines()
    assert len(lines) == len(DETECTORS) + 1
    for row, line in zip(table, lines[1:], strict=True):
        assert row.paper
        assert row.summary
        assert row.needs
        assert line.startswith(row.name)
        assert row.paper in line
        assert len(line) <= 210
    assert detectors.KNN is KNN


def test_classes_are_all_that_a_fitted_detector_is_made_of() -> None:
    on = problem()

    def names(thing: Any) -> set[str]:
        if isinstance(thing, tuple):
            return set().union(*map(names, thing))
        inner = (
            set().union(*(names(x) for x in vars(thing).values())) if hasattr(thing, "__dataclass_fields__") else set()
        )
        return inner | ({type(thing).__name__} if hasattr(thing, "__dataclass_fields__") else set())

    for name in DETECTORS:
        assert names(fitted(resolve(name, on.capabilities)[0], on)) <= detectors.classes().keys()
    assert {"Head", "Shaped", "ReAct", "Combined", "Mahalanobis"} <= detectors.classes().keys()


# A detector that breaks a promise is caught, by the check that is there for it.


CALLS = itertools.count()


@dataclass(frozen=True)
class Broken(Detector):
    """The energy, but for one fault."""

    fault: str = ""

    needs = frozenset({"logits"})

    @classmethod
    def fit(cls, statistics: Any, head: Any, *, fault: str) -> Broken:
        if fault == "refuses" and len(head.weight) == 2:
            raise UnsoundError("Two classes are too few.")
        if fault == "refuses without a word" and np.abs(head.weight).max() > 1e5:
            raise UnsoundError("")
        made = cls(fault)
        if fault == "hidden":
            object.__setattr__(made, "secret", 1)
        return made

    def score(self, batch: Any) -> Any:
        logits = batch.logits
        if self.fault == "sign":
            return -Energy(1.0).score(batch)
        if self.fault == "nan":
            return Energy(1.0).score(batch) * np.where(np.arange(len(batch)) == 0, np.nan, 1)
        if self.fault == "shape":
            return Energy(1.0).score(batch)[:, None]
        if self.fault == "batch":
            return Energy(1.0).score(batch) - (logits.max() if len(logits) else 0)
        if self.fault == "order":
            return Energy(1.0).score(batch) + np.arange(len(logits))
        if self.fault == "changes":
            logits -= 1
        if self.fault == "numpy":
            return -np.logaddexp.reduce(np.asarray(logits), axis=1)
        if self.fault == "float64":
            return Energy(1.0).score(batch) + np.zeros(1)
        if self.fault == "hidden":
            return Energy(1.0).score(batch) * self.secret  # type: ignore[attr-defined]
        if self.fault == "counts":
            return Energy(1.0).score(batch) + next(CALLS)
        if self.fault == "overflow":
            return Energy(1.0).score(replace(batch, logits=logits**9))
        if self.fault == "scale":
            return Energy(1.0).score(batch) + 0 * logits[:, 0] if batch.features.max() > 0.01 else 0 * logits[:, 0]
        if self.fault == "state":
            object.__setattr__(self, "secret", 1)
        return Energy(1.0).score(batch)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("sign", "unknown_scores_higher"),
        ("nan", "one_finite_score_per_image"),
        ("shape", "one_finite_score_per_image"),
        ("batch", "batch_and_order_do_not_matter"),
        ("order", "batch_and_order_do_not_matter"),
        ("changes", "input_is_left_alone"),
        ("numpy", "same_on_the_strict_array_api"),
        ("numpy", "same_as_an_onnx_graph"),
        ("float64", "same_in_float32"),
        ("state", "state_is_its_fields"),
        ("numpy", "same_on_jax"),
        ("hidden", "saved_and_loaded_bit_for_bit"),
        ("counts", "saved_and_loaded_bit_for_bit"),
        ("refuses", "fitted_on_two_classes"),
        ("refuses without a word", "fitted_on_large_logits"),
        ("overflow", "fitted_on_large_logits"),
        ("scale", "fitted_on_small_features"),
    ],
)
def test_a_broken_promise_is_caught(fault: str, check: str) -> None:
    with pytest.raises((AssertionError, TypeError, ValueError, AttributeError, RuntimeWarning)):
        check_detector(Broken.recipe(fault=fault), only=check)
    check_detector(Broken.recipe(fault=""), only=check)
    check_detector(Broken.recipe(fault=fault), only=check, exempt={check: "it is broken on purpose"})


def test_an_exemption_from_no_check() -> None:
    with pytest.raises(AssertionError, match="no such check: flies"):
        check_detector("msp", exempt={"flies": "it does not"})


def test_shaped_detectors_of_other_pairs() -> None:
    for detector in ("msp", "gen", "maxlogit"):
        pair = Shaped.recipe(shaper=Recipe(detectors.ReAct), detector=DETECTORS[detector])
        check_detector(pair, only="unknown_scores_higher")


def test_a_detector_that_writes_into_its_input_spoils_nothing_for_the_next() -> None:
    before = problem().known.logits.copy()
    with pytest.raises(AssertionError):
        check_detector(Broken.recipe(fault="changes"))
    np.testing.assert_array_equal(problem().known.logits, before)

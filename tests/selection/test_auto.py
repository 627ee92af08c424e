"""The automatic choice: it stays with the default unless the evidence is strong, and says why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import knownot
from helpers import toy
from helpers.auto import KINDS, arena, jittery
from knownot import Preprocess
from knownot.arrays import Activations, Capabilities
from knownot.benchmark import compare, page
from knownot.cli import main
from knownot.detectors import GEN, GMM, KNN, MSP, Auto, Combined, Detector, Energy, Mahalanobis, default_recipe, resolve
from knownot.errors import OptionError, UnsoundError
from knownot.fitting.options import CalibrationOptions
from knownot.fitting.remade import pixels_of
from knownot.fitting.sampling import HoldOut, Subsample, numbers_of
from knownot.measure import auroc
from knownot.outliers import OUTLIERS
from knownot.plots import percent
from knownot.selection import choice as choosing
from knownot.selection import combination as ruling
from knownot.selection import stepwise as selecting
from knownot.selection.diagnostics import Check, checked, failing, flags, left_out, rounds, table
from knownot.selection.scoreboard import EVEN, MARGIN, TOLERANCE, YOURS, Scoreboard
from knownot.selection.stacking import MEMBERS
from knownot.selection.stepwise import select

HALF = Preprocess(scale=1 / 255, name="[0, 1]")


@dataclass(frozen=True)
class Tiny(Detector):
    """A detector that a test makes bad on purpose."""

    needs = frozenset({"features"})

    @classmethod
    def fit(cls, statistics: Mapping[str, Any], head: Any, *_: Any, **options: Any):
        return cls()


@dataclass(frozen=True)
class Upside(Detector):
    """The right answer with the wrong sign."""

    right: GEN

    needs = frozenset({"features"})

    @classmethod
    def required_statistics(cls, capabilities, *_, **options):
        return GEN.recipe().required_statistics(capabilities)

    @classmethod
    def fit(cls, statistics, head, *_, **options):
        return cls(GEN.fit(statistics, head))

    def score(self, batch):
        return -self.right.score(batch)


class Broken(Tiny):
    def score(self, batch):
        return batch.features[:, 0] * np.float32(np.nan)


class Constant(Tiny):
    def score(self, batch):
        return batch.features[:, 0] * 0


class Refuses(Tiny):
    @classmethod
    def fit(cls, statistics, head, *_, **options):
        raise UnsoundError("not here")

    def score(self, batch):
        raise AssertionError


GOOD = {"gen": GEN.recipe(), "knn": KNN.recipe(), "mahalanobis": Mahalanobis.recipe()}
SMALL = Auto.recipe(candidates=GOOD | {"gmm": GMM.recipe(), "msp": MSP.recipe()}, start=3)  # the table takes seconds


@pytest.fixture(scope="module")
def model():
    return knownot.open_model(toy.graph())


@pytest.fixture(scope="module")
def sets():
    return {"known": toy.known(800, 2), "calibration": toy.known(1000, 3), "test": toy.known(1500, 4)}


def fitted(model, sets, detector="auto", **options):
    images, labels = sets["calibration"]
    return knownot.fit(
        model,
        *sets["known"],
        calibration=images,
        calibration_labels=labels,
        detector=detector,
        preprocess=options.pop("preprocess", HALF),
        thumbnails=0,
        progress=False,
        **options,
    )


@pytest.fixture(scope="module")
def osc(model, sets):
    return fitted(model, sets, SMALL)


def test_it_stays_with_a_default_that_holds_and_says_so(osc, sets):
    assert osc.detector.members == ("gen", "knn", "mahalanobis")
    assert osc.detector.weights == ()
    assert "the default stays" in osc.record.notes[-1]
    kept = [c for c in osc.record.checks if c.verdict == "kept"]
    assert {c.detector for c in kept} == set(osc.detector.members)
    assert {c.detector for c in osc.record.checks} == {"gen", "knn", "mahalanobis", "gmm", "msp"}
    assert set(kept[0].auroc) >= {"uniform", "mixup", "patch-shuffle-4", "class left out"}
    assert "jpeg" not in kept[0].auroc  # it may still be recognised
    verdicts = osc.predict(sets["test"][0])
    assert 0.01 < verdicts.unknown.mean() < 0.05
    assert osc.predict(toy.unknown(200)).unknown.mean() > 0.95


def test_what_decides_is_neither_evidence_nor_ranking(osc, sets):
    record = osc.record
    assert record.evidence == 250
    assert (record.ranking, record.calibration) == (250, 750)  # the evidence may rank
    assert record.made == 64 * sum(kind.proper for kind in OUTLIERS.values())
    assert len(osc.references[0]) == record.calibration
    assert len(osc.detector.references[0]) == record.ranking


def test_where_the_default_stays_its_members_are_those_of_the_default_bit_for_bit(model, osc, sets):
    """What differs is how many images rank them: the evidence sets no threshold, so all of it ranks."""
    default = fitted(model, sets, GOOD)
    assert osc.detector.names == default.detector.names
    assert osc.detector.weights == default.detector.weights
    batch = model.activations(sets["test"][0][:200] / np.float32(255))
    np.testing.assert_array_equal(osc.scores(batch)[1], default.scores(batch)[1])
    verdicts, same = osc.predict(sets["test"][0]), default.predict(sets["test"][0])
    assert np.corrcoef(verdicts.p_value, same.p_value)[0, 1] > 0.98


def test_no_image_of_the_evidence_decides(model, sets, monkeypatch):
    kept = []

    def watched(seed):
        kept.append(choosing.watch(seed))
        return kept[0]

    monkeypatch.setattr("knownot.selection.decision.watch", watched)
    osc = fitted(model, sets, SMALL)
    evidence, _ = kept[0].rows(osc.record.evidence)
    column = osc.detector.members.index("mahalanobis")
    chosen_by = osc.scores(evidence)[1][:, column].astype(np.float64)
    assert len(osc.references[column]) == 750
    assert len(evidence) == 250
    middle = np.median(osc.detector.references[column])
    raised = chosen_by + 2.0**-14 * np.maximum(chosen_by, middle)  # references are, by what rounding may add
    gaps = [np.abs(used[:, None] - raised).min(axis=0) / chosen_by
            for used in (osc.references[column], osc.detector.references[column])]  # fmt: skip
    assert (gaps[0] < 1e-6).mean() < 0.05  # by chance; all of them, if they were the same images
    assert (gaps[1] < 1e-5).all()


def test_the_images_that_calibrate_are_those_of_large_numbers(model, sets):
    images, _ = sets["calibration"]
    seen = Subsample(10, 100, 0)
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**64, 500, dtype=np.uint64)
    batch = Activations(rng.normal(size=(500, 3)), rng.normal(size=(500, 4)), keys=keys)
    for begin in range(0, 500, 70):
        some = batch.take(slice(begin, begin + 70))
        seen.add(some, np.arange(begin, begin + len(some)), images[begin : begin + len(some)])
    order = np.argsort(numbers_of(keys, 0))
    rows, labels = seen.rows(60)
    np.testing.assert_array_equal(labels, order[:60])
    np.testing.assert_array_equal(rows.features, batch.features[order[:60]])
    x, numbers = seen.pictures()
    np.testing.assert_array_equal(numbers, order[:10])
    np.testing.assert_array_equal(x, images[order[:10]])


def test_of_held_out_images_the_watch_has_the_numbers_of_the_hold_out():
    hold, seen = HoldOut(None, 10, CalibrationOptions()), Subsample(5, 50, 0)
    rng = np.random.default_rng(1)
    for begin in range(0, 600, 50):
        keys = rng.integers(0, 2**64, 50, dtype=np.uint64)
        batch = Activations(rng.normal(size=(50, 3)), np.arange(begin, begin + 50.0)[:, None], keys=keys)
        out = hold.split(batch, np.arange(begin, begin + 50))
        seen.add(batch.take(out), np.flatnonzero(out) + begin, batch.features[out])
    stayed = [k for freed, _ in hold.released(True) for k in freed.keys.tolist()]
    held = hold.activations()
    assert len(held) == 120
    assert not set(stayed) & set(held.keys.tolist())
    np.testing.assert_array_equal(seen.rows(20)[1], held.features[:20, 0])
    assert (np.diff(numbers_of(held.keys, 0).astype(np.float64)) > 0).all()


def test_without_calibration_images_it_holds_out_enough(model, sets):
    osc = knownot.fit(
        model, *sets["known"], detector=SMALL, preprocess=HALF, thumbnails=0, progress=False, guarantee="marginal"
    )
    assert osc.record.evidence >= 100
    assert osc.record.held_out == osc.record.ranking + osc.record.calibration
    assert osc.record.evidence <= osc.record.ranking
    assert osc.record.held_out + osc.record.known == 800


def test_too_few_calibration_images_stay_with_the_default(model, sets):
    images, labels = (x[:200] for x in sets["calibration"])
    osc = fitted(model, sets | {"calibration": (images, labels)}, SMALL)
    assert "200 calibration images are too few to choose by" in osc.record.notes[-1]
    assert "280 are enough" in osc.record.notes[-1]
    assert osc.detector.members == ("gen", "knn", "mahalanobis")
    assert osc.record.evidence == osc.record.made == 0


def test_members_that_fail_are_dropped_with_their_reason(model, sets, tmp_path):
    bad = {"upside": Upside.recipe(), "broken": Broken.recipe(), "constant": Constant.recipe(), "no": Refuses.recipe()}
    recipe = Auto.recipe(candidates=GOOD | bad, start=len(GOOD | bad))
    osc = fitted(model, sets, recipe, seed=10)  # upside down tells nothing of its own on these made images
    assert set(osc.detector.members) <= set(GOOD)
    why = {c.detector: (c.verdict, c.why) for c in osc.record.checks}
    assert why["upside"][0] == "dropped"
    assert "more known than known ones: median AUROC 0." in why["upside"][1]
    assert why["broken"] == ("dropped", "Its score is not a finite number for 100.0% of the known images.")
    assert why["constant"] == ("dropped", "It gives every known image the same score.")
    assert why["no"] == ("left out", "It could not be fitted here: not here")
    assert "upside dropped (It takes" in osc.record.notes[-1]
    assert osc.predict(toy.unknown(200)).unknown.mean() > 0.95
    again = knownot.load(osc.save(tmp_path / "osc"))
    assert again.record.checks == osc.record.checks


def test_where_every_member_fails_the_best_other_takes_their_place(model, sets):
    recipe = Auto.recipe(candidates={"upside": Upside.recipe()} | GOOD, start=1)
    osc = fitted(model, sets, recipe)
    assert "upside" not in osc.detector.members
    assert any("no member of the default holds" in c.why for c in osc.record.checks)
    assert osc.predict(toy.unknown(200)).unknown.mean() > 0.95


def test_where_the_default_is_weak_it_is_better_than_the_default(sets):
    model = knownot.open_model(jittery(), stages=[])
    start = default_recipe(model.capabilities)[0].options["members"]
    more = {"known": toy.known(1500, 2), "calibration": toy.known(1200, 3)}
    default = fitted(model, more, "default")
    assert default.detector.members == tuple(start)
    others = {"gmm": GMM.recipe(), "energy": Energy.recipe()}
    auto = fitted(model, more, Auto.recipe(candidates=start | others, start=len(start)))
    found = [auroc(osc.predict(sets["test"][0]).score, osc.predict(toy.unknown(300)).score) for osc in (default, auto)]
    assert found[0] < 0.9
    assert found[1] > 0.95
    added = [c for c in auto.record.checks if c.verdict == "added"]
    assert added
    assert added[0].why.startswith("weight ")
    assert 0.005 < auto.predict(sets["test"][0]).unknown.mean() < 0.05  # calibrated anew


def test_one_image_per_class_stops_the_default_but_not_auto(model, sets):
    images, labels = sets["known"]
    one = np.array([np.flatnonzero(labels == k)[0] for k in range(4)] * 10)
    few = sets | {"known": (images[one], labels[one])}
    with pytest.raises(UnsoundError, match="do not vary"):
        fitted(model, few, "default")
    osc = fitted(model, few)
    left = [c for c in osc.record.checks if c.verdict == "left out"]
    assert {"mahalanobis++", "mahalanobis++ stage1"} <= {c.detector for c in left}
    assert "do not vary" in left[0].why
    assert osc.predict(sets["test"][0]).unknown.mean() < 0.06


def test_float_arrays_and_probabilities_alone_work(model, sets):
    ready = {name: ((x / 255).astype(np.float32), y) for name, (x, y) in sets.items()}
    osc = fitted(model, ready, SMALL, preprocess=None)
    assert osc.record.made > 1000
    assert osc.predict((toy.unknown(200) / 255).astype(np.float32)).unknown.mean() > 0.95

    def probabilities(images):
        logits = toy.reference(images / 255, toy.weights())["logits"]
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    raw = Preprocess(name="raw", height=16, width=16)
    only = fitted(knownot.open_model(probabilities, size=(16, 16)), sets, preprocess=raw)
    assert set(only.detector.members) <= {"gen", "GEN", "msp", "entropy", "kl-matching", "doctor", "temperature-msp"}


def test_your_own_unknown_images_are_evidence(model, sets):
    osc = fitted(model, sets, SMALL, unknown=toy.unknown(20))
    assert all(YOURS in c.auroc for c in osc.record.checks if c.verdict == "kept")
    with pytest.raises(OptionError, match="detector='auto'"):
        fitted(model, sets, "default", unknown=toy.unknown(20))


def test_beside_auto_others_are_members_to_start_from(model, sets):
    """Also one that was fitted before; what it adds is decided like all else."""
    other = knownot.fit(model, *sets["known"], calibration=sets["calibration"][0], preprocess=HALF, detector="gmm",
                        thumbnails=0, progress=False).detector  # fmt: skip
    small = Auto.recipe(candidates=GOOD | {"msp": MSP.recipe()}, start=3)
    osc = fitted(model, sets, {"auto": small, "mine": other, "noise": Constant.recipe()})
    verdicts = {c.detector: c.verdict for c in osc.record.checks}
    assert verdicts == dict.fromkeys(["gen", "knn", "mahalanobis", "mine"], "kept") | {"noise": "dropped", "msp": ""}
    assert osc.detector.members == ("gen", "knn", "mahalanobis", "mine")
    mine = osc.detector.members.index("mine")
    np.testing.assert_array_equal(osc.detector.detectors[mine].means, other.means)
    assert osc.predict(toy.unknown(200)).unknown.mean() > 0.95


def test_beside_auto_the_names_are_settled_before_any_image_is_seen(model):
    start = [
        r.options["start"] for r, _ in (resolve(asked, model.capabilities) for asked in ("auto", ["auto", "energy"]))
    ]
    assert start[1] == start[0] + 1
    recipe, _ = resolve(["auto", "default", "energy"], model.capabilities)  # its members are there already
    assert recipe.options["start"] == start[1]
    assert len(recipe.options["candidates"]) == len(set(recipe.options["candidates"]))
    names = list(recipe.options["candidates"])
    assert names.index("energy") == start[0]
    assert resolve({"mine": "auto"}, model.capabilities)[0].kind is Auto
    with pytest.raises(OptionError, match="both choose members by themselves"):
        resolve({"a": "auto", "b": "auto"}, model.capabilities)
    with pytest.raises(OptionError, match="'knn' is there twice"):
        resolve({"auto": "auto", "knn": KNN.recipe(k=3)}, model.capabilities)


def test_what_takes_several_passes_is_not_shown_to_auto(model):
    capabilities = replace(model.capabilities, outputs=model.capabilities.outputs | {"gradient"})
    with pytest.raises(OptionError, match="'odin' needs gradient, which one forward pass does not give"):
        resolve(["auto", "odin"], capabilities)


def test_other_detectors_see_no_made_image(sets, monkeypatch):
    model = knownot.open_model(toy.graph())
    seen = []
    forward = model.forward

    def counted(batch, *rest):
        seen.append(len(batch))
        return forward(batch, *rest)

    monkeypatch.setattr(model, "forward", counted)
    osc = fitted(model, sets, "msp")
    assert sum(seen) == 1800
    assert osc.record.checks == ()
    seen.clear()
    fitted(model, sets, SMALL)
    assert sum(seen) == 1800 + 19 * 64


def test_plain_fits_say_what_known_images_alone_show(model, sets):
    osc = fitted(model, sets, ["gen", "msp"])
    assert osc.record.checks == ()
    rng = np.random.default_rng(0)
    tied = np.where(rng.random(200) < 0.5, -1.0, rng.random(200))
    assert [c.detector for c in checked(["a", "b"], np.stack([rng.random(200), tied], axis=1))] == ["b"]


def test_flags():
    rng = np.random.default_rng(0)
    fine = rng.normal(size=300)
    assert flags(fine, {"a": 0.9, "b": 0.8}) == ()
    assert "not a finite number for 0.3%" in flags(np.r_[fine[:299], np.nan])[0]
    assert flags(np.ones(10)) == ("It gives every known image the same score.",)
    assert "saturated: 50%" in flags(np.r_[fine[:150], np.ones(150)])[0]
    assert failing(np.r_[fine[:150], np.ones(150)]) == ()  # suspicious, not wrong
    assert "median AUROC 0.40" in failing(fine, {"a": 0.4, "b": 0.3, "c": 0.9})[0]
    assert failing(fine, {"a": 0.6, "b": 0.3, "c": 0.9}) == ()
    assert "more known than known images: b" in flags(fine, {"a": 0.6, "b": 0.3, "c": 0.9})[0]


# The rule itself, on made scores


def test_strong_evidence_over_families_adds_and_weak_evidence_does_not():
    strong = arena({kind: [1.0, 2.5] for kind in KINDS})
    chosen, why = select(strong, ["a", "b"], [0], {})
    assert chosen == (0, 1)
    assert "better on 7 of the 7 families of unknown images that leave room" in why[1]
    # Better on all three kinds of mixtures, by far, but on them alone: that is one family.
    mixtures = arena({kind: [1.0, 4.0 if kind in ("cutmix", "mixup", "collage") else 0.3] for kind in KINDS})
    assert select(mixtures, ["a", "b"], [0], {})[0] == (0,)
    # Better on most, much worse on one.
    uneven = arena({kind: [1.5, -2.0 if kind == "blur" else 1.5] for kind in KINDS})
    assert select(uneven, ["a", "b"], [0], {})[0] == (0,)
    # Nothing left to gain.
    perfect = arena({kind: [9.0, 9.0] for kind in KINDS})
    assert select(perfect, ["a", "b"], [0], {})[0] == (0,)


def test_the_gain_must_not_hang_on_one_family_nor_leave_many_worse():
    def change(shift):
        found = arena({kind: [1.2, 1.2 + shift(kind), 9.0] for kind in KINDS}, 2000, 1000)
        after, before = (found.families(found.auroc([j])) for j in (1, 0))
        return found, {name: after[name] - before[name] for name in after}

    found, d = change(lambda kind: 1.2 if kind == "blur" else 0.02)
    assert np.mean(list(d.values())) > MARGIN
    assert not found.better([1], [0])
    assert found.gain([1], [0]) < MARGIN
    same = arena({kind: [1.2, 1.2] for kind in KINDS}, 2000, 1000)
    tiny = replace(
        same,
        known={k: x[:, [0, 0]] for k, x in same.known.items()},
        unknown={k: np.stack([x[:, 0], x[:, 0] + 0.02], axis=1) for k, x in same.unknown.items()},
    )
    assert tiny.least([1], [0]) > EVEN
    assert tiny.gain([1], [0]) < MARGIN
    assert not tiny.better([1], [0])
    found, d = change(lambda kind: {"solid": -0.09}.get(kind, 0.8))
    assert found.gain([1], [0]) > MARGIN
    assert sum(x > 0 for x in d.values()) == len(d) - 1
    assert -TOLERANCE < min(d.values()) < -EVEN
    assert found.least([1], [0]) == -1
    assert not found.better([1], [0])
    assert not found.better([1], [0], harmless=True)


def test_what_comes_has_to_help_everywhere_and_what_goes_to_harm_nowhere():
    found = arena({kind: [1.2, 1.2 if kind == "blur" else 2.0] for kind in KINDS}, 2000, 1000)
    x = {k: np.stack([v[:, 0], v[:, 0] if k == "blur" else v[:, 1]], axis=1) for k, v in found.unknown.items()}
    known = {k: v[:, [0, 0]] if k == "blur" else v for k, v in found.known.items()}
    found = replace(found, known=known, unknown=x)  # on blur both are the same, on all else the second is better
    assert found.least([1], [0]) == 0
    assert not found.better([1], [0])
    assert found.better([1], [0], harmless=True)


def test_of_several_the_one_comes_that_helps_its_worst_family_most():
    """Not the one of the largest mean: nobody knows which family the unknown images to come are like."""
    gains = {kind: [1.0, 1.6, 0.8 if kind in ("blur", "inversion") else 3.0] for kind in KINDS}
    found = arena(gains, 2000, 1000)
    assert found.better([0, 2], [0])
    assert found.mean(found.auroc([0, 2])) > found.mean(found.auroc([0, 1]))
    chosen, _ = select(found, ["a", "even", "uneven"], [0], {})
    assert chosen[1] == 1


def test_two_weak_members_go_together_where_neither_goes_alone():
    """Each hides the unknown from the rest, so that without one of them the other still does."""
    found = arena({kind: [2.0, 0.1, 0.1] for kind in KINDS}, 2000, 1000)
    out, said = selecting._leaving(found, [0, 1, 2])
    assert out == (1, 2)
    assert said
    assert select(found, ["a", "b", "c"], [0, 1, 2], {})[0] == (0,)


def test_only_the_shortlist_is_fitted_again_without_classes(model, sets, monkeypatch):
    asked = []

    def watched(recipes, *rest):
        asked.append(list(recipes))
        return left_out(recipes, *rest)

    monkeypatch.setattr(choosing, "left_out", watched)
    osc = fitted(model, sets)
    assert len(osc.record.checks) > 40
    assert len(asked[0]) <= 4 + ruling.TRIED + ruling.TRIED // 4 + 3 * MEMBERS
    assert len(asked[0]) < len(osc.record.checks) * 0.7
    assert set(osc.detector.members) <= set(asked[0])
    without = {c.detector for c in osc.record.checks if c.auroc and "class left out" not in c.auroc}
    assert without == {c.detector for c in osc.record.checks} - set(asked[0])


def test_a_strong_member_stays_although_the_rest_would_do_better_alone():
    sees = ("uniform", "cutmix", "mixup", "collage", "blur")
    found = arena({kind: [5.0, 1.1] if kind in sees else [2.0, -0.3] for kind in KINDS}, 2000, 1000)
    assert found.better([0], [0, 1])
    assert np.median(list(found.auroc([1]).values())) > selecting.WEAK
    assert select(found, ["a", "b"], [0, 1], {})[0] == (0, 1)


def test_a_member_that_hears_noise_goes_and_one_that_fails_goes_at_once():
    noisy = arena({kind: [1.6, 0.0, 0.0] for kind in KINDS})
    chosen, why = select(noisy, ["a", "noise", "more"], [0, 1, 2], {})
    assert chosen == (0,)
    assert "without these 2 +" in why[1]
    chosen, why = select(noisy, ["a", "noise", "more"], [0, 1], {0: "upside down"})
    assert 0 not in chosen
    assert why[0] == "upside down"
    assert select(noisy, ["a"], [0], {0: "upside down"})[0] == (0,)  # nothing else is there


def test_more_of_your_own_images_weigh_more():
    gains = {kind: [2.0, 0.2] for kind in KINDS} | {YOURS: [0.0, 3.0]}
    found = arena(gains)
    assert select(found, ["a", "b"], [0], {})[0] == (0,)
    means = [replace(found, weights={YOURS: w}).mean(found.auroc([1])) for w in (0.1, 1.0, 10.0)]
    assert means == sorted(means)


def test_surprise_is_minus_the_log_of_p_values_and_of_known_ones_among_the_others():
    from knownot.calibration import p_values

    rng = np.random.default_rng(3)
    known, unknown = rng.normal(size=(40, 2)), rng.normal(size=(7, 2)) + 1
    found = Scoreboard.of(known, {"uniform": unknown})
    for j in range(2):
        down = np.sort(known[:, j])[::-1]  # beyond the largest an exponential tail, by the mean excess of the largest
        tail = np.maximum(unknown[:, j] - down[0], 0) / (down[:5] - down[5]).mean()
        counted = -np.log(p_values(known[:, j], unknown[:, j]))
        np.testing.assert_allclose(found.unknown["uniform"][:, j], counted + tail)
        for i in range(40):
            alone = p_values(np.delete(known[:, j], i), known[i : i + 1, j])
            np.testing.assert_allclose(found.known["uniform"][i, j], -np.log(alone[0]))
    expected = auroc(found.known["uniform"][:, 0], found.unknown["uniform"][:, 0])
    assert found.auroc([0])["uniform"] == pytest.approx(expected)


# Classes left out


def test_at_most_five_classes_are_left_out_and_each_once():
    for classes, sizes in ((2, []), (3, [1] * 3), (10, [1] * 5), (20, [2, 2]), (100, [5]), (1000, [5])):
        found = rounds(classes, 0)
        assert [len(x) for x in found] == sizes
        flat = np.concatenate(found) if found else np.empty(0)
        assert len(np.unique(flat)) == len(flat) <= 5


def test_a_class_left_out_is_far_from_the_others():
    """Each class on its own axis: a detector fitted without one finds that class, and no other, unknown."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 800)
    features = 10 * np.eye(4)[labels] + rng.normal(size=(800, 4))
    batch = Activations(features.copy(), features)
    capabilities = Capabilities(frozenset({"probabilities", "logits", "features"}), 4)
    half = slice(0, 400), slice(400, 800)
    sample, held = ((batch.take(s), labels[s]) for s in half)
    found = left_out({"m": Mahalanobis.recipe(), "no": Refuses.recipe()}, sample, held, None, capabilities)
    assert len(found) == 4
    for known, unknown in found:
        assert auroc(known[:, 0], unknown[:, 0]) == 1.0
        assert known.shape[0] + unknown.shape[0] == 400
        assert np.isnan(known[:, 1]).all()


# Pictures


@pytest.mark.parametrize(
    "way",
    [
        HALF,
        Preprocess(scale=1 / 127.5, mean=(1.0,)),
        Preprocess(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        Preprocess(channels="bgr", mean=(103.9, 116.8, 123.7)),
        Preprocess(channels="grey", scale=1 / 255, mean=(0.13,), std=(0.31,)),
    ],
)
def test_pictures_are_read_back_from_the_classifiers_input(way):
    from knownot.images.preprocess import apply

    images = toy.known(5, 0)[0]
    x = np.stack([apply(image, way) for image in images])
    pictures, again = pixels_of(x, way)
    if way.channels != "grey":
        np.testing.assert_array_equal(pictures, images)
    np.testing.assert_array_equal(np.stack([apply(image, again) for image in pictures]), x)


def test_float_arrays_are_scaled_by_their_range_and_other_channels_are_no_pictures():
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype(np.float32)
    pictures, way = pixels_of(x, None)
    assert pictures.min() == 0
    assert pictures.max() == 255
    np.testing.assert_allclose(pictures * way.scale - way.mean[0], x, atol=way.scale / 2 + 1e-6)
    assert pixels_of(x[..., :2], None) is None


# Said to people


def test_the_table_shows_what_was_decided_and_some_others():
    checks = [
        Check("a", (), {"x": 0.9, "y": 0.7}, "kept"),
        Check("b", ("Bad.",), {"x": 0.2}, "dropped", "because"),
        *(Check(f"c{i}", (), {"x": 0.5}) for i in range(4)),
    ]
    lines = table(checks, 1).splitlines()
    assert lines[1].split() == ["a", "0.800", "0.700", "y", "kept"]
    assert lines[2].split() == ["b", "0.200", "0.200", "x", "dropped", "because"]
    assert lines[3] == "  ! Bad."
    assert lines[-1] == "… and 3 more."
    assert len(table(checks).splitlines()) == 8


def test_compare_flags_detectors_and_lets_auto_choose(model, sets, tmp_path):
    images, labels = sets["calibration"]
    found = compare(
        model,
        *sets["known"],
        calibration=(images, labels),
        test={"test": sets["test"]},
        unknown={"unknown": toy.unknown(200)},
        detectors={"default": "default", "auto": SMALL, "upside": Upside.recipe()},
        preprocess=HALF,
        progress=False,
    )
    by = {c.detector: c for c in found.checks}
    assert by["default"].flags == ()
    assert "more known than known ones" in by["upside"].flags[0]
    assert {c.verdict for c in found.choices["auto"]} >= {"kept", ""}
    assert any(note.startswith("auto: Automatic choice") for note in found.notes)
    assert found.mean("auto") > 0.99
    assert found.false_alarms["auto"]["test"] < 0.05
    text = found.write(tmp_path / "compared.html", title="A <b> classifier").read_text(encoding="utf-8")
    assert "A &lt;b&gt; classifier" in text
    drawn = page.intervals(found)
    assert list(drawn)[-1] == "upside"  # the best mean first
    for line in found.lines:
        one = drawn[line.detector][line.unknown]
        assert one.value == pytest.approx(line.auroc)
        assert one.low <= line.auroc <= one.high
        assert f">{percent(line.auroc)}<" in text
    assert "<svg" in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def run(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code == 0


def test_the_command_line(model, sets, tmp_path, capsys):
    known = toy.written(tmp_path / "known", *(x[:300] for x in sets["known"]))
    held = toy.written(tmp_path / "held", *(x[:320] for x in sets["calibration"]))
    unknown = toy.written(tmp_path / "unknown", toy.unknown(12))
    names = tmp_path / "names.txt"
    names.write_text("\n".join(toy.CLASSES))
    arguments = [str(toy.saved(tmp_path)), str(known), "--calibration", str(held), "--class-names", str(names)]
    arguments += ["--preprocess", "[0, 1]", "--detector", "auto", "-o", str(tmp_path / "osc"), "--quiet"]
    run(["fit", *arguments, "--unknown", str(unknown)])
    out = capsys.readouterr().out
    assert "detector" in out
    assert "kept" in out
    assert "more." in out
    run(["fit", *arguments, "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert {c["verdict"] for c in facts["checks"]} >= {"kept", ""}
    assert facts["checks"][0]["auroc"]["uniform"] >= 0


def test_until_it_has_chosen_it_is_the_default():
    from knownot.checks.detectors import fitted as fitted_on_problem
    from knownot.checks.detectors import problem
    from knownot.detectors import resolve

    on = problem()
    auto, default = (fitted_on_problem(resolve(name, on.capabilities)[0], on) for name in ("auto", "default"))
    assert isinstance(default, Combined)
    np.testing.assert_array_equal(auto.score(on.unknown), default.score(on.unknown))

"""A fit does not depend on the order of the images or on how they were divided."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot import Preprocess, saving
from knownot.checks.detectors import problem
from knownot.detectors import DETECTORS, Recipe
from knownot.detectors.methods.energy import Energy
from knownot.errors import OptionError, SavedError
from knownot.fitting.distributed import kinds
from knownot.openset.parts import DEFAULTS, fit_part, merge, save_part
from knownot.openset.steps import agree_on
from knownot.stats import gather

HALF = Preprocess(scale=1 / 255, name="[0, 1]")
ONE_PASS = [name for name, recipe in DETECTORS.items() if not recipe.kind.passes_by_fit]


def kept(statistics, folder):
    """Written and read again."""
    folder.mkdir()
    saving.write(folder, {"all": tuple(one.settled() for one in statistics)}, about={})
    return saving.read(folder, kinds())[0]["all"]


@pytest.fixture(scope="module")
def table():
    """(the problem with the passes that detectors read, every statistic that one pass fits, in a fixed order)."""
    on = problem()
    passes = [each for name in ONE_PASS for each in DETECTORS[name].passes(held_out=True)]
    on = on.shown(passes)
    keys = np.random.default_rng(7).integers(0, 2**64, len(on.train), dtype=np.uint64)
    on = replace(on, train=replace(on.train, keys=keys))
    wanted = list(
        dict.fromkeys(w for name in ONE_PASS for w in DETECTORS[name].required_statistics(on.capabilities).values())
    )
    return on, wanted


def scores(on, wanted, statistics):
    recipes = [DETECTORS[name] for name in ONE_PASS]
    found = dict(zip(wanted, statistics, strict=True))
    fitted = [recipe.fit(found, on.head, on.capabilities) for recipe in recipes]
    return {name: np.asarray(d.member_scores(on.known)) for name, d in zip(ONE_PASS, fitted, strict=True)}


@pytest.fixture(scope="module")
def whole(table):
    on, wanted = table
    found = gather([(on.train, on.labels)], wanted)
    return scores(on, wanted, [found[want] for want in wanted])


@pytest.mark.parametrize("parts", [1, 2, 7, 16])
def test_every_detector_that_one_pass_fits(table, whole, parts, tmp_path):
    on, wanted = table
    rng = np.random.default_rng(parts)
    order = rng.permutation(len(on.train))
    cuts = np.sort(rng.choice(np.arange(1, len(order)), parts - 1, replace=False))
    made = []
    for i, rows in enumerate(np.split(order, cuts)):
        batches = [(on.train.take(some), on.labels[some]) for some in np.array_split(rows, max(1, len(rows) // 50))]
        found = gather(batches, wanted)
        made.append(kept([found[want] for want in wanted], tmp_path / str(i)))
    rng.shuffle(made)
    merged = reduce(lambda a, b: tuple(x.merge(y) for x, y in zip(a, b, strict=True)), made)
    for name, found in scores(on, wanted, merged).items():
        scale = np.abs(whole[name]).max()
        np.testing.assert_allclose(found, whole[name], rtol=1e-6, atol=1e-8 * scale, err_msg=name)


# A whole fit


def arguments(**more):
    """Of a fit whose numbers are to be compared: nothing is searched for."""
    return {
        "preprocess": HALF,
        "class_names": toy.CLASSES,
        "progress": False,
        "thumbnails": 40,
        "batch_size": 64,
        "shifts": False,
        **more,
    }


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    import onnx

    path = tmp_path_factory.mktemp("net") / "net.onnx"
    onnx.save(toy.graph(), path)
    return path


@pytest.fixture(scope="module")
def images():
    """Known images with copies, some under another label, and calibration images with copies of their own and some
    known ones among them."""
    (x, y), (held, own) = toy.known(500, 2), toy.known(150, 3)
    other = (y[:40] + 1) % 4
    known = np.concatenate([x, x[:40], x[:60]]), np.concatenate([y, other, y[:60]])
    calibration = np.concatenate([held, held[:30], x[:9]]), np.concatenate([own, own[:30], y[:9]])
    return known, calibration


def alike(one, other):
    """Two open-set classifiers that are the same but for rounding."""
    np.testing.assert_allclose(one.calibration.scores, other.calibration.scores, rtol=1e-5)
    assert one.calibration.p_threshold == other.calibration.p_threshold
    assert one.record.notes == other.record.notes
    for name in ("known", "held_out", "calibration", "ranking", "accuracy_images", "unreadable_count", "void"):
        assert getattr(one.record, name) == getattr(other.record, name), name
    assert one.record.accuracy == pytest.approx(other.record.accuracy)
    np.testing.assert_array_equal(one.bank.thumbs, other.bank.thumbs)
    np.testing.assert_array_equal(one.bank.labels, other.bank.labels)
    looked = np.concatenate([toy.known(60, 9)[0], toy.unknown(40)])
    a, b = one.predict(looked), other.predict(looked)
    np.testing.assert_array_equal(a.label, b.label)
    np.testing.assert_allclose(a.score, b.score, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("held_out", [True, False])
def test_a_fit_in_parts_is_the_fit_of_all_in_any_order(net, images, held_out, tmp_path):
    (x, y), calibration = images
    options = arguments(detector=["default", "react"])
    more = {} if held_out else {"calibration": calibration[0], "calibration_labels": calibration[1]}
    whole = knownot.fit(net, x, y, **options, **more)
    order = np.random.default_rng(1).permutation(len(x))
    again = np.random.default_rng(2).permutation(len(calibration[0]))
    if not held_out:
        more = {"calibration": calibration[0][again], "calibration_labels": calibration[1][again]}
    made = [fit_part(net, x[order], y[order], part=(i, 5), **options, **more) for i in (4, 1, 5, 2, 3)]
    folders = [save_part(part, tmp_path / str(i)) for i, part in enumerate(made[:3])]
    osc = merge([*folders, *(pickle.loads(pickle.dumps(part)) for part in made[3:])], model=net)
    alike(osc, whole)


def test_the_automatic_choice_comes_out_the_same(net, tmp_path):
    (x, y), held = toy.known(500, 2), toy.known(400, 3)
    options = arguments(detector="auto", calibration=held[0], calibration_labels=held[1], guarantee="marginal")
    whole = knownot.fit(net, x, y, **options)
    made = [save_part(fit_part(net, x, y, part=(i, 2), **options), tmp_path / str(i)) for i in (1, 2)]
    alike(merge(made, model=net), whole)


def test_parts_that_do_not_belong_together_are_refused(net, images, tmp_path, monkeypatch):
    (x, y), _ = images
    one, two = (fit_part(net, x, y, part=(i, 3), **arguments(detector="energy")) for i in (1, 2))
    with pytest.raises(SavedError, match="Of ndarray of 600 images, 3 parts, 1 are missing: 3"):
        merge([one, two], model=net)
    with pytest.raises(SavedError, match="Part 2/3 of ndarray of 600 images is there twice"):
        merge([two, two, fit_part(net, x, y, part=(1, 3), **arguments(detector="energy"))], model=net)
    other = fit_part(net, x, y, part=(3, 3), **arguments(detector="energy", alpha=0.1))
    with pytest.raises(SavedError, match="alpha, guarantee, delta or seed of part 1/3"):
        merge([one, other], model=net)
    with pytest.raises(SavedError, match=r"holds a part of a fit.*'knownot merge' makes a classifier"):
        knownot.load(save_part(one, tmp_path / "part"))
    with pytest.raises(OptionError, match="There is no option of fit_part 'alfa'"):
        fit_part(net, x, y, alfa=1)
    monkeypatch.setattr(Energy, "passes_by_fit", True)
    monkeypatch.setattr(Recipe, "passes", lambda self, held_out: ())
    with pytest.raises(OptionError, match="cannot be fitted in parts"):
        fit_part(net, x, y, **arguments(detector="energy"))


def test_two_places_merge_what_they_know(net, images):
    """As hospitals that share no image: each gives all of its own as one part."""
    (x, y), _ = images
    options = arguments(detector="mahalanobis++")
    whole = knownot.fit(net, x, y, **options)
    here, there = (fit_part(net, x[rows], y[rows], **options) for rows in (slice(0, 250), slice(250, None)))
    alike(merge([here, there], model=net), whole)


def test_a_part_may_have_no_images(net):
    (x, y), (held, _) = toy.known(5, 2), toy.known(100, 3)
    options = arguments(detector="energy", calibration=held, allow_low_accuracy=True)
    parts = [fit_part(net, x, y, part=(i, 9), **options) for i in range(1, 10)]
    assert [part.known.images for part in parts] == [0, 1, 0, 1, 0, 1, 0, 1, 1]
    assert merge(parts, model=net).record.known == 5


@pytest.mark.parametrize("held_out", [True, False])
def test_parts_tell_of_changed_images_as_one_fit_does(net, images, held_out, tmp_path):
    (x, y), (held, own) = images
    more = {} if held_out else {"calibration": held, "calibration_labels": own}
    options = arguments(detector="energy", guarantee="marginal") | {"shifts": ["jpeg-50", "darker"], **more}
    whole = knownot.fit(net, x, y, **options)
    order = np.random.default_rng(1).permutation(len(x))
    made = [save_part(fit_part(net, x[order], y[order], part=(i, 3), **options), tmp_path / str(i)) for i in (3, 1, 2)]
    osc = merge(made, model=net)
    assert [kind.name for kind in osc.shifts.kinds] == ["jpeg-50", "darker"]
    assert osc.shifts.passes == whole.shifts.passes
    for one, other in zip(osc.shifts.kinds, whole.shifts.kinds, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-5)
        np.testing.assert_array_equal(one.predicted, other.predicted)
        assert (one.accuracy, one.adapts) == (other.accuracy, other.adapts)
    np.testing.assert_allclose(osc.shifts.told, whole.shifts.told, rtol=1e-6)


def test_what_is_kept_to_be_changed_does_not_grow_with_the_number_of_parts(net, images):
    (x, y), _ = images
    x = np.concatenate([x, toy.known(2000, 8)[0]])
    y = np.concatenate([y, np.full(2000, -1)])
    options = arguments(detector="energy") | {"shifts": True}
    parts = [fit_part(net, x, y, part=(i, 4), **options) for i in range(1, 5)]
    assert 300 < sum(len(part.sample) for part in parts) < 4 * 300 + 6 * (4 * 300) ** 0.5
    here = fit_part(net, x, y, **arguments(detector="energy") | {"shifts": None})
    assert here.sample is None, "images of a place of its own may have to stay there"


def test_kinds_of_change_that_are_no_names_are_refused_where_a_part_is_kept(net, images, tmp_path):
    (x, y), _ = images
    part = fit_part(net, x, y, part=(1, 2), **arguments(detector="energy") | {"shifts": {"mine": np.flip}})
    with pytest.raises(OptionError, match="kinds of change"):
        save_part(part, tmp_path / "part")


def test_the_choice_sees_held_out_images_of_all_parts(net):
    """Those of smallest number, whoever had them."""
    x, y = toy.known(1200, 2)
    options = arguments(detector=["auto"], guarantee="marginal")
    whole, one, two = (fit_part(net, x, y, part=part, **options) for part in ((1, 1), (1, 2), (2, 2)))
    job = agree_on(net, (x, y), **DEFAULTS | options).job
    one.merge(two, job)
    for kept in (one.watch, one.hold.watch):
        np.testing.assert_array_equal(kept.kept[1].rank, whole.watch.kept[1].rank)

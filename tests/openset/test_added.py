"""A class added from a handful of images, and taken away again."""

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot.calibration import p_values
from knownot.errors import ImagesError, OptionError
from knownot.openset.added import AddedClass, claim


def green(n, seed):
    return toy.unknown(2 * n, seed)[::2]


def noise(n, seed):
    return toy.unknown(2 * n, seed)[1::2]


@pytest.fixture(scope="module")
def osc():
    return knownot.fit(
        toy.graph(), *toy.known(300, 2), progress=False, thumbnails=0, preprocess=knownot.Preprocess(scale=1 / 255),
        calibration=toy.known(800, 3)[0], class_names=toy.CLASSES,
    )  # fmt: skip


@pytest.fixture(scope="module")
def more(osc):
    return osc.with_class("green", green(20, 1))


def test_its_images_come_to_it_and_no_others(more):
    verdicts = more.predict(np.concatenate([green(60, 5), noise(60, 5)]))
    got = np.array(verdicts.class_name)
    assert (got[:60] == "green").mean() > 0.8
    assert (got[60:] == "unknown").mean() > 0.9
    assert verdicts.known[got == "green"].all()
    assert set(verdicts.label[got == "green"]) == {4}
    assert verdicts[0].class_name == "green"
    assert verdicts[0].status == "known"


def test_known_images_are_judged_as_before(osc, more):
    images = toy.known(300, 4)[0]
    before, after = osc.predict(images), more.predict(images)
    accepted = before.label >= 0
    np.testing.assert_array_equal(after.label[accepted], before.label[accepted])
    np.testing.assert_array_equal(after.p_value, before.p_value)
    assert (osc.added, len(more.added)) == ((), 1)


def test_it_is_saved_and_taken_away(osc, more, tmp_path):
    more.save(tmp_path / "osc")
    again = knownot.load(tmp_path / "osc")
    images = np.concatenate([green(20, 6), toy.known(20, 6)[0]])
    np.testing.assert_array_equal(again.predict(images).label, more.predict(images).label)
    assert again.predict(images).class_names == (*toy.CLASSES, "green")
    two = again.with_class("noise", noise(10, 2))
    got = two.predict(np.concatenate([green(20, 7), noise(20, 7)])).class_name
    assert got.count("green") > 12
    assert got.count("noise") > 12
    bare = two.without_class("green").without_class("noise")
    np.testing.assert_array_equal(bare.predict(images).label, osc.predict(images).label)
    assert two.without_class("green").predict(green(20, 7)).class_name.count("green") == 0
    assert two.select(two.predict(images)).images == 40  # verdicts of many images go on working
    assert two.monitor().update(two.predict(images)) is not None


@pytest.mark.parametrize("m", [5, 10])
def test_few_images_do_not_make_a_class_of_everything(osc, m):
    added = osc.with_class("green", green(m, 1), alpha=0.01)
    assert added.added[0].alpha == 1 / (m + 1)
    got = added.predict(np.concatenate([green(40, 5), noise(40, 5)])).class_name
    assert got[40:].count("green") == 0
    assert got[:40].count("green") > 20


def test_the_promise_for_its_images_holds():
    """At most alpha of the new class's images are not given to it, on average over draws of its images."""
    rng, lost = np.random.default_rng(0), []
    for _ in range(200):
        x = rng.normal(size=(219, 6)) + 3
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        added = AddedClass.of("a", x[:19], 19, 0.1)
        lost.append((claim([added], x[19:]) < 0).mean())
    assert 0.07 < np.mean(lost) < 0.1 + 3 * np.std(lost) / np.sqrt(200) + 0.02  # leaving one out is nearly exact


def test_reach_is_the_condition_on_the_p_value_solved_for_the_distance():
    rng = np.random.default_rng(2)
    for m, alpha in ((5, 0.01), (7, 1 / 8), (19, 0.05), (19, 0.1), (20, 0.3), (9, 0.95)):
        x = rng.normal(size=(m, 4))
        added = AddedClass.of("a", x / np.linalg.norm(x, axis=1, keepdims=True), m, alpha)
        distances = np.concatenate([added.distances, added.distances + 1e-9, rng.uniform(0, 2, 500)])
        belongs = [p > added.alpha * (1 + 1e-12) for p in p_values(added.distances, distances)]
        np.testing.assert_array_equal(distances <= added.reach, belongs)


def test_distances_are_to_the_mean_of_the_others():
    x = np.random.default_rng(1).normal(size=(7, 4))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    expected = []
    for i in range(7):
        mean = np.delete(x, i, axis=0).mean(axis=0)
        expected.append(1 - x[i] @ mean / np.linalg.norm(mean))
    np.testing.assert_allclose(AddedClass.of("a", x, 3, 0.05).distances, np.sort(expected))


def test_what_may_be_expected_is_said(more):
    said = more.added[0].sentence
    assert said.startswith("class 'green' from 20 images: ")
    assert "can be found (95 % confidence), and about 95.2 % of those are given to it" in said


def test_bad_requests_are_explained(osc, more):
    with pytest.raises(OptionError, match="there are stripes, columns, red, blue, green"):
        more.with_class("green", green(9, 1))
    with pytest.raises(OptionError, match="new name"):
        osc.with_class("unknown", green(9, 1))
    with pytest.raises(ImagesError, match="4 readable images"):
        osc.with_class("few", green(4, 1))
    with pytest.raises(OptionError, match="alpha=2"):
        osc.with_class("a", green(9, 1), alpha=2)
    with pytest.raises(OptionError, match="own classes stay"):
        osc.without_class("red")


def test_a_run_of_predict_knows_it(osc, more):
    assert osc.digest != more.digest == more.without_class("green").with_class("green", green(20, 1)).digest

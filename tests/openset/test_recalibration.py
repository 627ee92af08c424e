"""Another alpha, other calibration images, and what became of the promise: nothing is fitted again."""

import json
from dataclasses import replace

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot.calibration import Calibration, allowed_rank
from knownot.cli import main
from knownot.errors import CalibrationError, LabelsError, OptionError
from knownot.measure import auroc
from knownot.openset.evaluation import Share, _chance


@pytest.fixture(scope="module")
def osc(tmp_path_factory):
    path = toy.saved(tmp_path_factory.mktemp("toy"))
    images, labels = toy.known(400, 3)
    return knownot.fit(
        path, *toy.known(500, 2), calibration=images, calibration_labels=labels, class_names=toy.CLASSES, progress=False
    )


def test_another_alpha_is_what_fit_with_it_and_the_same_split_would_say(osc):
    other = osc.with_alpha(0.2, guarantee="marginal")
    assert (other.alpha, other.calibration.guarantee, other.calibration.delta) == (0.2, "marginal", 0.01)
    n = len(osc.calibration.scores)
    assert other.calibration.p_threshold == allowed_rank(n, 0.2, "marginal") / (n + 1)
    x = toy.known(500, 4)[0]
    one, two = osc.predict(x), other.predict(x)
    np.testing.assert_array_equal(one.p_value, two.p_value)
    np.testing.assert_array_equal(two.unknown, one.p_value <= other.calibration.p_threshold * (1 + 1e-12))
    assert two.unknown.sum() > one.unknown.sum()
    assert osc.alpha == 0.05
    assert osc.with_alpha(0.05).calibration.p_threshold == osc.calibration.p_threshold


def test_too_few_images_for_another_alpha(osc):
    with pytest.raises(CalibrationError, match=r"344 calibration images are too few for alpha=0.001.*4,603"):
        osc.with_alpha(0.001)
    with pytest.raises(OptionError, match="alpha"):
        osc.with_alpha(5)


def test_recalibrated_on_the_same_images_is_the_same(osc):
    images, labels = toy.known(400, 3)
    again = osc.recalibrated(images, labels)
    x = toy.unknown(100)
    np.testing.assert_allclose(again.predict(x).score, osc.predict(x).score, rtol=1e-6)
    np.testing.assert_allclose(again.calibration.scores, osc.calibration.scores, rtol=1e-6)
    assert again.record.accuracy == osc.record.accuracy


def test_after_a_shift_the_promise_holds_again(osc, tmp_path):
    """Known images of another camera: darker and noisier. Before, most are lost; afterwards at most alpha."""

    def shifted(n, seed):
        x, y = toy.known(n, seed)
        noise = np.random.default_rng(seed + 1000).normal(0, 14, x.shape)
        return np.clip(0.8 * x + noise, 0, 255).astype(np.uint8), y

    x, y = shifted(600, 5)
    before = osc.evaluate(x, y)
    assert before.broken
    assert "Calibrate again" in before.finding
    site = osc.recalibrated(*shifted(600, 6), guarantee="marginal")
    after = site.evaluate(x, y)
    assert not after.broken
    assert after.rejected.value < 0.1 < 0.5 < before.rejected.value
    assert site.record.calibration_is_new
    assert "Calibrated anew on 600 images; before, on 400." in site.record.notes
    loaded = knownot.load(site.save(tmp_path / "site"))
    np.testing.assert_array_equal(loaded.predict(x).p_value, site.predict(x).p_value)


def test_too_few_images_to_recalibrate(osc):
    with pytest.raises(CalibrationError, match="20 calibration images are too few"):
        osc.recalibrated(toy.known(20, 3)[0])


def test_evaluation_counts_what_verdicts_say(osc):
    x, y = toy.known(500, 4)
    strange = toy.unknown(60)
    found = osc.evaluate(x, y, unknown={"strange": strange})
    verdicts, others = osc.predict(x), osc.predict(strange)
    assert found.rejected == Share(int(verdicts.unknown.sum()), 500)
    assert found.accuracy.count == (verdicts.closed_label == y).sum()
    assert found.accuracy_kept == Share(int((verdicts.label == y)[verdicts.known].sum()), int(verdicts.known.sum()))
    for k, line in enumerate(found.classes):
        assert line.name == osc.class_names[k]
        assert line.rejected == Share(int(verdicts.unknown[y == k].sum()), int((y == k).sum()))
        assert line.right.count == (verdicts.closed_label[y == k] == k).sum()
    (line,) = found.unknown
    assert line.caught == Share(int(others.unknown.sum()), 60)
    assert line.auroc == pytest.approx(auroc(verdicts.score, others.score))
    assert line.auroc_interval[0] <= line.auroc <= line.auroc_interval[1]
    assert json.loads(json.dumps(found.facts(), allow_nan=False))["rejected"]["images"] == 500
    assert f"{found.rejected} of 500 known images" in str(found)


def test_the_chance_of_so_many_rejections_is_that_of_counting():
    """Against draws: of 40 calibration scores the rule takes k = 2, and 100 new images come."""
    rule = Calibration.of(np.arange(40.0), np.zeros(40, int), guarantee="marginal")
    rng = np.random.default_rng(0)
    drawn = np.sort(rng.random((20_000, 40)), axis=1)[:, 38]  # above the second largest: p <= 2 / 41
    counts = rng.binomial(100, 1 - drawn)
    for rejected in (0, 5, 12, 20):
        assert _chance(rule, rejected, 100) == pytest.approx((counts >= rejected).mean(), abs=0.012)
    assert _chance(Calibration.of(np.arange(40.0), np.zeros(40, int), guarantee="class-conditional"), 3, 100) is None


def test_evaluation_counts_by_the_verdicts_of_added_and_of_none_classes_too(osc):
    """Two more rules decide there; an evaluation by the threshold alone would count others."""
    x, y = toy.known(300, 4)
    strange = toy.unknown(80)[::2]  # green
    more = osc.with_class("green", strange[:20])
    found, verdicts = more.evaluate(x, y, unknown=strange[20:]), more.predict(strange[20:])
    assert found.unknown[0].caught.count == verdicts.unknown.sum()
    assert found.unknown[0].caught.count < osc.predict(strange[20:]).unknown.sum()
    some = (y != 3, *(toy.known(n, seed) for n, seed in ((500, 2), (400, 3))))
    known, calibration = ((a[b != 3], b[b != 3]) for a, b in some[1:])
    none = knownot.fit(
        toy.graph(), *known, calibration=calibration[0], calibration_labels=calibration[1], progress=False,
        class_names=toy.CLASSES, none_classes=["blue"], preprocess=knownot.Preprocess(scale=1 / 255),
    )  # fmt: skip
    blue = x[y == 3]
    found = none.evaluate(x[some[0]], y[some[0]], unknown=blue)
    assert found.unknown[0].caught.count == none.predict(blue).unknown.sum() > 0.9 * len(blue)
    assert found.rejected.count == none.predict(x[some[0]]).unknown.sum()


def test_an_image_that_comes_again_counts_once_when_recalibrated(osc):
    images, labels = toy.known(150, 3)
    once, often = osc.recalibrated(images, labels), osc.recalibrated(np.concatenate([images] * 4))
    assert often.record.calibration + often.record.ranking == 150
    assert often.calibration.p_threshold == once.calibration.p_threshold
    assert "450 others were the same images again" in often.record.notes[-1]


def test_new_images_give_the_promise_back(osc):
    void = replace(osc, record=replace(osc.record, void="The calibration images are the known ones."))
    assert void.promise.startswith("none.")
    assert void.recalibrated(*toy.known(400, 3)).promise == osc.promise


def test_labels_in_another_order_are_an_error_not_an_accuracy(osc):
    x, y = toy.known(200, 4)
    with pytest.raises(LabelsError, match="another order"):
        osc.evaluate(x, (y + 1) % 4)


def test_without_labels_and_with_an_empty_set(osc):
    with pytest.raises(LabelsError, match="no labels"):
        osc.evaluate(toy.known(50, 4)[0])
    with pytest.raises(OptionError, match="empty"):
        osc.evaluate(*toy.known(50, 4), unknown={})


def test_what_it_costs_is_said():
    scores = np.arange(201.0)
    rule = Calibration.of(scores, np.zeros(201, int))
    k = allowed_rank(201, 0.05)
    assert rule.expected == k / 202
    then = allowed_rank(803, 0.05) / 804
    assert rule.cost(100) == (
        f"A known image is called unknown when p <= {k / 202:.3g}; expected: {100 * k / 202:.3g} % of known images; "
        f"with 602 more calibration images {100 * then:.3g} %, with guarantee='marginal' {100 * 10 / 202:.3g} % "
        "(on average only)."
    )
    assert Calibration.of(scores, np.zeros(201, int), guarantee="marginal").cost().endswith("4.95 % of known images.")
    each = Calibration.of(scores, np.zeros(201, int), guarantee="class-conditional")
    assert each.expected is None
    assert "predicted class" in each.cost()


def test_on_the_command_line(osc, tmp_path, capsys):
    folder = osc.save(tmp_path / "osc")
    known = toy.written(tmp_path / "known", *toy.known(120, 4))
    strange = toy.written(tmp_path / "strange", toy.unknown(20))
    main_ = ["evaluate", str(folder), str(known), "--unknown", f"odd={strange}", "--unknown", str(strange), "-q"]
    with pytest.raises(SystemExit) as stop:
        main([*main_, "--json"])
    assert not stop.value.code
    facts = json.loads(capsys.readouterr().out)
    assert [u["name"] for u in facts["unknown"]] == ["odd", "strange"]
    assert facts["rejected"]["images"] == 120
    with pytest.raises(SystemExit):
        main([*main_, "--unknown", f"odd={strange}"])
    assert "given twice" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["recalibrate", str(folder), str(known), "--alpha", "0.1", "-o", str(tmp_path / "new"), "-q"])
    assert not stop.value.code, capsys.readouterr()
    assert knownot.load(tmp_path / "new").alpha == 0.1
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["predict", str(folder), str(known), "--alpha", "0.2", "-o", str(tmp_path / "v.csv"), "-q", "--json"])
    assert json.loads(capsys.readouterr().out)["alpha"] == 0.2

"""fit and predict as a whole, on a small trained classifier."""

import dataclasses

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot import Preprocess
from knownot.calibration import allowed_rank, images_needed
from knownot.detectors import Detector
from knownot.errors import (
    ActivationsError,
    CalibrationError,
    ImagesError,
    LabelsError,
    ModelError,
    OptionError,
    UnsoundError,
)
from knownot.fitting.many import calibrate, images_that_rank
from knownot.fitting.options import CalibrationOptions

HALF = Preprocess(scale=1 / 255, name="[0, 1]")


@pytest.fixture(scope="module")
def model():
    return knownot.open_model(toy.graph())


@pytest.fixture(scope="module")
def sets():
    return {"known": toy.known(1500, 2), "calibration": toy.known(1200, 3), "test": toy.known(2000, 4)}


@pytest.fixture(scope="module")
def osc(model, sets):
    images, labels = sets["calibration"]
    return knownot.fit(model, *sets["known"], calibration=images, calibration_labels=labels, progress=False)


def test_the_toy_is_a_good_classifier_and_is_overconfident(model, sets):
    images, labels = sets["test"]
    logits = toy.reference(images / 255, toy.weights())["logits"]
    assert (logits.argmax(axis=1) == labels).mean() > 0.97
    np.testing.assert_allclose(
        model.activations((images[:50] / 255).astype(np.float32)).logits, logits[:50], rtol=1e-3, atol=1e-3
    )


def test_the_main_job(osc, sets):
    images, labels = sets["test"]
    verdicts = osc.predict(images)
    assert verdicts.unknown.mean() < 0.05  # the promise, for this calibration set
    assert verdicts.unknown.mean() > 0.01  # and not empty
    assert (verdicts.label[verdicts.known] == labels[verdicts.known]).mean() > 0.97
    assert osc.predict(toy.unknown(500)).unknown.mean() > 0.95
    assert osc.record.accuracy > 0.97
    assert osc.preprocess.name == "[0, 1]"
    assert [t.preprocess.name for t in osc.record.trials][:2] == ["[0, 255]", "[0, 1]"]
    assert osc.detector.members == ("gen", "msp", "fdbd", "knn", "mahalanobis++", "mahalanobis++ stage1")


def test_verdict_columns_agree_with_each_other(osc, sets):
    verdicts = osc.predict(np.concatenate([sets["test"][0][:100], toy.unknown(100)]))
    for i, v in enumerate(verdicts):
        assert v.id == f"#{i}"
        assert (v.label == -1) == (v.status == "unknown") == (v.p_value <= osc.calibration.p_threshold)
        assert v.class_name == ("unknown" if v.label == -1 else str(v.closed_label))
        assert v.label in (-1, v.closed_label)
        assert 0.25 <= v.confidence <= 1
        assert v.error is None
    assert verdicts.member_p_values.shape == (200, 6)
    assert verdicts[150] == next(iter(verdicts.take([150])))
    frame = verdicts.to_pandas()
    assert list(frame["label"]) == verdicts.label.tolist()
    assert verdicts.summary.startswith("200 images: ")
    assert "(99 % confidence)" in verdicts.summary


def test_p_values_are_the_calibration_counts(osc, sets):
    verdicts = osc.predict(sets["test"][0][:50])
    for score, p in zip(verdicts.score, verdicts.p_value, strict=True):
        at_least = sum(c >= score for c in osc.calibration.scores)
        assert p == (1 + at_least) / (len(osc.calibration.scores) + 1)


class Counting:
    """An opened model that counts the images it computes."""

    def __init__(self, model, monkeypatch):
        self.images = 0
        forward = model.forward

        def counted(batch, *maps):
            self.images += len(batch)
            return forward(batch, *maps)

        monkeypatch.setattr(model, "forward", counted)


def test_every_image_is_seen_once_whatever_the_detectors(sets, monkeypatch):
    model = knownot.open_model(toy.graph())
    counting = Counting(model, monkeypatch)
    inside = ("gen", "msp", "fdbd", "knn", "mahalanobis++", "auto")  # the default's own, or one that chooses
    # Not those of gradients: ONNX has none.
    everything = [name for name in knownot.detectors.working(model.capabilities) if name not in inside]
    osc = knownot.fit(
        model, *sets["known"], calibration=sets["calibration"][0], detector=everything, preprocess=HALF, progress=False
    )
    assert counting.images == 1500 + 1200
    assert len(osc.detector.members) > 14
    counting.images = 0
    verdicts = osc.predict(sets["test"][0][:300])
    assert counting.images == 300
    assert np.isfinite(verdicts.member_p_values).all()


def test_held_out_images_are_no_part_of_the_statistics(sets, monkeypatch):
    model = knownot.open_model(toy.graph())
    counting = Counting(model, monkeypatch)
    osc = knownot.fit(model, *sets["known"], preprocess=HALF, progress=False)
    assert counting.images == 1500
    assert (osc.record.known, osc.record.held_out) == (1200, 300)
    assert osc.record.calibration + osc.record.ranking == 300
    assert any("held out" in note for note in osc.record.notes)
    assert len(osc.detector.detectors[3].bank) == 1200


def test_ranking_and_calibration_images_are_different_ones():
    from knownot.detectors import Combined, Energy

    parts = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    combined = Combined((Energy(), Energy(2.0)), ("a", "b"))
    done = calibrate(combined, parts, np.zeros(400, int), CalibrationOptions())
    for ranking, calibrating in zip(done.detector.references, done.references, strict=True):
        assert not set(ranking.tolist()) & set(calibrating.tolist())
        assert len(ranking) + len(calibrating) == 400


@pytest.mark.parametrize("guarantee", ["pac", "marginal"])
def test_as_few_images_rank_as_do(guarantee):
    """By trying every number of ranking images: none leaves a rule that rejects clearly more within alpha."""
    needed = images_needed(0.05, 0.01, guarantee)
    for n in (needed + 10, 150, 201, 300, 600, 5000):
        rank = images_that_rank(n, CalibrationOptions(guarantee=guarantee))
        most = min(75, n // 2, n - needed)
        assert 10 <= rank <= max(most, 10)
        spent = {r: allowed_rank(n - r, 0.05, guarantee) / (n - r + 1) for r in range(min(30, most), most + 1)}
        assert spent[rank] >= 0.98 * max(spent.values())
        assert all(spent[r] < 0.98 * max(spent.values()) for r in range(rank + 1, most + 1))
    assert images_that_rank(600, CalibrationOptions(guarantee="class-conditional")) == 75


def test_the_promise_over_a_thousand_splits_of_real_scores(osc, sets):
    """Marginal: mean false alarms at most alpha. PAC: above alpha in at most a delta share of the splits."""
    images = np.concatenate([toy.known(2500, 11)[0], sets["test"][0]])
    parts = osc_parts(osc, images)
    alpha, delta, splits, n = 0.1, 0.1, 1000, 400
    rng = np.random.default_rng(0)
    rates = {"marginal": [], "pac": []}
    zeros = np.zeros(n, int)
    for i in range(splits):
        order = rng.permutation(len(parts))
        for guarantee, seen in rates.items():
            done = calibrate(osc.detector, parts[order[:n]], zeros, CalibrationOptions(alpha, guarantee, delta, i))
            scores = done.detector.combine(parts[order[n:]])
            p = done.calibration.p_value(scores, np.zeros(len(scores)))
            seen.append(done.calibration.unknown(p, np.zeros(len(scores))).mean())
    error = np.std(rates["marginal"]) / np.sqrt(splits)
    assert np.mean(rates["marginal"]) <= alpha + 3 * error
    assert np.mean(rates["marginal"]) > 0.8 * alpha
    # The test images are finite: a rate measured on them scatters about the true one, by this much.
    slack = 2 * np.sqrt(alpha * (1 - alpha) / (len(parts) - n))
    assert np.mean(np.array(rates["pac"]) > alpha + slack) <= delta + 3 * np.sqrt(delta * (1 - delta) / splits)


def osc_parts(osc, images):
    batch = np.asarray(images, dtype=np.float32) / 255
    return osc.scores(osc.model.activations(batch))[1]


def test_bad_rows_cost_a_row_each(osc, tmp_path):
    images, _ = toy.known(6, 8)
    folder = toy.written(tmp_path / "in", images)
    (folder / "00002.png").write_bytes(b"")
    (folder / "00004.png").write_text("no image")
    verdicts = osc.predict(folder)
    assert verdicts.ids == tuple(f"{i:05d}.png" for i in range(6))
    assert [e is not None for e in verdicts.error] == [False, False, True, False, True, False]
    assert verdicts.status.count("unreadable") == 2
    assert verdicts.label[2] == -1
    assert np.isnan(verdicts.p_value[2])
    assert verdicts.class_name[2] == ""
    assert int(verdicts.unknown.sum()) + int(verdicts.known.sum()) == 4
    whole = osc.predict(images[[0, 1, 3, 5]])
    np.testing.assert_allclose(verdicts.score[[0, 1, 3, 5]], whole.score, rtol=1e-5)


def test_nan_for_one_image_is_a_row_and_for_all_an_error(sets):
    images = (sets["test"][0][:20] / 255).astype(np.float32)
    osc = knownot.fit(
        toy.graph(),
        (sets["known"][0] / 255).astype(np.float32),
        sets["known"][1],
        calibration=(sets["calibration"][0] / 255).astype(np.float32),
        progress=False,
    )
    assert osc.preprocess is None
    images[3] = 1e38  # finite, but not after the first convolution
    images[5] = np.nan
    verdicts = osc.predict(images)
    assert [i for i, e in enumerate(verdicts.error) if e] == [3, 5]
    assert "classifier computes NaN" in verdicts.error[3]
    with pytest.raises(ActivationsError, match="#0"):
        osc.predict(np.full_like(images, 1e38))
    with pytest.raises(ImagesError, match="float arrays"):
        osc.predict(sets["test"][0])


@dataclasses.dataclass(frozen=True)
class Cracked(Detector):
    """A detector whose score is no number for dark images."""

    needs = frozenset({"features"})
    limit: float

    @classmethod
    def fit(cls, statistics, head, **options):
        return cls(-1.0)

    def score(self, batch):
        total = batch.logits.sum(axis=1)
        return np.where(total < np.float32(self.limit), np.float32(np.nan), total)


def test_a_score_that_is_no_number_costs_its_row_and_all_of_them_the_run(model, sets):
    images, labels = sets["calibration"]
    osc = knownot.fit(model, *sets["known"], calibration=images, calibration_labels=labels,
                      detector={"cracked": Cracked.recipe(), "gen": "gen"}, preprocess=HALF,
                      progress=False)  # fmt: skip
    incoming = sets["test"][0][:40]
    assert all(e is None for e in osc.predict(incoming).error)
    activations = osc.model.activations((incoming / np.float32(255)).astype(np.float32))
    totals = activations.logits.sum(axis=1)
    limit = float(np.sort(totals)[:3].mean())
    bad = np.flatnonzero(totals < limit)
    assert 0 < len(bad) < 3
    members = tuple(
        dataclasses.replace(d, limit=limit) if isinstance(d, Cracked) else d for d in osc.detector.detectors
    )
    worse = dataclasses.replace(osc, detector=dataclasses.replace(osc.detector, detectors=members))
    verdicts = worse.predict(incoming)
    assert {i for i, e in enumerate(verdicts.error) if e} == set(bad)
    assert verdicts.error[bad[0]] == "the score of cracked is nan: it means nothing"
    assert np.isnan(verdicts.score[bad]).all()
    assert (verdicts.label[bad] == -1).all()
    others = np.setdiff1d(np.arange(40), bad)
    np.testing.assert_array_equal(verdicts.p_value[others], osc.predict(incoming).p_value[others])
    assert np.isfinite(verdicts.gallery.unknown.score).all()
    with pytest.raises(ActivationsError, match=r"score of cracked is nan for image \d+ of the batch"):
        worse.scores(activations)
    none = dataclasses.replace(members[0], limit=1e30)
    with pytest.raises(ActivationsError, match="score of cracked is nan"):
        dataclasses.replace(osc, detector=dataclasses.replace(osc.detector, detectors=(none, members[1]))).predict(
            incoming
        )


def test_other_class_order_is_found(model, sets):
    images, labels = sets["known"]
    with pytest.raises(LabelsError, match=r"another order.*label .*0.* is output 0|another order"):
        knownot.fit(model, images, (labels + 1) % 4, progress=False)
    with pytest.raises(LabelsError, match="chance"):
        knownot.fit(model, images, np.random.default_rng(0).integers(0, 4, len(labels)), progress=False)
    with pytest.raises(LabelsError, match="label is 9"):
        knownot.fit(model, images, np.where(labels == 2, 9, labels), progress=False)


def test_another_preprocessing_is_an_error_with_the_table(model, sets):
    wrong = Preprocess(scale=1e-6, name="black")
    with pytest.raises(LabelsError, match="chance"):
        knownot.fit(model, *sets["known"], preprocess=wrong, progress=False)


def test_folder_names_are_mapped_to_the_outputs(model, sets, tmp_path):
    images, labels = (x[:400] for x in sets["known"])
    folder = toy.written(tmp_path / "known", images, labels)
    with pytest.raises(LabelsError, match="another order"):
        knownot.fit(model, folder, progress=False)  # sorted: blue, columns, red, stripes
    osc = knownot.fit(model, folder, class_names=toy.CLASSES, progress=False)
    assert osc.class_names == toy.CLASSES
    verdicts = osc.predict(folder)
    known = verdicts.known
    named = [name.split("/")[0] for name in verdicts.ids]
    assert np.mean([a == b for a, b, k in zip(named, verdicts.class_name, known, strict=True) if k]) > 0.97
    with pytest.raises(LabelsError, match="'blue'"):
        knownot.fit(model, folder, class_names=["a", "b", "c", "d"], progress=False)
    with pytest.raises(LabelsError, match="3 class names"):
        knownot.fit(model, folder, class_names=["a", "b", "c"], progress=False)


def test_too_few_images_say_how_many_are_needed(model, sets):
    images, labels = (x[:100] for x in sets["known"])
    with pytest.raises(CalibrationError, match=r"120 are needed.*at least 90"):
        knownot.fit(model, images, labels, progress=False)
    with pytest.raises(CalibrationError, match="at least 90"):
        knownot.fit(model, *sets["known"], calibration=sets["calibration"][0][:80], detector="energy", progress=False)
    few = knownot.fit(model, images, labels, guarantee="marginal", progress=False)
    assert few.promise == "at most 5 % of known images are rejected on average"


def test_guarantee_per_class(model, sets):
    images, _ = sets["calibration"]
    osc = knownot.fit(
        model, *sets["known"], calibration=images, guarantee="class-conditional", detector="energy", progress=False
    )
    verdicts = osc.predict(sets["test"][0])
    for k in range(4):
        assert verdicts.unknown[verdicts.closed_label == k].mean() < 0.1
    assert osc.calibration.score_threshold is None


def test_unlabelled_images_need_a_preprocessing(model, sets):
    with pytest.raises(OptionError, match=r"preprocess=knownot\.Preprocess"):
        knownot.fit(model, sets["known"][0], progress=False)
    osc = knownot.fit(model, sets["known"][0], preprocess=HALF, progress=False)
    assert osc.record.accuracy is None
    assert osc.predict(toy.unknown(100)).unknown.mean() > 0.9
    with pytest.raises(UnsoundError, match="labels"):
        knownot.fit(model, sets["known"][0], preprocess=HALF, detector="temperature-msp", progress=False)


def test_a_generator_of_batches_is_fitted_in_one_walk(model, sets):
    images, labels = sets["known"]
    batches = ((images[i : i + 50], labels[i : i + 50]) for i in range(0, len(images), 50))
    osc = knownot.fit(model, batches, preprocess=HALF, progress=False)
    assert 1000 < osc.record.known < 1400
    assert osc.record.known + osc.record.held_out == 1500


def test_the_same_seed_gives_the_same_verdicts_and_another_one_other_splits(model, sets):
    def thresholds(seed):
        osc = knownot.fit(model, *sets["known"], preprocess=HALF, seed=seed, progress=False)
        return osc.predict(sets["test"][0][:100]).p_value

    np.testing.assert_array_equal(thresholds(0), thresholds(0))
    assert (thresholds(0) != thresholds(1)).any()


def probabilities(images):
    logits = toy.reference(images / 255, toy.weights())["logits"]
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_a_function_works_where_that_is_sound(sets, tmp_path):
    raw = Preprocess(name="raw", height=16, width=16)
    opened = knownot.open_model(probabilities, size=(16, 16))
    options = {"calibration": sets["calibration"][0], "preprocess": raw, "progress": False}
    osc = knownot.fit(opened, *sets["known"], **options)
    assert osc.detector.members == ("GEN",)
    assert any("GEN is left" in note for note in osc.record.notes)
    assert osc.predict(sets["test"][0]).unknown.mean() < 0.05
    with pytest.raises(UnsoundError, match=r"up to a constant.*msp"):
        knownot.fit(opened, *sets["known"], detector="energy", **options)
    with pytest.raises(ModelError, match="function"):
        osc.save(tmp_path / "osc")
    osc.save(tmp_path / "osc", include_model=False)
    again = knownot.load(tmp_path / "osc", model=probabilities)
    np.testing.assert_array_equal(again.predict(sets["test"][0]).p_value, osc.predict(sets["test"][0]).p_value)


def test_the_gallery_holds_the_most_unknown_and_the_borderline(osc, sets):
    images = np.concatenate([sets["test"][0][:300], toy.unknown(60)])
    verdicts = osc.predict(images, batch_size=32)
    gallery = verdicts.gallery
    most = [i for i in np.argsort(-verdicts.score, kind="stable") if verdicts.unknown[i]]
    assert 24 < len(most) < 400  # so many are kept
    assert list(gallery.unknown.ids) == [verdicts.ids[i] for i in most]
    assert gallery.unknown.unknown.all()
    gap = np.abs(np.log(verdicts.p_value) - np.log(osc.calibration.p_threshold))
    np.testing.assert_allclose(
        np.sort(np.abs(np.log(gallery.borderline.p_value) - np.log(osc.calibration.p_threshold))), np.sort(gap)[:24]
    )
    first = int(gallery.unknown.ids[0][1:])
    np.testing.assert_array_equal(gallery.unknown_thumbs[0], images[first].repeat(4, axis=0).repeat(4, axis=1))
    near = osc.bank.nearest(gallery.borderline_eyes)
    assert near.shape == (24, 3)


def test_no_thumbnails_when_not_wanted(model, sets):
    osc = knownot.fit(model, *sets["known"], preprocess=HALF, thumbnails=0, progress=False)
    assert osc.bank is None


def test_verdicts_of_no_images(osc):
    with pytest.raises(ImagesError, match="holds no images"):
        osc.predict(np.empty((0, 16, 16, 3), np.uint8))
    assert list(osc.nothing) == []


def test_the_record_is_plain_data(osc):
    for f in dataclasses.fields(osc.record):
        assert not callable(getattr(osc.record, f.name))


def test_the_sample_does_not_hang_on_the_last_bits_of_the_features(sets, monkeypatch):
    """Another runtime rounds otherwise; the images of the bank, and so the scores, have to stay the same."""
    from knownot.detectors import KNN

    def scores(noise):
        model = knownot.open_model(toy.graph())
        forward = model.forward
        rng = np.random.default_rng(1)

        def noisy(batch):
            made = forward(batch)
            factor = (1 + noise * rng.standard_normal(made.features.shape)).astype(np.float32)
            return dataclasses.replace(made, features=made.features * factor)

        monkeypatch.setattr(model, "forward", noisy)
        osc = knownot.fit(model, *sets["known"], preprocess=HALF, detector=KNN.recipe(bank=200), progress=False)
        return osc.predict(sets["test"][0][:200]).score

    np.testing.assert_allclose(scores(1e-7), scores(0), rtol=1e-3, atol=1e-5)

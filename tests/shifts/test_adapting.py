"""Verdicts adapted to the kind of change of a window, beside those that stand; on the small trained classifier."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import knownot
from helpers import toy
from knownot.calibration import p_values
from knownot.cli import group
from knownot.errors import OptionError
from knownot.openset.adapting import Windows
from knownot.outliers.changes import CHANGES

HALF = knownot.Preprocess(scale=1 / 255)


@pytest.fixture(scope="module")
def osc():
    return knownot.fit(
        toy.graph(), *toy.known(300, 2), calibration=toy.known(400, 3)[0], preprocess=HALF,
        shifts=["brightness", "grey", "blur-0.8"], progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return toy.known(260, 9)


@pytest.fixture(scope="module")
def dark(images):
    return CHANGES["darker"].change(images[0], np.random.default_rng(1))


@pytest.fixture(scope="module")
def adapted(osc, dark):
    return osc.predict(dark, adapt="batch")


def test_verdicts_that_stand_are_bit_for_bit_the_same(osc, dark, images, adapted):
    plain = osc.predict(dark)
    for name in ("p_value", "score", "label", "closed_label", "member_p_values"):
        np.testing.assert_array_equal(getattr(adapted, name), getattr(plain, name))
    clean = osc.predict(images[0], adapt="batch")
    assert not clean.shift_kind.any()
    np.testing.assert_array_equal(clean.shift_label, clean.label)
    np.testing.assert_array_equal(clean.shift_p_value, clean.p_value)


def test_false_alarms_go_and_the_class_comes_back(adapted, images):
    assert adapted.unknown.mean() > 0.9
    assert (adapted.shift_label < 0).mean() < 0.12
    assert (adapted.shift_closed_label == images[1]).mean() > (adapted.closed_label == images[1]).mean() + 0.05
    assert adapted.shift.adapted == (adapted.shift_label < 0).mean()
    assert adapted.shift.sentence.endswith(f"; adapted to it, {100 * adapted.shift.adapted:.0f} % are called unknown")


def test_unknown_images_changed_alike_are_still_caught(osc, dark):
    rng = np.random.default_rng(1)
    mixed = np.concatenate([dark[:200], CHANGES["darker"].change(toy.unknown(40), rng)])
    found = osc.predict(mixed, adapt="batch")
    assert found.shift_kind[0] == 1
    assert (found.shift_label[200:] < 0).mean() > 0.9


def test_p_values_are_those_of_copies_moved_back(osc, dark, adapted):
    """The same by hand: activations less the mean difference of half of the copies, scored, ranked among the others."""
    kind = osc.shifts.kinds[0]
    assert kind.name == "darker"
    seen = osc.model.activations((dark / np.float32(255)).transpose(0, 3, 1, 2).astype(np.float32))
    features = seen.features - kind.moves["features"]
    stages = {name: x - kind.moves[f"stages/{name}"] for name, x in seen.stages.items()}
    logits = features @ osc.model.head.weight.T + osc.model.head.bias
    scores, _ = osc.scores(replace(seen, features=features, stages=stages, logits=logits.astype(np.float32)))
    np.testing.assert_allclose(adapted.shift_p_value, p_values(kind.moved_back, scores), atol=2 / 150)
    np.testing.assert_array_equal(adapted.shift_closed_label, logits.argmax(axis=1))
    copies = toy.known(400, 3)[0]
    assert len(kind.moved_back) == 150 == len(copies) // 2 - 50


def test_a_folder_of_unknown_images_is_not_taken_for_changed_ones(osc, monkeypatch):
    strange = np.clip(toy.unknown(600)[::2] * 0.25 + 60, 0, 255).astype(np.uint8)
    windows = Windows(osc)
    monkeypatch.setattr(type(osc.shifts), "kind", lambda self, counts, before=0: (1, 1.0))  # whatever it looks like
    found = osc.predict(strange, adapt="batch")
    assert not found.shift_kind.any()
    assert found.unknown.all()
    monkeypatch.setattr("knownot.openset.adapting.KNOWN", -1.0)
    assert (osc.predict(strange, adapt="batch").shift_kind == 1).all()
    assert list(windows.flush()) == []


def test_a_kind_on_which_the_classifier_fails_is_named_and_left_out(osc, images):
    found = osc.predict(CHANGES["grey"].change(images[0], np.random.default_rng(1)), adapt="batch")
    assert not found.shift_kind.any()
    assert found.shift.sentence.endswith("verdicts were not adapted: the classifier is not good enough there")


def test_the_kind_stays_until_another_is_clearly_more(osc, images, dark):
    """Windows of 200; the last one is too few to tell, and keeps the kind before it."""
    both = np.concatenate([dark[:200], images[0][:200], dark[:15]])
    kinds = osc.predict(both, adapt="batch", batch_size=50).shift_kind
    assert kinds.tolist() == [1] * 200 + [0] * 215
    assert osc.predict(np.concatenate([dark[:200], images[0][:10]]), adapt="batch").shift_kind.all()


def test_live_no_image_is_waited_for(osc, dark):
    asked = []

    def camera():
        for i, image in enumerate(dark[:205]):
            asked.append(i)
            yield image[None]

    kinds = []
    for verdicts in osc.stream(camera(), live=True, adapt="batch"):
        assert len(asked) == len(kinds) + 1
        kinds.append(int(verdicts.shift_kind[0]))
    assert kinds == [0] * 200 + [1] * 5


def test_what_cannot_be_adapted_to_is_an_error(osc, dark):
    with pytest.raises(OptionError, match="expected 'batch'"):
        osc.predict(dark, adapt="image")
    with pytest.raises(OptionError, match="did not look at changes"):
        replace(osc, shifts=None).predict(dark, adapt="batch")
    with pytest.raises(OptionError, match="150 copies of each kind"):
        osc.with_alpha(0.004, guarantee="marginal").predict(dark, adapt="batch")


def test_every_table_has_both(osc, adapted, dark, tmp_path):
    adapted.to_csv(tmp_path / "v.csv")
    adapted.to_jsonl(tmp_path / "v.jsonl")
    adapted.to_parquet(tmp_path / "v.parquet")
    import pyarrow.parquet as pq

    with (tmp_path / "v.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "v.parquet").to_pylist()
    frame = adapted.to_pandas()
    for i, label in enumerate(adapted.shift_label):
        status = "unknown" if label < 0 else "known"
        for row in (rows[i], lines[i], table[i], frame.iloc[i]):
            assert (row["shift"], row["shift_status"]) == ("darker", status)
            assert float(row["shift_p_value"]) == adapted.shift_p_value[i]
            assert row["status"] == adapted.status[i]
    osc.save(tmp_path / "osc")
    toy.written(tmp_path / "dark", dark[:220])
    for suffix in ("csv", "parquet"):
        done = CliRunner().invoke(
            group,
            ["predict", *(str(tmp_path / name) for name in ("osc", "dark")), "-o", str(tmp_path / f"c.{suffix}"),
             "--adapt", "--quiet", "--batch-size", "64"],
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        assert "; adapted to it, " in done.output
    with (tmp_path / "c.csv").open(encoding="utf-8") as file:
        told = list(csv.DictReader(file))
    assert [row["shift_status"] for row in told] == [row["shift_status"] for row in rows[:220]]
    assert pq.read_table(tmp_path / "c.parquet").to_pylist()[7]["shift"] == "darker"
    assert "shift" not in osc.predict(dark[:30]).to_pandas()


def test_a_kind_counts_as_good_enough_moved_back_or_not(monkeypatch):
    """Darker, the classifier is right on some 87 %, and moved back on all; blurred on fewer than 99.5 % in any way."""
    monkeypatch.setattr("knownot.shifts.learn.ENOUGH", 0.995)
    images, labels = toy.known(400, 3)
    osc = knownot.fit(
        toy.graph(), *toy.known(300, 2), calibration=images, calibration_labels=labels, preprocess=HALF,
        shifts=["darker", "blur-0.8"], detector="msp", progress=False,
    )  # fmt: skip
    kinds = osc.shifts.kinds
    assert [kind.accuracy < 0.97 for kind in kinds] == [True, True]
    assert [kind.adapts for kind in kinds] == [True, False]

"""Decisions over a batch, through the open-set classifier and the command line."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

import knownot
from helpers import toy
from knownot.calibration import p_values
from knownot.cli import group
from knownot.errors import OptionError


@pytest.fixture(scope="module")
def osc():
    return knownot.fit(
        toy.graph(), *toy.known(300, 2), progress=False, thumbnails=0, preprocess=knownot.Preprocess(scale=1 / 255),
        calibration=toy.known(800, 3)[0],
    )  # fmt: skip


@pytest.fixture(scope="module")
def verdicts(osc):
    return osc.predict(np.concatenate([toy.known(100, 4)[0], toy.unknown(100)]))


def test_the_classifier_selects_and_bounds_and_estimates(osc, verdicts):
    chosen = osc.select(verdicts, fdr=0.2)
    assert chosen.calibration == len(osc.calibration.scores)
    assert (chosen.rows >= 100).mean() >= 0.7
    assert chosen.count > 10
    bound = osc.known_bound(verdicts)
    assert (chosen.rows < 100).sum() <= bound.among(chosen.rows) < chosen.count
    share = osc.unknown_share(verdicts)
    assert share.at_least <= 0.5 <= share.high
    assert share.low > 0.2
    assert share.calibration == len(osc.calibration.scores) < 800  # the others rank the detectors
    images = toy.known(100, 4)[0]
    np.testing.assert_array_equal(osc.select(images).q_value, osc.select(osc.predict(images)).q_value)


def test_class_conditional_verdicts_are_ranked_among_all_calibration_images(osc, verdicts):
    by_class = dataclasses.replace(osc.calibration, guarantee="class-conditional")
    other = dataclasses.replace(osc, calibration=by_class)
    theirs = other.predict(np.concatenate([toy.known(100, 4)[0], toy.unknown(100)]))
    assert (theirs.p_value != verdicts.p_value).any()  # p-values of each class's own images
    np.testing.assert_array_equal(other.select(theirs).q_value, osc.select(verdicts).q_value)
    np.testing.assert_allclose(p_values(osc.calibration.scores, theirs.score), verdicts.p_value)


def test_verdicts_of_another_classifier_are_refused(osc, verdicts):
    with pytest.raises(OptionError, match="another open-set classifier"):
        osc.select(dataclasses.replace(verdicts, members=("knn",)))


def test_predict_with_fdr_writes_what_it_selected(osc, tmp_path):
    osc.save(tmp_path / "osc")
    toy.written(tmp_path / "in", np.concatenate([toy.known(40, 4)[0], toy.unknown(60)]))
    (tmp_path / "in" / "00007.png").write_bytes(b"")
    output = tmp_path / "v.csv"
    arguments = ["predict", str(tmp_path / "osc"), str(tmp_path / "in"), "-o", str(output), "--fdr", "0.2", "-q"]
    done = CliRunner().invoke(group, arguments, catch_exceptions=False)
    assert "are selected as unknown; on average at most 20 % of the selected ones are known" in done.output
    assert "wherever one cuts the list" in done.output
    with (tmp_path / "v.csv.selected.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 10
    assert [float(r["p_value"]) for r in rows] == sorted(float(r["p_value"]) for r in rows)
    assert [int(r["known_so_far_at_most"]) for r in rows] == sorted(int(r["known_so_far_at_most"]) for r in rows)
    chosen = osc.select(osc.predict(tmp_path / "in"), fdr=0.2)
    assert len(rows) == chosen.count
    more = ["--json", "--strangest", "40", "--report", str(tmp_path / "r.html")]
    done = CliRunner().invoke(group, [*arguments, *more], catch_exceptions=False)
    bound = osc.known_bound(osc.predict(tmp_path / "in"))
    least = int(bound.curve()[39])
    assert least < 40
    assert json.loads(done.output)["strangest"] == {"images": 40, "known_at_most": least, "confidence": 0.95}
    html = (tmp_path / "r.html").read_text()
    assert f"of the 40 strangest images at most {least}" in html
    steps = json.loads(re.search(r'data-steps="([^"]+)"', html)[1].replace("&#34;", '"'))
    assert all(known == bound.curve()[count - 1] for _, count, known in steps if count)
    facts = json.loads(done.output)["batch"]
    assert (facts["selected"], facts["fdr"]) == (chosen.count, 0.2)
    assert facts["known_among_selected_at_most"] == osc.known_bound(osc.predict(tmp_path / "in")).among(chosen.rows)


def test_nothing_selected_says_what_is_needed(osc, tmp_path):
    osc.save(tmp_path / "osc")
    toy.written(tmp_path / "in", toy.known(60, 4)[0])
    arguments = ["predict", str(tmp_path / "osc"), str(tmp_path / "in"), "-o", str(tmp_path / "v.csv"), "-q"]
    done = CliRunner().invoke(group, [*arguments, "--fdr", "0.001"], catch_exceptions=False)
    assert "nothing can be selected" in done.output
    assert "59,999 calibration images" in done.output
    assert not (tmp_path / "v.csv.selected.csv").read_text().splitlines()[1:]


def test_the_bound_is_said_in_words_and_refused_of_a_file(osc, tmp_path):
    osc.save(tmp_path / "osc")
    osc.export(tmp_path / "osc.onnx")
    toy.written(tmp_path / "in", toy.unknown(30))
    arguments = [str(tmp_path / "in"), "-o", str(tmp_path / "v.csv"), "--strangest", "90", "-q"]
    done = CliRunner().invoke(group, ["predict", str(tmp_path / "osc"), *arguments], catch_exceptions=False)
    assert "- of the 30 strangest images at most " in done.output
    with pytest.raises(OptionError, match="no calibration scores"):
        CliRunner().invoke(
            group, ["predict", str(tmp_path / "osc.onnx"), *arguments], catch_exceptions=False, standalone_mode=False
        )

"""`fit --part` on several machines, and `merge`."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import knownot
from helpers import toy
from knownot.cli import group
from knownot.errors import OptionError, SavedError


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("parts")
    toy.saved(home)
    toy.written(home / "known", *toy.known(320, 2))
    toy.written(home / "calibration", *toy.known(160, 3))
    (home / "classes.txt").write_text("\n".join(toy.CLASSES))
    return home


def asked(home, *more):
    given = ["fit", str(home / "toy.onnx"), str(home / "known"), "--class-names", str(home / "classes.txt")]
    return [*given, "--calibration", str(home / "calibration"), "--quiet", "--json", *more]


def said(*arguments):
    done = CliRunner().invoke(group, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_parts_made_alone_merge_to_what_one_fit_makes(home):
    said(*asked(home, "-o", home / "whole"))
    told = [said(*asked(home, "--part", f"{i}/3", "-o", home / f"part-{i}")) for i in (3, 1, 2)]
    assert sum(one["known"] for one in told) == 320
    assert [(home / f"part-{i}" / "model.onnx").exists() for i in (1, 2, 3)] == [True, False, False]
    facts = said("merge", *(home / f"part-{i}" for i in (3, 2, 1)), "-o", home / "osc", "--quiet", "--json")
    assert facts["known"] == 320
    whole, osc = knownot.load(home / "whole"), knownot.load(home / "osc")
    looked = np.concatenate([toy.known(60, 9)[0], toy.unknown(40)])
    np.testing.assert_array_equal(osc.predict(looked).label, whole.predict(looked).label)
    np.testing.assert_allclose(osc.predict(looked).p_value, whole.predict(looked).p_value, atol=2e-3)
    assert (osc.record.trials, osc.promise) == (whole.record.trials, whole.promise)
    with pytest.raises(SavedError, match="2 are missing: 2, 3"):
        CliRunner().invoke(group, ["merge", str(home / "part-1"), "-o", str(home / "x")], catch_exceptions=False)


def test_a_part_that_there_is_not(home):
    for text in ("0/3", "4/3", "3", "a/b"):
        with pytest.raises(OptionError, match="--part"):
            CliRunner().invoke(group, asked(home, "--part", text, "-o", "x"), catch_exceptions=False)


@pytest.mark.parametrize("engine", ["none", "processes"])
def test_parts_of_one_call_are_what_one_fit_makes(home, engine):
    whole = said(*asked(home, "-o", home / "at-once"))
    facts = said(*asked(home, "-o", home / engine, "--parts", 3, "--engine", engine, "--workers", 2))
    assert (facts["known"], facts["accuracy"]) == (whole["known"], whole["accuracy"])
    looked = np.concatenate([toy.known(60, 9)[0], toy.unknown(40)])
    first, osc = knownot.load(home / "at-once"), knownot.load(home / engine)
    np.testing.assert_array_equal(osc.predict(looked).label, first.predict(looked).label)


def test_what_other_processes_cannot_be_given(home):
    more = ("--parts", "2", "--engine", "processes", "--size", "16", "-o", "x")
    with pytest.raises(OptionError, match="opens the classifier anew in each process"):
        CliRunner().invoke(group, asked(home, *more), catch_exceptions=False)
    with pytest.raises(OptionError, match="give one of the two"):
        CliRunner().invoke(group, asked(home, "--parts", "2", "--part", "1/2", "-o", "x"), catch_exceptions=False)

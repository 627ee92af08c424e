"""`predict --parts`: each image once, whoever is killed."""

import json
import os
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import knownot
from helpers import toy
from knownot import engines
from knownot.cli import group, predict_parts
from knownot.errors import OptionError


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("parts")
    toy.saved(home)
    options = {"preprocess": "[0, 1]", "progress": False, "detector": "energy", "guarantee": "marginal"}
    knownot.fit(home / "toy.onnx", *toy.known(200, 2), class_names=toy.CLASSES, **options).save(home / "osc")
    toy.written(home / "incoming", np.concatenate([toy.known(40, 4)[0], toy.unknown(20)]))
    return home


def predict(home, folder, *more):
    given = ["predict", str(home / "osc"), str(home / "incoming"), "-o", str(folder), "--quiet", "--json", *more]
    done = CliRunner().invoke(group, given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def rows(folder):
    found = [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert len({row["id"] for row in found}) == len(found), "an image twice"
    return {row["id"]: row["p_value"] for row in found}


def test_parts_are_what_one_run_gives_and_stay_when_asked_again(home, tmp_path):
    facts = predict(home, tmp_path / "v", "--parts", "4", "--batch-size", "1")
    assert (facts["images"], facts["there"]) == (60, 0)
    expected = knownot.load(home / "osc").predict(home / "incoming", batch_size=1)
    assert rows(tmp_path / "v") == dict(zip(expected.ids, expected.p_value.tolist(), strict=True))
    (tmp_path / "v" / "part-00002-of-00004.json").unlink()
    assert predict(home, tmp_path / "v", "--parts", "4", "--batch-size", "1")["there"] == 3
    assert predict(home, tmp_path / "v", "--part", "3/4")["there"] == 1
    assert predict(home, tmp_path / "v", "--parts", "4", "--alpha", "0.2")["there"] == 0
    with pytest.raises(OptionError, match="of another number of parts"):
        predict(home, tmp_path / "v", "--parts", "5")
    with pytest.raises(OptionError, match="of how many parts"):
        predict(home, tmp_path / "v", "--part", "3/4", "--parts", "5")


def dies_once(task):
    """A part whose process is killed the first time, in the middle."""
    mark = task.file.with_suffix(".tried")
    if task.number == 2 and not mark.exists():
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return predict_parts.predict_part(task)


def test_a_killed_process_loses_and_doubles_nothing(home, tmp_path):
    tasks = [predict_parts.Task(str(home / "osc"), (str(home / "incoming"),), str(tmp_path), i, 3) for i in (1, 2, 3)]
    done = dict(engines.each(dies_once, tasks, engine="processes", workers=1))
    assert sum(counts["images"] for counts in done.values()) == 60
    assert len(rows(tmp_path)) == 60

"""The command line as a person and a machine use it, a kill in the middle included."""

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import knownot
from helpers import toy
from knownot.cli import COMMANDS, group, main


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a classifier, known, calibration and incoming images, and a fitted open-set classifier."""
    home = tmp_path_factory.mktemp("cli")
    toy.saved(home)
    toy.written(home / "known", *toy.known(600, 2))
    toy.written(home / "calibration", *toy.known(400, 3))
    toy.written(home / "incoming", np.concatenate([toy.known(60, 4)[0], toy.unknown(40)]))
    (home / "incoming" / "00007.png").write_bytes(b"")
    (home / "classes.txt").write_text("\n".join(toy.CLASSES))
    arguments = [
        "fit",
        "toy.onnx",
        "known",
        "--calibration",
        "calibration",
        "--class-names",
        "classes.txt",
        "-o",
        "osc",
    ]
    done = run(home, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    (home / "fit.json").write_text(done.stdout)
    return home


def run(home, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "knownot", *arguments], cwd=home, capture_output=True, text=True, check=False, **options
    )


def here(home, *arguments):
    """The same in this process: importing anew takes longer than most commands."""
    out, complaints, code = io.StringIO(), io.StringIO(), None
    with contextlib.chdir(home), contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaints):
        try:
            main(list(arguments))
        except SystemExit as done:
            code = done.code
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), complaints.getvalue())


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_fit_tells_machines_what_it_did(place):
    facts = json.loads((place / "fit.json").read_text())
    assert facts["known"] == 600
    assert facts["calibration"] + facts["ranking"] == 400
    assert facts["preprocess"] == "[0, 1]"
    assert facts["accuracy"] > 0.97
    assert facts["detectors"][0] == "gen"
    assert (place / "osc" / "toy.onnx").exists() or (place / "osc" / "model.onnx").exists()


def test_predict_equals_the_python_door(place):
    done = run(place, "predict", "osc", "incoming", "-o", "door.csv")
    assert done.returncode == 0, done.stderr
    assert "100 images: " in done.stdout
    assert "at most 5 % of known images are rejected (99 % confidence)" in done.stdout
    assert "00007.png: empty file" in done.stdout
    verdicts = knownot.load(place / "osc").predict(place / "incoming")
    table = rows(place / "door.csv")
    assert [r["id"] for r in table] == list(verdicts.ids)
    assert [r["status"] for r in table] == verdicts.status
    assert [int(r["label"]) for r in table] == verdicts.label.tolist()
    np.testing.assert_array_equal([float(r["p_value"] or "nan") for r in table], verdicts.p_value)
    assert not (place / "door.csv.partial").exists()


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_other_formats_hold_the_same(place, ending):
    done = here(place, "predict", "osc", "incoming", "-o", f"same.{ending}", "--json", "-q")
    facts = json.loads(done.stdout)
    assert done.stderr == ""
    if ending == "jsonl":
        table = [json.loads(line) for line in (place / "same.jsonl").read_text().splitlines()]
    else:
        import pyarrow.parquet as pq

        table = pq.read_table(place / "same.parquet").to_pylist()
    verdicts = knownot.load(place / "osc").predict(place / "incoming")
    assert [r["label"] for r in table] == verdicts.label.tolist()
    assert [r["error"] for r in table] == list(verdicts.error)
    assert facts["images"] == 100 == facts["known"] + facts["unknown"] + facts["unreadable"]
    assert facts["unreadable"] == 1
    assert sum(k["known"] for k in facts["per_class"].values()) == facts["known"]


def test_a_killed_predict_goes_on_where_it_was(place):
    """No row twice, none lost, and the same as in one go: killed with SIGKILL, again and again."""
    done = here(place, "predict", "osc", "incoming", "-o", "once.csv", "--report", "once.html", "--batch-size", "2")
    assert done.returncode == 0, done.stderr
    whole = (place / "once.csv").read_text()
    command = ["predict", "osc", "incoming", "-o", "killed.csv", "--report", "killed.html", "--batch-size", "2"]
    journal = place / "killed.csv.partial" / "rows.sqlite"
    kills = 0
    for wanted in (1, 20, 40):
        process = subprocess.Popen([sys.executable, "-c", SLOW, *command], cwd=place, stdout=subprocess.PIPE)
        for line in process.stdout:
            if int(line) >= wanted:
                break
        assert process.poll() is None, "it was done before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    assert kills == 3
    assert not (place / "killed.csv").exists()
    last = here(place, *command, "--json")
    assert last.returncode == 0, last.stderr
    assert (place / "killed.csv").read_text() == whole
    assert shown(place / "killed.html") == shown(place / "once.html")
    assert not journal.exists()


def shown(report):
    """The images of a report's galleries."""
    import re

    return re.findall(r"\d{5}\.png", report.read_text())


SLOW = """
import sys, time
from knownot.cli import main
from knownot.cli.journal import Journal
add = Journal.add
def slow(self, verdicts, numbers):
    add(self, verdicts, numbers)
    print(self._count("run = ?", self._run), flush=True)
    time.sleep(0.05)
Journal.add = slow
main(sys.argv[1:])
"""


def test_exit_codes(place):
    assert (
        run(
            place, "predict", "osc", "incoming", "-o", "strict.csv", "--strict", "--explain", "--alpha", "5%"
        ).returncode
        == 3
    )
    assert (place / "strict.csv").read_text().splitlines()[0].partition(",error,")[2].startswith("p_value: ")
    wrong = run(place, "predict", "nowhere", "incoming")
    assert (wrong.returncode, wrong.stderr.startswith("SavedError: ")) == (1, True)
    usage = here(place, "predikt")
    assert (usage.returncode, "Did you mean 'predict'?" in usage.stderr) == (2, True)
    assert here(place, "fit", "toy.onnx").returncode == 2
    assert "Traceback" not in wrong.stderr + usage.stderr


def test_interrupt_is_exit_code_130(monkeypatch):
    monkeypatch.setattr(group, "main", lambda **_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(SystemExit) as stop:
        main(["detectors"])
    assert stop.value.code == 130


def test_report_from_python_and_command_line(place):
    done = here(place, "predict", "osc", "incoming", "-o", "r.csv", "--report", "r.html")
    assert done.returncode == 0, done.stderr
    html = (place / "r.html").read_text()
    assert "00007.png" in html
    osc = knownot.load(place / "osc")
    knownot.write_report(osc, osc.predict(place / "incoming"), place / "python.html")
    assert shown(place / "python.html") == shown(place / "r.html")


def test_detectors_and_help():
    runner = CliRunner()
    table = json.loads(runner.invoke(group, ["detectors", "--json"]).output)
    assert [row["name"] for row in table] == [row.name for row in knownot.detectors()]
    text = runner.invoke(group, ["detectors"], env={"COLUMNS": "200"}).output
    assert "mahalanobis++" in text
    for name in COMMANDS:
        helped = runner.invoke(group, [name, "--help"])
        assert helped.exit_code == 0
        assert "--json" in helped.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--size", "big"], "--size 'big'"),
        (["--preprocess", "imagenet-ish"], "There is no preprocessing convention"),
        (["--preprocess", "{bad"], "no JSON object"),
        (["--detector", "energi"], "Did you mean 'energy'?"),
        (["--alpha", "5"], "--alpha='5': expected a share"),
        (["--head", "nope"], "nope"),
    ],
)
def test_wrong_options_are_explained(place, arguments, says):
    done = here(place, "fit", "toy.onnx", "known", "-o", "never", *arguments)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "never").exists()


def test_options_reach_the_fit(place):
    done = here(
        place, "fit", "toy.onnx", "known", "-o", "osc2", "--detector", "energy", "--detector", "knn", "--alpha", "0.1",
        "--guarantee", "marginal", "--preprocess", "[0,1]", "--class-names", "classes.txt", "--no-model", "--json",
        "-q",
    )  # fmt: skip
    facts = json.loads(done.stdout)
    assert (facts["detectors"], facts["alpha"], facts["guarantee"]) == (["energy", "knn"], 0.1, "marginal")
    assert facts["trials"] == []
    assert sorted(os.listdir(place / "osc2")) == ["manifest.json", "state.safetensors"]
    again = here(place, "predict", "osc2", "incoming", "-o", "osc2.csv", "--model", "toy.onnx")
    assert again.returncode == 0, again.stderr


def test_a_model_from_the_users_own_code(place, monkeypatch):
    (place / "mynet.py").write_text(
        "import onnx\nmodel = onnx.load('toy.onnx')\ndef make():\n    return onnx.load('toy.onnx')\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, running in (("mynet:model", run), ("mynet:make", here)):
        done = running(place, "fit", name, "known", "-o", "osc3", "--class-names", "classes.txt", "-q")
        assert done.returncode == 0, done.stderr
    assert "There is no 'nomodel'" in here(place, "fit", "mynet:nomodel", "known", "-o", "x").stderr
    monkeypatch.delitem(sys.modules, "mynet")


def test_the_demo(tmp_path):
    done = run(tmp_path, "demo", "-o", "out", "--json", "-q")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["predict"]["unreadable"] == 2
    assert facts["kinds"]["clothes"]["unknown"] <= 0.05 * 300
    for kind in ("digit", "noise", "photo", "texture"):
        assert facts["kinds"][kind]["unknown"] >= 0.9 * sum(facts["kinds"][kind].values()), kind
    assert sum(k["softmax_at_least_0.99"] for k in facts["problem"].values()) > 0
    assert (tmp_path / "out" / "report.html").stat().st_size < 2_000_000


def test_commands_that_open_a_model_ask_for_it_in_the_same_words():
    from knownot.cli.retrain import _command

    opening = {
        name: __import__(f"knownot.cli.{name}", fromlist=["command"]).command for name in ("fit", "audit", "fool")
    }
    opening |= {f"retrain {name}": _command(name) for name in ("none-class", "discriminator")}
    opening["retrain compare"] = __import__("knownot.cli.compare_remedies", fromlist=["command"]).command
    said: dict[str, set[str]] = {}
    for name, command in opening.items():
        helps = {parameter.name: parameter.help for parameter in command.params if hasattr(parameter, "help")}
        absent = {"preprocess", "size", "unsafe_pickle", "seed"} - helps.keys()
        assert not absent, (name, absent)
        for option in helps.keys() & {"size", "unsafe_pickle", "seed", "head", "stages", "class_names"}:
            said.setdefault(option, set()).add(helps[option])
        if name != "fool":  # which has no labels to find it by
            said.setdefault("preprocess", set()).add(helps["preprocess"])
    assert {option: helps for option, helps in said.items() if len(helps) > 1} == {}

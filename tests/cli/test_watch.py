"""`knownot watch`: a folder or lines in, alarms out, kills in between."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import knownot
from helpers import toy
from knownot.cli import group
from knownot.cli.watch import Watcher
from knownot.errors import OptionError
from knownot.monitoring.sources import FolderSource, LineSource


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    home = tmp_path_factory.mktemp("watch")
    osc = knownot.fit(
        toy.graph(), *toy.known(300, 2), progress=False, thumbnails=0, preprocess=knownot.Preprocess(scale=1 / 255),
        calibration=toy.known(800, 3)[0],
    )  # fmt: skip
    osc.save(home / "osc")
    toy.written(home / "in", np.concatenate([toy.known(120, 4)[0], toy.unknown(60)]))
    (home / "in" / "00005.png").write_bytes(b"")
    for i in range(180):  # came in this order
        os.chmod(home / "in" / f"{i:05}.png", 0o600)
    return home


def watched(place, *arguments, code=0):
    done = CliRunner().invoke(group, ["watch", str(place / "osc"), *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


def test_an_alarm_is_printed_told_measured_and_shown(place, tmp_path):
    hook = f"{sys.executable} -c \"import sys; open('{tmp_path / 'told'}', 'a').write(sys.stdin.read())\""
    options = ["--metrics", tmp_path / "m.prom", "--page", tmp_path / "p.html", "--on-alarm", hook, "--name", "cam"]
    said = watched(
        place, place / "in", "--state", tmp_path / "s.json", "--once", "--json", "--batch-size", 50, *options
    )
    lines = [json.loads(line) for line in said.splitlines()]
    alarm = lines[0]["alarm"]
    assert alarm["kind"] == "more unknown"
    assert 119 < alarm["image"] < 150  # one image was unreadable
    assert alarm["since_low"] <= 125
    assert lines[-1]["summary"]["images"] == 179
    assert lines[-1]["summary"]["unreadable"] == 1
    told = json.loads((tmp_path / "told").read_text())
    assert (told["stream"], told["image"]) == ("cam", alarm["image"])
    assert 'knownot_images_total{stream="cam"} 179' in (tmp_path / "m.prom").read_text()
    html = (tmp_path / "p.html").read_text()
    assert html.count("<img") == len(alarm["examples"]) > 0
    again = watched(place, place / "in", "--state", tmp_path / "s.json", "--once", "--json", "--batch-size", 50)
    assert [json.loads(line) for line in again.splitlines()] == lines[-1:]  # nothing twice


def test_another_folder_or_another_rate_is_refused(place, tmp_path):
    watched(place, place / "in", "--state", tmp_path / "s.json", "--once")
    other = tmp_path / "other"
    other.mkdir()

    def refused(*arguments):
        saved = ["watch", str(place / "osc"), *map(str, arguments), "--state", str(tmp_path / "s.json"), "--once"]
        error = CliRunner().invoke(group, saved).exception
        assert isinstance(error, OptionError)
        return str(error)

    assert "another --state" in refused(other)
    assert "another false_alarms" in refused(place / "in", "--false-alarms", 0.2)
    assert "http" in refused(place / "in", "--webhook", "nowhere")


class Killed(BaseException):
    pass


def test_killed_anywhere_it_raises_the_same_alarms(place, tmp_path, monkeypatch):
    """At 50 random moments: before, in or after the saving of a state; told of each alarm at least once."""
    osc = knownot.load(place / "osc")

    def go(state, moment=None):
        told = []
        watcher = Watcher(osc, osc.monitor(state=state), state, batch_size=24)
        monkeypatch.setattr(watcher, "_say", lambda text, facts: told.append(facts.get("alarm")))
        if moment is not None:
            calls = iter(range(10**6))

            def replace(a, b, _replace=os.replace):
                at = next(calls)
                if at == moment // 2 and moment % 2:
                    raise Killed  # the draft is there, the state is the old one
                _replace(a, b)
                if at == moment // 2:
                    raise Killed  # the state is the new one, nobody was told

            monkeypatch.setattr("knownot.monitoring.state.os.replace", replace)
        try:
            watcher.go(str(place / "in"))
        except Killed:
            pass
        finally:
            monkeypatch.undo()
        return watcher.monitor, [a for a in told if a]

    whole, expected = go(tmp_path / "whole.json")
    assert len(expected) == 1
    rng = np.random.default_rng(0)
    state, told = tmp_path / "killed.json", []
    for kills in range(50):
        if kills % 5 == 0:
            state.unlink(missing_ok=True)
            told = []
        told += go(state, int(rng.integers(0, 8)))[1]
        if kills % 5 == 4:
            monitor, last = go(state)
            assert monitor.alarms == whole.alarms
            assert (tmp_path / "whole.json").read_bytes() == state.read_bytes()
            assert [a for i, a in enumerate(told + last) if a not in (told + last)[:i]] == expected


def test_a_real_kill_in_the_middle(place, tmp_path):
    shutil.copytree(place / "in", tmp_path / "in")
    command = [sys.executable, "-m", "knownot", "watch", str(place / "osc"), str(tmp_path / "in"), "--state", "s.json",
               "--batch-size", "4", "--every", "0.05"]  # fmt: skip
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    line = running.stdout.readline()  # it goes on for ever, until the alarm
    assert line.startswith("ALARM ")
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    running.stdout.close()
    said = watched(place, tmp_path / "in", "--state", tmp_path / "s.json", "--once")
    assert "179 images" in said
    assert "1 unreadable" in said


def test_new_files_come_once_and_in_their_order(tmp_path):
    for name in ("b.png", "a.png"):
        (tmp_path / name).write_bytes(b"x")
        os.chmod(tmp_path / name, 0o600)
    place = FolderSource(tmp_path)
    assert place.batches(10) == []  # may still be being written
    batch = place.batches(10, whole=True)[0]
    assert sorted(os.path.basename(path) for _, path in batch) == ["a.png", "b.png"]
    assert batch == sorted(batch)
    place.done = batch[-1]
    assert place.batches(10, whole=True) == []
    (tmp_path / "0.png").write_bytes(b"x")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    (tmp_path / "text.txt").write_bytes(b"x")
    assert [os.path.basename(p) for _, p in place.batches(10, whole=True)[0]] == ["0.png"]
    with pytest.raises(knownot.errors.ImagesError, match="no folder"):
        FolderSource(tmp_path / "not")


def test_lines_come_in_batches_as_they_are_written():
    read, write = os.pipe()
    lines = LineSource(read)
    os.write(write, b"a.png\nb.png\r\n\nc")
    assert lines.batch(10) == ["a.png", "b.png"]
    os.write(write, b".png\nd.png\ne.png")
    assert lines.batch(1) == ["c.png"]
    assert lines.batch(1) == ["d.png"]
    os.close(write)
    assert lines.batch(5) == ["e.png"]
    assert lines.batch(5) == []
    os.close(read)


def test_paths_on_standard_input(place, tmp_path):
    files = sorted(map(str, (place / "in").iterdir()))
    done = subprocess.run(
        [sys.executable, "-m", "knownot", "watch", str(place / "osc"), "-", "--state", str(tmp_path / "s.json")],
        input="\n".join(files), text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ALARM image 1")
    assert "179 images" in done.stdout


def test_windows_are_compared_by_features(place):
    osc = knownot.load(place / "osc")
    same = osc.compare_windows(toy.known(60, 5)[0], toy.known(60, 6)[0], permutations=99)
    other = osc.compare_windows(toy.known(60, 5)[0], toy.unknown(60), permutations=99)
    assert other.p_value == 0.01 < same.p_value

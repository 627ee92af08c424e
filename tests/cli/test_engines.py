"""Who does the parts of a job: other processes of this machine, and Ray."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner

from helpers import toy
from knownot import engines
from knownot.cli import group, predict_parts
from knownot.errors import MissingExtraError, StorageError


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("engines")
    toy.saved(home)
    toy.written(home / "known", *toy.known(240, 2))
    toy.written(home / "calibration", *toy.known(160, 3))
    toy.written(home / "incoming", np.concatenate([toy.known(40, 4)[0], toy.unknown(20)]))
    (home / "classes.txt").write_text("\n".join(toy.CLASSES))
    said(*asked(home), "-o", home / "osc")
    return home


def asked(home):
    given = ["fit", home / "toy.onnx", home / "known", "--class-names", home / "classes.txt", "--preprocess", "[0, 1]"]
    return [*given, "--calibration", home / "calibration", "--quiet", "--json"]


def said(*arguments):
    done = CliRunner().invoke(group, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


# Ray: one small cluster for all tests of this module


def dies_once(task):
    """A part whose process is killed the first time, in the middle."""
    mark = task.file.with_suffix(".tried")
    if task.number == 2 and not mark.exists():
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return predict_parts.predict_part(task)


def test_a_machine_without_knownot_says_so(monkeypatch):
    """The function that looks travels by value, so that it can be opened where there is no knownot."""
    from ray import cloudpickle

    packed = cloudpickle.dumps(engines._alike("1.2.3"))
    assert b"_alike" not in packed.replace(b"_alike.<locals>", b"")
    checked = pickle.loads(packed)
    monkeypatch.setitem(sys.modules, "knownot.version", None)
    trouble, result = checked(b"never opened")
    assert trouble.startswith("knownot is 1.2.3 here and missing on ")
    assert result is None


def test_a_cluster_that_cannot_be_reached_is_an_error(monkeypatch):
    """Without cores: Ray refuses to be told how many a cluster has."""
    import ray

    def init(num_cpus, **_):
        assert num_cpus is None
        raise ConnectionError("no answer")

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(StorageError, match=r"RAY_ADDRESS=10\.0\.0\.1:6379 cannot be reached: no answer.*RAY_AUTH_MODE"):
        list(engines.each(int, ["1"], engine="ray", workers=2))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"knownot\[scale\]"):
        list(engines.each(int, ["1"], engine="ray"))


# Processes

DRIVER = """
import sys, time
from pathlib import Path
from knownot import engines


def works(mark):
    Path(mark).write_text("")
    time.sleep(100)


if __name__ == "__main__":
    for _ in engines.each(works, sys.argv[1:], engine="processes", workers=1):
        pass
"""


def children(parent):
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(name))
        except OSError:
            continue
    return found


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def within(seconds, look):
    until = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < until:
        time.sleep(0.02)
    return found


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at /proc")
def test_workers_end_with_a_driver_that_is_killed(tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)
    run = subprocess.Popen([sys.executable, tmp_path / "driver.py", tmp_path / "mark"])
    try:
        assert within(60, (tmp_path / "mark").exists)
        mine = children(run.pid)  # the worker, and what tracks it
        assert mine
    finally:
        run.kill()
        run.wait()
    assert within(20, lambda: not any(map(alive, mine)))

"""One process at a time has a stream's state and a training's checkpoints, as one has the journal of an output."""

import os
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import knownot
from helpers import toy
from knownot.cli import group
from knownot.cli import retrain as retrain_command
from knownot.cli.locking import Lock
from knownot.errors import OptionError, StorageError


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    knownot.fit(
        toy.graph(), *toy.known(80, 2), calibration=toy.known(120, 3)[0], detector="msp", alpha=0.1, thumbnails=0,
        preprocess=knownot.Preprocess(scale=1 / 255), progress=False,
    ).save("osc")  # fmt: skip
    toy.written(tmp_path / "in", toy.known(12, 4)[0])
    return tmp_path


def watch(state):
    return CliRunner().invoke(group, ["watch", "osc", "in", "--once", "--state", str(state)])


def test_a_second_watch_of_one_state_is_refused_and_changes_nothing(place):
    assert watch("s.json").exit_code == 0
    assert {p.name for p in place.iterdir()} == {"osc", "in", "s.json"}  # the lock goes with the run
    toy.written(place / "in" / "more", toy.known(4, 5)[0])
    before = (place / "s.json").read_bytes()
    os.symlink("s.json", "link.json")
    with Lock(place / "s.json.lock", "it"):
        for state in ("s.json", "link.json", place / "in" / ".." / "s.json"):
            said = watch(state).exception
            assert isinstance(said, StorageError)
            assert f"process {os.getpid()} on" in str(said)
            assert "give another --state" in str(said)
        assert watch("other.json").exit_code == 0
    assert (place / "s.json").read_bytes() == before
    assert watch("s.json").exit_code == 0


def test_a_state_is_read_under_its_lock(place, monkeypatch):
    """What another run writes between reading and locking would be lost."""
    seen = []

    def monitor(self, *, state, **_):
        seen.append((place / "s.json.lock").exists())
        raise OptionError("enough")

    monkeypatch.setattr(knownot.OpenSetClassifier, "monitor", monitor)
    watch("s.json")
    assert seen == [True]
    assert not (place / "s.json.lock").exists()  # also after an error


def test_a_second_training_with_the_same_checkpoints_is_refused(tmp_path, monkeypatch):
    runs = []

    def retrain(remedy, *_, folder, **__):
        runs.append(remedy)
        if remedy == "logitnorm":  # while this one trains, the same command again, and another one
            for name, where in (("outlier-exposure", folder), ("energy-margin", tmp_path / "others")):
                said.append(command(name, where).exception)
        raise OptionError(f"{remedy} done")

    def command(remedy, folder):
        return CliRunner().invoke(group, ["retrain", remedy, "m", "in", "-o", "new", "--checkpoints", str(folder)])

    said = []
    monkeypatch.setattr("knownot.remedies.retrain", retrain)
    monkeypatch.setattr(
        retrain_command, "model_of", lambda *_, **__: SimpleNamespace(input=SimpleNamespace(channels=3))
    )
    assert "logitnorm done" in str(command("logitnorm", tmp_path / "c").exception)
    assert isinstance(said[0], StorageError)
    assert "give another --checkpoints" in str(said[0])
    assert "energy-margin done" in str(said[1])
    assert runs == ["logitnorm", "energy-margin"]
    assert list(tmp_path.iterdir()) == []  # nothing was trained: no folder stays

"""--max-pixels and --image-seconds: for as long as a command runs, and of every command that reads images."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from knownot.cli import COMMANDS, group
from knownot.images import limits

NO_IMAGES = ("demo", "export", "info", "detectors", "fool")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in NO_IMAGES])
def test_every_command_that_reads_images_has_both(command):
    names = [option for p in group.get_command(None, command).params for option in p.opts]
    assert "--max-pixels" in names
    assert "--image-seconds" in names


def outliers(place, *arguments):
    made = ["outliers", "noise", "--like", str(place / "in"), "--count", "1", "-o", str(place / "out"), "--add", "-q"]
    return CliRunner().invoke(group, [*made, "--json", *arguments])


def test_they_hold_while_the_command_runs_and_no_longer(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for i in range(3):
        Image.fromarray(np.full((1_100, 1_000, 3), 60 * i, np.uint8)).save(tmp_path / "in" / f"{i}.png")
    before, seen = limits.limits(), []
    real = limits.reduced

    def reduced(image, most):
        seen.append(limits.limits())
        return real(image, most)

    monkeypatch.setattr("knownot.images.decode.reduced", reduced)
    done = outliers(tmp_path, "--image-seconds", "0")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)
    assert {x.seconds for x in seen} == {None}
    seen.clear()
    done = outliers(tmp_path, "--max-pixels", "1", "--image-seconds", "7.5")
    assert "None of the 3 known images could be read" in str(done.exception)
    assert {(x.pixels, x.seconds) for x in seen} == {(1_000_000, 7.5)}
    assert limits.limits() == before  # also after an error


@pytest.mark.parametrize("wrong", [("--max-pixels", "0"), ("--max-pixels", "179"), ("--image-seconds", "-1")])
def test_senseless_ones_are_wrong_usage(tmp_path, wrong):
    assert outliers(tmp_path, *wrong).exit_code == 2

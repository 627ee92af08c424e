"""What CONTRIBUTING.md says is done: a detector in two places, then everything works with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest

import knownot
from helpers import docs, toy
from knownot import checks
from knownot.cli import main
from knownot.detectors import DETECTORS, table

PAGE = docs.ROOT / "CONTRIBUTING.md"
FILE, DIFF = ([b.code for b in docs.blocks(PAGE) if b.kind == kind] for kind in ("python", "diff"))
MODULE = "knownot.detectors.methods.nearest_mean"


def added_line() -> str:
    (line,) = re.findall(r"^\+ (.+)$", DIFF[0], re.MULTILINE)
    return line.strip()


@pytest.fixture
def added(monkeypatch):
    """The class, after both places of the page have been touched (in this process)."""
    assert (len(FILE), len(DIFF)) == (1, 1)
    module = types.ModuleType(MODULE)
    module.__package__ = "knownot.detectors.methods"
    monkeypatch.setitem(sys.modules, MODULE, module)
    exec(compile(FILE[0], "nearest_mean.py", "exec"), vars(module))
    for name, recipe in eval("{" + added_line() + "}", vars(table)).items():
        monkeypatch.setitem(DETECTORS, name, recipe)
    return module.NearestMean


def test_the_lines_around_are_in_the_table():
    text = (docs.ROOT / "src" / "knownot" / "detectors" / "table.py").read_text(encoding="utf-8")
    around = [line[1:] for line in DIFF[0].splitlines() if line.startswith(" ")]
    assert len(around) == 2
    for before, after in zip(around[::2], around[1::2], strict=True):
        assert f"{before}\n{after}\n" in text


USED = """
import sys

import numpy as np

from helpers import toy
import knownot
from knownot import checks
from knownot.detectors import NearestMean  # named nowhere but in its file and the table

home, out = sys.argv[1:]
assert knownot.__file__.startswith(home), knownot.__file__
assert "NearestMean" in knownot.detectors.__all__
assert [row.kind for row in knownot.detectors() if row.name == "nearest-mean"] == [NearestMean]
known, calibration = toy.known(300, 1), toy.known(200, 2)
osc = knownot.fit(toy.graph(), *known, calibration=calibration, detector="nearest-mean", progress=False)
again = knownot.load(osc.save(out))
assert type(again.detector) is NearestMean
np.testing.assert_array_equal(again.predict(toy.unknown(40)).score, osc.predict(toy.unknown(40)).score)
checks.check_detector("nearest-mean", only="saved_and_loaded_bit_for_bit")
"""


def test_in_a_copy_of_the_package_the_two_places_are_all(tmp_path):
    """Its file and its line on disk, nothing else, and another interpreter."""
    home = tmp_path / "copy"
    shutil.copytree(docs.ROOT / "src" / "knownot", home / "knownot", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "knownot" / "detectors" / "methods" / "nearest_mean.py").write_text(FILE[0], encoding="utf-8")
    place = home / "knownot" / "detectors" / "table.py"
    before = next(line[1:] for line in DIFF[0].splitlines() if line.startswith(" "))
    text = place.read_text(encoding="utf-8").replace(f"{before}\n", f"{before}\n    {added_line()}\n")
    place.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", USED, str(home), str(tmp_path / "osc")], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(home), str(docs.ROOT / "tests")])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("quick_graphs")
def test_it_keeps_every_promise_of_a_detector(added):
    checks.check_detector("nearest-mean")
    checks.check_detector(added)


def test_the_checks_would_have_found_a_flipped_sign(added):
    class Flipped(added):
        def score(self, batch):
            return -super().score(batch)

    with pytest.raises(AssertionError, match="the sign is wrong"):
        checks.check_detector(Flipped)


def test_it_is_what_its_formula_says(added):
    on = checks.problem()
    from knownot.checks.detectors import fitted

    z = on.train.features / np.linalg.norm(on.train.features, axis=1, keepdims=True)
    means = np.stack([z[on.labels == k].mean(axis=0) for k in range(5)])
    u = on.unknown.features / np.linalg.norm(on.unknown.features, axis=1, keepdims=True)
    expected = ((u[:, None] - means) ** 2).sum(axis=2).min(axis=1)
    np.testing.assert_allclose(fitted(DETECTORS["nearest-mean"], on).score(on.unknown), expected, rtol=1e-9)


def test_fit_predict_save_load_and_the_command_line(added, tmp_path, capsys):
    model = toy.saved(tmp_path)
    osc = knownot.fit(model, *toy.known(300, 1), calibration=toy.known(200, 2), detector="nearest-mean", progress=False)
    assert type(osc.detector) is added
    verdicts = osc.predict(toy.unknown(40))
    again = knownot.load(osc.save(tmp_path / "osc")).predict(toy.unknown(40))
    np.testing.assert_array_equal(again.score, verdicts.score)
    assert verdicts.unknown.mean() > 0.3
    with pytest.raises(SystemExit):
        main(["detectors", "--json"])
    assert '"nearest-mean"' in capsys.readouterr().out


def test_it_can_be_combined_and_is_in_the_documentation(added, tmp_path):
    from helpers.docs import written

    assert "| `nearest-mean` | features |" in written("reference/detectors.md")
    osc = knownot.fit(
        toy.saved(tmp_path), *toy.known(300, 1), calibration=toy.known(300, 2), detector=["gen", "nearest-mean"],
        progress=False,
    )  # fmt: skip
    assert osc.detector.members == ("gen", "nearest-mean")


def test_without_the_page_it_is_not_there():
    assert "nearest-mean" not in table.DETECTORS
    with pytest.raises(knownot.KnownotError, match="There is no detector 'nearest-mean'"):
        knownot.detectors.configure("nearest-mean")


def test_the_names_the_page_speaks_of_exist():
    from knownot.images import READERS
    from knownot.models import OPENERS

    assert READERS
    assert OPENERS
    text = PAGE.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:src|tests)/[\w./]+)`", text):
        assert (docs.ROOT / path).exists() or path.endswith("nearest_mean.py"), path
    for name in re.findall(r"knownot\.checks\.(\w+)", text):
        assert name in checks.__all__
    targets = re.findall(r"^(\w+):", (docs.ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE)) <= set(targets)

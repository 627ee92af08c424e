"""Detectors and readers of other packages: tiny ones, installed in a folder, as pip would leave them."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import knownot
from helpers import toy
from helpers.saved import edit_manifest
from knownot import checks
from knownot.detectors import DETECTORS, KNN, Recipe, configure, label, plugged, resolve
from knownot.errors import ImagesError, OptionError, SavedError
from knownot.images import open_images

ROOT = Path(__file__).resolve().parents[1]

DETECTOR = '''
from dataclasses import dataclass

import numpy as np

from knownot.arrays import Array
from knownot.detectors.base import Detector, number, some_images
from knownot.detectors.formulas import nearest_squared, unit
from knownot.stats import ClassMeans, StatisticRequest


@dataclass(frozen=True)
class Means:
    """State that is a class of the package's own."""

    rows: Array  # [k, d]


@dataclass(frozen=True)
class {name}(Detector):
    means: Means
    power: float

    needs = frozenset({{"features"}})
    paper = "none"
    summary = "distance to the nearest class mean"

    @classmethod
    def required_statistics(cls, offers, **options):
        number("power", options["power"], 0.1, 10)
        return {{"means": StatisticRequest(ClassMeans, "features", unit=True)}}

    @classmethod
    def fit(cls, seen, head, *, power=1.0):
        means = seen["means"]
        some_images(means.count.sum(), "{name}")
        return cls(Means(means.mean[means.count > 0]), float(power))

    def score(self, batch):
        return nearest_squared(unit(batch.features), self.means.rows) ** self.power


MANY = {{"twice": {name}.recipe(power=2.0), "thrice": {name}.recipe(power=3.0)}}
'''

READER = """
import os

import numpy as np

from knownot.images import open_images


def opened(source, labels, class_names):
    if isinstance(source, str | os.PathLike) and str(source).endswith(".raw"):
        return open_images(np.fromfile(source, np.uint8).reshape(-1, 16, 16, 3), labels, class_names=class_names)
    return None
"""


def install(home: Path, package: str, code: str, detectors: str = "", readers: str = "") -> Path:
    """A package as pip would leave it in `home`: its module and its metadata."""
    module = package.replace("-", "_")
    home.mkdir(exist_ok=True)
    (home / f"{module}.py").write_text(code)
    info = home / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[knownot.detectors]\n{detectors}\n\n[knownot.readers]\n{readers}\n")
    return home


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Installs packages, each in a folder of its own on sys.path; they are gone afterwards."""
    modules = []

    def add(package: str, *args: str, **kwargs: str) -> Path:
        home = install(tmp_path / f"site-{package}", package, *args, **kwargs)
        monkeypatch.syspath_prepend(str(home))
        importlib.invalidate_caches()
        modules.append(package.replace("-", "_"))
        return home

    yield add
    for name in modules:
        sys.modules.pop(name, None)


def nearest(site, package="far-off", name="Nearest", entry="near"):
    return site(package, DETECTOR.format(name=name), f"{entry} = {package.replace('-', '_')}:{name}")


def fit(detector, **more):
    known, calibration = toy.known(300, 1), toy.known(200, 2)
    return knownot.fit(toy.graph(), *known, calibration=calibration, detector=detector, progress=False, **more)


def test_a_class_a_recipe_and_a_mapping_are_found_by_name(site):
    lines = "near = far_off:Nearest\nsquared = far_off:MANY\n"
    site("far-off", DETECTOR.format(name="Nearest") + "ONE = Nearest.recipe(power=0.5)\n", lines + "root = far_off:ONE")
    rows = knownot.detectors()
    assert [(row.name, row.package) for row in rows if row.package] == [
        ("near", "far-off"), ("root", "far-off"), ("twice", "far-off"), ("thrice", "far-off"),
    ]  # fmt: skip
    assert rows.unusable == ()
    assert "distance to the nearest class mean" in repr(rows)
    assert configure("thrice").options == {"power": 3.0}
    assert configure("near", power=2.0) == configure("twice")
    assert label(configure("thrice")) == "thrice"
    assert label(configure("near")) == "near"
    capabilities = checks.problem().capabilities
    assert list(resolve(["knn", "twice"], capabilities)[0].options["members"]) == ["knn", "twice"]
    with pytest.raises(OptionError, match="power=0: expected"):
        resolve({"near": {"power": 0}}, capabilities)
    with pytest.raises(OptionError, match=r"no detector 'naer'.* Did you mean 'near'"):
        configure("naer")
    assert "near" not in DETECTORS


def test_it_is_saved_and_loaded_with_its_own_classes(site, tmp_path):
    nearest(site, name="KNN")  # its class has the name of one of knownot's, its entry point has not
    osc = fit("near")
    folder = osc.save(tmp_path / "osc")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["things"]["detector"]["kind"] == "far-off:KNN"
    assert manifest["things"]["detector"]["fields"]["means"]["kind"] == "far-off:Means"
    again = knownot.load(folder)
    assert type(again.detector) is type(osc.detector) is not KNN
    np.testing.assert_array_equal(again.predict(toy.unknown(30)).score, osc.predict(toy.unknown(30)).score)
    together = knownot.load(fit(["gen", "near"]).save(tmp_path / "both"))
    assert together.detector.members == ("gen", "near")


def test_a_folder_whose_plugin_is_missing_names_the_package(site, tmp_path, monkeypatch):
    home = nearest(site)
    folder = fit("near").save(tmp_path / "osc")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(home)])
    with pytest.raises(SavedError, match=r"Nearest, of detectors of the package 'far-off'.*pip install far-off"):
        knownot.load(folder)


def test_only_classes_of_the_table_and_of_plugins_are_made(site, tmp_path):
    site("elsewhere", "from dataclasses import dataclass\n\n\n@dataclass\nclass Foreign:\n    x: int = 0\n")
    code = DETECTOR.format(name="Nearest").replace(
        "    power: float\n", "    power: float\n    other: Foreign | None = None\n"
    )
    site("far-off", "from elsewhere import Foreign\n" + code, "near = far_off:Nearest")
    folder = fit("near").save(tmp_path / "osc")
    for kind, says in [
        ("far-off:Gone", "the one installed here does not have it"),
        ("far-off:ClassMeans", "does not have it"),  # imported there, but no state of its detectors
        ("far-off:Foreign", "does not have it"),  # named by a field, but of another package's code
        ("Nearest", "neither knownot's own nor one of an installed plug-in"),
        ("os:system", "not installed here"),
        ("far-off:KNN; rm -rf", "neither"),
        ("knownot:KNN", "not installed here"),
    ]:
        edit_manifest(folder, lambda m, kind=kind: m["things"]["detector"].update(kind=kind))
        with pytest.raises(SavedError, match=says):
            knownot.load(folder)


def test_a_class_given_as_an_object_is_told_what_it_needs_to_be_loaded(tmp_path):
    name_space: dict = {"__name__": "nowhere"}
    sys.modules["nowhere"] = type(sys)("nowhere")
    try:
        exec(DETECTOR.format(name="Nearest"), name_space)
        folder = fit(name_space["Nearest"]).save(tmp_path / "osc")
    finally:
        del sys.modules["nowhere"]
    with pytest.raises(SavedError, match=r"entry point of the group 'knownot\.detectors'"):
        knownot.load(folder)


def test_a_name_of_knownots_own_cannot_be_taken(site):
    nearest(site, entry="knn")
    assert configure("knn") == Recipe(KNN)
    ((name, package, why),) = knownot.detectors().unusable
    assert (name, package) == ("knn", "far-off")
    assert "'far-off' names a detector 'knn', but knownot itself has one" in why
    assert [row.package for row in knownot.detectors() if row.name == "knn"] == [""]
    with pytest.raises(AssertionError, match="'far-off' names a detector 'knn'"):
        checks.check_plugin("far-off")


def test_two_packages_cannot_have_one_name(site):
    nearest(site)
    nearest(site, package="other")
    assert {package for _, package, _ in knownot.detectors().unusable} == {"far-off", "other"}
    with pytest.raises(OptionError, match=r"'far-off' cannot be used.*'other' has one of that name"):
        configure("near")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("import not_there_at_all", "ModuleNotFoundError"),
        ("Nearest = 3", "it names 3; expected a Detector"),
        (DETECTOR.format(name="Nearest") + "Nearest.needs = None\n", "it cannot be read"),
    ],
)
def test_a_plugin_that_fails_is_listed_with_its_reason_and_harms_nobody(site, code, says):
    site("broken", code, "near = broken:Nearest")
    nearest(site, entry="fine")
    rows = knownot.detectors()
    assert [(name, package) for name, package, _ in rows.unusable] == [("near", "broken")]
    assert says in rows.unusable[0][2]
    assert says in repr(rows)
    assert [row.name for row in rows if row.package] == ["fine"]
    assert configure("knn") == Recipe(KNN)
    for name in ("near", "neither"):
        with pytest.raises(OptionError, match="'broken' cannot be used: it"):
            configure(name)
    with pytest.raises(AssertionError, match="of the package 'broken' cannot be used: near: it"):
        checks.check_plugin("broken")


def test_a_plugin_runs_the_checks_on_itself(site):
    nearest(site)
    checks.check_plugin("Far_Off")
    wrong = DETECTOR.format(name="Nearest").replace("return nearest_squared", "return -nearest_squared")
    site("flipped", wrong, "flipped = flipped:Nearest")
    with pytest.raises(AssertionError, match="the sign is wrong"):
        checks.check_plugin("flipped")
    with pytest.raises(AssertionError, match="no package 'gone' is installed"):
        checks.check_plugin("gone")


def test_a_reader_reads_what_knownot_does_not(site, tmp_path):
    images = toy.known(20, 1)[0]
    images.tofile(tmp_path / "a.raw")
    np.save(tmp_path / "b.npy", images)
    assert open_images(tmp_path / "a.raw").count == 1, "one file, which is no image"
    site("raw-images", READER, readers="raw = raw_images")
    assert open_images(tmp_path / "a.raw").count == 20
    checks.check_images(lambda: open_images(tmp_path / "a.raw"))
    checks.check_plugin("raw-images")
    assert open_images(images).count == 20
    assert open_images([str(tmp_path / "b.npy")]).count == 1
    with pytest.raises(ImagesError, match="There is no file or folder"):
        open_images(tmp_path / "gone.png")


def test_a_reader_that_fails_is_told_and_harms_nobody(site, tmp_path):
    site("raw-images", "raise RuntimeError('no luck')", readers="raw = raw_images")
    site("bad-reader", "def opened(*given):\n    return 3\n", readers="three = bad_reader:opened")
    site("angry-reader", "def opened(*given):\n    return 1 / 0\n", readers="angry = angry_reader")
    images = toy.known(5, 1)[0]
    assert open_images(images).count == 5
    assert open_images(iter([images])).count is None, "any iterable, which is asked for last"
    with pytest.raises(ImagesError, match="'angry-reader' could not be asked: ZeroDivisionError"):
        open_images(3)
    with pytest.raises(ImagesError, match=r"There is no file.*returned a int, not an Images.*RuntimeError: no luck"):
        open_images(str(tmp_path / "gone.raw"))
    with pytest.raises(ImagesError, match=r"is no source of images.*'raw-images' could not be asked"):
        open_images(3)


def test_nothing_is_imported_before_it_is_asked_for(site):
    site("loud", "raise SystemExit('imported')", "loud = loud:Loud", readers="loud = loud")
    resolve("knn", checks.problem().capabilities)
    assert open_images(toy.known(5, 1)[0]).count == 5
    assert "loud" not in sys.modules


def test_the_command_line_in_an_interpreter_of_its_own(tmp_path):
    home = install(tmp_path / "site", "far-off", DETECTOR.format(name="Nearest"), "near = far_off:Nearest")
    install(home, "broken", "raise RuntimeError('no luck')", "bad = broken:Bad")
    from PIL import Image

    for name, n, seed in (("known", 240, 1), ("calibration", 160, 2)):
        images, labels = toy.known(n, seed)
        for i, (image, k) in enumerate(zip(images, labels, strict=True)):
            place = tmp_path / name / f"{k}_{toy.CLASSES[k]}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{i}.png")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(home), str(ROOT / "src")])}

    def run(*args: str, path: dict[str, str] = env) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "knownot", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=path)

    listed = json.loads(run("detectors", "--json").stdout)
    assert [one for one in listed if one.get("package") == "far-off"] == [
        {"name": "near", "needs": ["features"], "paper": "none", "package": "far-off"}
    ]
    assert [one["error"] for one in listed if one.get("package") == "broken"] == [
        "it cannot be imported: RuntimeError: no luck"
    ]
    assert "bad of the package broken cannot be used" in run("detectors").stdout
    model, out = toy.saved(tmp_path), tmp_path / "osc"
    done = run(
        "fit", model, tmp_path / "known", "--calibration", tmp_path / "calibration", "--detector", "near", "-o", out
    )
    assert done.returncode == 0, done.stderr
    assert run("predict", out, tmp_path / "known", "-o", tmp_path / "v.csv").returncode == 0
    without = run("predict", out, tmp_path / "known", path=env | {"PYTHONPATH": str(ROOT / "src")})
    assert without.returncode == 1
    assert "pip install far-off" in without.stderr
    assert "Traceback" not in without.stderr


def test_without_plugins_there_are_none():
    assert plugged.plugged() == ()
    assert [row.name for row in knownot.detectors()] == list(DETECTORS)

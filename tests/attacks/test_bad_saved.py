"""Saved folders that are damaged, foreign or hostile: each a SavedError that says what is wrong."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import knownot
from helpers import toy
from knownot.errors import InputError, KnownotError, SavedError


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    home = tmp_path_factory.mktemp("saved")
    osc = knownot.fit(toy.graph(), *toy.known(800, 2), thumbnails=4, progress=False)
    return osc.save(home / "osc")


@pytest.fixture
def folder(good, tmp_path):
    shutil.copytree(good, tmp_path / "osc")
    return tmp_path / "osc"


def edited(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def cut(folder, name, keep=0.5):
    path = next(p for p in folder.iterdir() if name in p.name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def state(folder, change):
    """Change the arrays and make the checksum right again, as an attacker would."""
    import hashlib

    arrays = load_file(folder / "state.safetensors")
    change(arrays)
    save_file(arrays, folder / "state.safetensors")
    checksum = hashlib.sha256((folder / "state.safetensors").read_bytes()).hexdigest()
    edited(folder, lambda m: m["files"].update({"state.safetensors": checksum}))


ATTACKS = {
    "no folder": (lambda f: shutil.rmtree(f), "There is no folder"),
    "empty folder": (lambda f: [p.unlink() for p in f.iterdir()], "no saved open-set classifier"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "has no manifest.json"),
    "truncated manifest": (lambda f: cut(f, "manifest"), "cannot be read"),
    "empty manifest": (lambda f: cut(f, "manifest", 0), "cannot be read"),
    "manifest is a list": (lambda f: (f / "manifest.json").write_text("[]"), "cannot be read"),
    "manifest is not text": (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe\x00"), "cannot be read"),
    "deeply nested manifest": (lambda f: (f / "manifest.json").write_text("[" * 100_000), "cannot be read"),
    "newer format": (lambda f: edited(f, lambda m: m.update(format=3)), "format 3"),
    "format as text": (lambda f: edited(f, lambda m: m.update(format="1")), "format '1'"),
    "truncated state": (lambda f: cut(f, "state"), "truncated or changed"),
    "no state": (lambda f: (f / "state.safetensors").unlink(), "lacks the file"),
    "truncated model": (lambda f: cut(f, ".onnx"), "truncated or changed"),
    "no model": (lambda f: [p.unlink() for p in f.glob("*.onnx")], "lacks the file"),
    "a changed byte": (
        lambda f: (f / "state.safetensors").write_bytes((f / "state.safetensors").read_bytes()[:-1] + b"\x01"),
        "truncated or changed",
    ),
    "files outside": (lambda f: edited(f, lambda m: m["files"].update({"../x": "0"})), "outside its folder"),
    "absolute files": (lambda f: edited(f, lambda m: m["files"].update({"/etc/passwd": "0"})), "outside its folder"),
    "no files": (lambda f: edited(f, lambda m: m.pop("files")), "not complete"),
    "files is a number": (lambda f: edited(f, lambda m: m.update(files=3)), "not complete"),
    "unknown class": (
        lambda f: edited(f, lambda m: m["things"]["detector"].update(kind="os.system")),
        "does not describe",
    ),
    "a class that is no detector's": (
        lambda f: edited(f, lambda m: m["things"]["detector"].update(kind="Popen")),
        "does not describe",
    ),
    "unknown field": (
        lambda f: edited(f, lambda m: m["things"]["calibration"]["fields"].update(evil=1)),
        "does not describe",
    ),
    "missing array": (
        lambda f: edited(f, lambda m: m["things"]["calibration"]["fields"].update(scores={"array": "gone"})),
        "does not describe",
    ),
    "missing thing": (lambda f: edited(f, lambda m: m["things"].pop("calibration")), "does not hold what"),
    "wrong fingerprint": (lambda f: edited(f, lambda m: m["about"].update(fingerprint="0")), "another fingerprint"),
    "other stages": (lambda f: edited(f, lambda m: m["about"].update(stages=["x"])), "stages"),
    "no model named": (lambda f: edited(f, lambda m: m["about"].update(model_file=None)), "without its classifier"),
    "model outside": (
        lambda f: edited(f, lambda m: m["about"].update(model_file="../../toy.onnx")),
        "outside its folder",
    ),
    "arrays of another shape": (
        lambda f: state(f, lambda a: a.update({"calibration.scores": a["calibration.scores"][:7]})),
        "one predicted class for each",
    ),
    "NaN among calibration scores": (
        lambda f: state(f, lambda a: a.update({"calibration.scores": a["calibration.scores"] * np.nan})),
        "not finite",
    ),
    "unsorted calibration scores": (
        lambda f: state(f, lambda a: a.update({"calibration.scores": a["calibration.scores"][::-1].copy()})),
        "ascending",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_damage_is_refused_with_its_reason(folder, attack):
    damage, says = ATTACKS[attack]
    damage(folder)
    with pytest.raises(KnownotError, match=says) as error:
        knownot.load(folder)
    assert isinstance(error.value, SavedError | InputError)


def test_an_undamaged_copy_loads(folder):
    assert knownot.load(folder).promise


def test_another_classifier_is_refused(folder):
    import onnx

    other = toy.graph()
    weight = next(t for t in other.graph.initializer if t.name == "w")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.01), "w"))
    with pytest.raises(SavedError, match="another fingerprint"):
        knownot.load(folder, model=other)
    assert knownot.load(folder, model=toy.graph()).promise


def test_a_manifest_cannot_make_pickles_run(folder):
    edited(folder, lambda m: m["about"].update(opened_with={"unsafe_pickle": True}))
    assert knownot.load(folder).model.opened_with == {}

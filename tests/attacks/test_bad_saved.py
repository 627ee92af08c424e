"""Saved folders that are damaged, foreign or hostile: each a SavedError that says what is wrong."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import knownot
from helpers import toy
from helpers.saved import edit_manifest as edited
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


def cut(folder, name, keep=0.5):
    path = next(p for p in folder.iterdir() if name in p.name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def state(folder, change):
    """Change the arrays and make the checksum right again, as an attacker would."""
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
    "newer format": (lambda f: edited(f, lambda m: m.update(format=4)), "format 4"),
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
    "absolute files": (
        lambda f: edited(f, lambda m: m["files"].update({"/etc/passwd": "0"})),
        "outside its folder",
    ),
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
    "wrong fingerprint": (
        lambda f: edited(f, lambda m: m["about"].update(fingerprint="0")),
        "another fingerprint",
    ),
    "other stages": (lambda f: edited(f, lambda m: m["about"].update(stages=["x"])), "stages"),
    "no model named": (
        lambda f: edited(f, lambda m: m["about"].update(model_file=None)),
        "without its classifier",
    ),
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


def field(thing, name, value):
    return lambda f: edited(f, lambda m: m["things"][thing]["fields"].update({name: value}))


def opened_with(**options):
    return lambda f: edited(f, lambda m: m["about"].update(opened_with=options))


def linked(folder, name):
    """The file is moved elsewhere, and a link to it stays."""
    (folder / name).rename(folder.parent / "elsewhere")
    (folder / name).symlink_to(folder.parent / "elsewhere")


def replaced(folder, old, new):
    text = (folder / "manifest.json").read_text()
    assert old in text
    (folder / "manifest.json").write_text(text.replace(old, new))


def short(folder):
    """Ten calibration scores, and everything that goes with them."""

    def cut_arrays(arrays):
        for name in arrays:
            if name.startswith(("calibration.", "references.")):
                arrays[name] = arrays[name][:10]

    state(folder, cut_arrays)


ATTACKS |= {
    "scale 0": (field("preprocess", "scale", 0.0), "which no classifier was trained on"),
    "scale 1e300": (field("preprocess", "scale", 1e300), "which no classifier was trained on"),
    "std 1e308": (field("preprocess", "std", {"items": [1e308]}), "which no classifier was trained on"),
    "a mean of words": (field("preprocess", "mean", {"items": ["a"]}), "does not describe"),
    "a size of a gigapixel": (
        lambda f: edited(f, lambda m: m["things"]["preprocess"]["fields"].update(height=50_000, width=50_000)),
        "pixels",
    ),
    "another filter": (field("preprocess", "resample", "magic"), "expected one of"),
    "alpha 0": (field("calibration", "alpha", 0), "between 0 and 1"),
    "alpha as text": (field("calibration", "alpha", "0.05"), "does not describe"),
    "alpha true": (field("calibration", "alpha", True), "does not describe"),
    "ten calibration scores": (short, "too few"),
    "fewer references": (
        lambda f: edited(f, lambda m: m["things"]["references"]["items"].pop()),
        "Reference scores of",
    ),
    "references unsorted": (
        lambda f: state(f, lambda a: a.update({"references.0": a["references.0"][::-1].copy()})),
        "ascending",
    ),
    "classes that there are not": (
        lambda f: state(f, lambda a: a.update({"calibration.predicted": a["calibration.predicted"] + 4})),
        "not among the classifier's 4",
    ),
    "a name too many": (
        lambda f: edited(f, lambda m: m["things"]["class_names"]["items"].append("x")),
        "5 class names",
    ),
    "a detector that is a word": (
        lambda f: edited(f, lambda m: m["things"].update(detector="msp")),
        "something else",
    ),
    "a million threads": (opened_with(threads=1_000_000), "threads=1000000"),
    "threads as text": (opened_with(threads="all"), "threads='all'"),
    "a provider's library": (
        opened_with(providers=[["CPUExecutionProvider", {"trt_extra_plugin_lib_paths": "/tmp/evil.so"}]]),
        "may load code",
    ),
    "options that are none": (opened_with(providers=[7]), "how the classifier is opened"),
    "an infinity": (
        lambda f: replaced(f, '"alpha": 0.05', '"alpha": Infinity'),
        "no number",
    ),
    "an entry too many": (lambda f: edited(f, lambda m: m.update(run="x")), "no knownot writes"),
    "no checksum of the state": (
        lambda f: edited(f, lambda m: m["files"].pop("state.safetensors")),
        "no checksum of",
    ),
    "a link instead of the model": (lambda f: linked(f, "model.onnx"), "outside its folder"),
    "a link instead of the state": (lambda f: linked(f, "state.safetensors"), "outside its folder"),
    "a link instead of the manifest": (lambda f: linked(f, "manifest.json"), "outside its folder"),
    "no digest": (
        lambda f: (f / "manifest.json").write_text(
            json.dumps({k: v for k, v in json.loads((f / "manifest.json").read_text()).items() if k != "digest"})
        ),
        "it was changed",
    ),
    "a changed digit": (
        lambda f: replaced(f, '"scale": 0.0039', '"scale": 0.0031'),
        "it was changed",
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


def as_before(folder):
    """The folder as format 2 had it: no digest of the manifest, scores as they were computed."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["digest"]
    path.write_text(json.dumps(manifest | {"format": 2}))


def test_folders_of_the_format_before_load_as_they_were(good, folder):
    as_before(folder)
    images = toy.known(30, 5)[0]
    np.testing.assert_array_equal(knownot.load(folder).predict(images).score, knownot.load(good).predict(images).score)


def test_links_within_a_folder_are_followed(folder):
    (folder / "blobs").mkdir()
    for name in ("model.onnx", "manifest.json"):
        (folder / name).rename(folder / "blobs" / name)
        (folder / name).symlink_to(folder / "blobs" / name)
    assert knownot.load(folder).promise


def test_no_byte_of_a_folder_changes_in_silence(good, folder):
    """Some of the mutations of benchmarks/attacks.py: an error, or verdicts bit for bit as before."""
    rng = np.random.default_rng(0)
    images = toy.known(20, 5)[0]
    expected = knownot.load(good).predict(images)
    refused = 0
    for name in ("manifest.json",) * 20 + ("model.onnx", "state.safetensors") * 4:
        data = bytearray((good / name).read_bytes())
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        (folder / name).write_bytes(data)
        try:
            got = knownot.load(folder).predict(images)
        except KnownotError:
            refused += 1
        else:
            np.testing.assert_array_equal(got.score, expected.score)
            np.testing.assert_array_equal(got.p_value, expected.p_value)
            assert got.class_name == expected.class_name
        shutil.copy(good / name, folder / name)
    assert refused > 20

"""What the demo ships: complete, small, licensed, readable, and a classifier that is as good and as sure as stated."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

import knownot

ASSETS = Path(knownot.__file__).parent / "demo_assets"
CLASSES = (ASSETS / "classes.txt").read_text(encoding="utf-8").splitlines()
KINDS = {"clothes": 300, "digit": 120, "texture": 60, "photo": 60, "noise": 60, "broken": 2}
MEASURED = json.loads((ASSETS / "measured.json").read_text(encoding="utf-8"))


def members(name: str) -> dict[str, bytes]:
    with zipfile.ZipFile(ASSETS / f"{name}.zip") as archive:
        assert archive.testzip() is None
        return {member: archive.read(member) for member in archive.namelist()}


def pixels(files: list[bytes]) -> np.ndarray:  # [n, 1, 28, 28] in [0, 1]
    images = [np.asarray(Image.open(io.BytesIO(file)).convert("L")) for file in files]
    return np.stack(images)[:, None].astype(np.float32) / 255


@pytest.fixture(scope="module")
def probabilities():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(ASSETS / "fashion.onnx", options)
    return lambda x: session.run(None, {"image": x})[0]


def test_the_folder_is_small_and_complete():
    files = {file.name: file.stat().st_size for file in ASSETS.iterdir() if file.is_file()}
    assert set(files) == {
        "NOTICE.md",
        "calibration.zip",
        "classes.txt",
        "fashion.onnx",
        "incoming.zip",
        "known.zip",
        "measured.json",
    }
    assert sum(files.values()) < 2_500_000
    assert files["fashion.onnx"] < 600_000


@pytest.mark.parametrize("name", ["known", "calibration"])
def test_known_images_are_in_a_folder_per_class(name):
    folders = Counter(member.split("/")[0] for member in members(name))
    assert folders == dict.fromkeys(CLASSES, 60)


def test_incoming_images_tell_what_they_are():
    files = members("incoming")
    assert Counter(name.split("-")[0] for name in files) == KINDS
    clothes = Counter(name.split("-", 1)[1].rsplit("-", 1)[0] for name in files if name.startswith("clothes"))
    assert clothes == {name.lower().replace(" ", "-"): 30 for name in CLASSES}


@pytest.mark.parametrize("name", ["known", "calibration", "incoming"])
def test_members_have_harmless_names_and_are_28_pixels_wide(name):
    for member, file in members(name).items():
        parts = member.split("/")
        assert not {"", ".", ".."} & set(parts)
        assert not {"\\", ":"} & set(member)
        assert member.isascii()
        assert member.endswith(".png")
        if not member.startswith("broken"):
            image = Image.open(io.BytesIO(file))
            image.load()
            assert (image.format, image.size) == ("PNG", (28, 28))
            assert image.mode in ("L", "RGB")


def test_broken_files_are_broken():
    for member, file in members("incoming").items():
        if member.startswith("broken"):
            with pytest.raises(OSError):
                Image.open(io.BytesIO(file))


def test_no_image_is_shipped_twice():
    """An image to calibrate on or to be tested with must be new: neither fitted on nor in two archives."""
    files = [file for name in ("known", "calibration", "incoming") for file in members(name).values()]
    assert len(set(files)) == len(files) == 600 + 600 + 602


def test_every_kind_of_image_is_in_the_notice():
    notice = (ASSETS / "NOTICE.md").read_text(encoding="utf-8")
    for kind in KINDS:
        assert f"`{kind}-*`" in notice
    for name in members("incoming"):
        kind, _, rest = name.partition("-")
        if kind in ("texture", "photo"):
            assert f"`{kind}-{rest.rsplit('-', 1)[0]}-*`" in notice
    for words in ("Copyright © 2017 Zalando SE", "Permission is hereby granted", "AS IS", "CC BY 4.0", "E. Alpaydin"):
        assert words in notice


def test_the_classifier_is_what_it_says():
    model = onnx.load(ASSETS / "fashion.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert json.loads({p.key: p.value for p in model.metadata_props}["class_names"]) == CLASSES == sorted(CLASSES)
    shape = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["n", 1, 28, 28]
    assert model.graph.node[-1].op_type == "Softmax"
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    sides = {v.type.tensor_type.shape.dim[3].dim_value for v in inferred if len(v.type.tensor_type.shape.dim) == 4}
    assert {28, 14, 7} <= sides
    raw = (ASSETS / "fashion.onnx").read_bytes()
    assert not [words for words in (b"/home", b"/root", b"/work", b".py", b"site-packages") if words in raw]


@pytest.mark.parametrize("name", ["calibration", "incoming"])
def test_accuracy_on_images_it_never_saw(probabilities, name):
    files = {m: f for m, f in members(name).items() if name != "incoming" or m.startswith("clothes")}
    folder = {n.lower().replace(" ", "-"): i for i, n in enumerate(CLASSES)}
    if name == "incoming":
        labels = [folder[member.split("-", 1)[1].rsplit("-", 1)[0]] for member in files]
    else:
        labels = [CLASSES.index(member.split("/")[0]) for member in files]
    p = probabilities(pixels(list(files.values())))
    assert (p.argmax(1) == labels).mean() >= 0.88
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)


def test_any_number_of_images_at_once(probabilities):
    x = pixels(list(members("calibration").values())[:7])
    np.testing.assert_allclose(
        np.concatenate([probabilities(x[i : i + 1]) for i in range(7)]), probabilities(x), atol=1e-5
    )


def test_what_was_measured_still_holds(probabilities):
    """The figures the demo speaks of come from the classifier and the images that are shipped."""
    assert MEASURED["test_accuracy"] >= 0.91
    files = members("incoming")
    for kind in ("clothes", "digit", "texture", "photo"):
        confidence = probabilities(pixels([f for m, f in files.items() if m.startswith(kind)])).max(1)
        stated = MEASURED[f"incoming, {kind}"]
        assert (confidence >= 0.99).mean() == pytest.approx(stated["share_at_least_0.99"], abs=0.02)
        assert np.median(confidence) == pytest.approx(stated["median_confidence"], abs=0.002)
    noise = np.random.default_rng(0).random((1000, 28, 28))[:, None].astype(np.float32)
    stated = MEASURED["np.random.rand(1000, 28, 28), seed 0"]
    assert (probabilities(noise).max(1) >= 0.99).mean() == pytest.approx(stated["share_at_least_0.99"], abs=0.01)

"""An exported file decides as the open-set classifier does, says what it is, and is not written where it would not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import knownot
from helpers import toy
from knownot.calibration import Calibration
from knownot.cli import main
from knownot.errors import ImagesError, ModelError, OptionError, SavedError, StorageError, UnsoundError
from knownot.export import parity
from knownot.export.parity import compare
from knownot.export.runtimes import runner

WAY = knownot.Preprocess(16, 16, scale=1 / 255)
KNOWN, LABELS = toy.known(800, 2)
NEW, TRUE = toy.known(400, 3)
MIXED = np.concatenate([toy.unknown(60), toy.known(60, 9)[0]])


def fit(model: Any = None, *, known: Any = (KNOWN, LABELS), new: Any = (NEW, TRUE), **options: Any) -> Any:
    options = {"preprocess": WAY, "guarantee": "marginal", "progress": False, "thumbnails": 8, **options}
    model = toy.graph() if model is None else model
    return knownot.fit(model, *known, calibration=new[0], calibration_labels=new[1], **options)


def floats(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray((x / np.float32(255)).transpose(0, 3, 1, 2))


@pytest.fixture(scope="module")
def osc() -> Any:
    return fit()


@pytest.fixture(scope="module")
def file(osc: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "osc.onnx"
    osc.export(path, check=MIXED)
    return path


def same(path: Path, osc: Any, images: np.ndarray = MIXED) -> None:
    ours, theirs = osc.predict(images, gallery=False), knownot.load(path).predict(images)
    np.testing.assert_array_equal(theirs.label, ours.label)
    np.testing.assert_array_equal(theirs.closed_label, ours.closed_label)
    rank = 1.001 / (1 + min(map(len, osc.calibration.references(len(osc.class_names)))))  # another one, if scores tie
    assert np.abs(theirs.p_value - ours.p_value).max() < rank
    assert np.isclose(theirs.p_value, ours.p_value, rtol=2e-7, atol=0).mean() > 0.98
    np.testing.assert_allclose(theirs.confidence, ours.confidence, rtol=1e-5)
    np.testing.assert_allclose(theirs.score, ours.score, rtol=1e-5, atol=1e-5 * np.ptp(ours.score))
    assert (ours.label < 0).any()
    assert (ours.label >= 0).any()


def test_default(file: Path, osc: Any) -> None:
    same(file, osc)


def ensemble() -> list[onnx.ModelProto]:
    other = toy.graph()
    weight = next(t for t in other.graph.initializer if t.name == "b")
    weight.CopyFrom(onnx.numpy_helper.from_array(toy.weights()["b"] + np.float32([0.5, 0, 0, -0.5]), "b"))
    return [toy.graph(), other]


WAYS: dict[str, Callable[[], Any]] = {
    "knn": lambda: fit(detector="knn"),
    "vim": lambda: fit(detector="vim"),
    "shaper": lambda: fit(detector="react"),
    "maps": lambda: fit(detector="gram"),
    "class-conditional": lambda: fit(detector="energy", guarantee="class-conditional"),
    "pac": lambda: fit(detector="msp", guarantee="pac"),
    "ensemble": lambda: fit(ensemble(), detector="mahalanobis++"),
    "second network": lambda: fit(detector=["msp", "knn"], features=ensemble()[1], features_preprocess=WAY),
    "none-class": lambda: fit(
        knownot.open_model(toy.graph(), none_classes=1), detector="none-class",
        known=(KNOWN[LABELS < 3], LABELS[LABELS < 3]), new=(NEW[TRUE < 3], TRUE[TRUE < 3]),
    ),
    "none-classes": lambda: fit(detector="msp", class_names=toy.CLASSES, none_classes=["red"]),
    "fixed batch": lambda: fit(toy.graph(batch=3), detector="msp"),
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_ways(name: str, tmp_path: Path) -> None:
    osc = WAYS[name]()
    osc.export(tmp_path / "osc.onnx", check=MIXED[::4])
    same(tmp_path / "osc.onnx", osc)


def test_added_classes(osc: Any, tmp_path: Path) -> None:
    """They are decided in the file as in Python, named by it, and served by their names."""
    new = toy.unknown(80, 5)
    more = osc.with_class("green", new[:20:2]).with_class("noise", new[1:40:2])
    images = np.concatenate([new[40:], MIXED])
    made = more.export(tmp_path / "osc.onnx", check=images)
    same(tmp_path / "osc.onnx", more, images)
    again = knownot.load(tmp_path / "osc.onnx").predict(images)
    assert again.class_name == more.predict(images).class_name
    assert {"green", "noise", "unknown"} <= set(again.class_name)
    assert knownot.export.verify(tmp_path / "osc.onnx", more, images).agrees
    about = knownot.export.info(tmp_path / "osc.onnx")
    assert about["classes"] == [*osc.class_names, "green", "noise"]
    assert about["added_classes"] == ["green", "noise"]
    assert more.added[0].sentence in made.words
    assert "added from a handful of images: green, noise" in (tmp_path / "osc.README.md").read_text(encoding="utf-8")
    session = onnxruntime.InferenceSession(made.path, providers=["CPUExecutionProvider"])
    label, unknown = session.run(["label", "unknown"], {"images": images})
    np.testing.assert_array_equal(unknown, label < 0)
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == about["classes"]
    with pytest.raises(OptionError, match="without_class"):
        more.export(tmp_path / "half.onnx", precision="float16", calibration=NEW)


def test_images_are_not_cut_out_twice(tmp_path: Path) -> None:
    """Of a classifier that looks at the middle of an image: the file takes the middle, and Python the whole image."""
    osc = fit(preprocess=replace(WAY, crop_share=0.5), detector="msp")
    home = toy.written(tmp_path / "images", MIXED)
    made = osc.export(tmp_path / "osc.onnx", check=home)
    assert made.parity.images == len(MIXED)
    ours, theirs = osc.predict(home, gallery=False), knownot.load(tmp_path / "osc.onnx").predict(home)
    np.testing.assert_array_equal(theirs.label, ours.label)
    np.testing.assert_allclose(theirs.score, ours.score, rtol=1e-5, atol=1e-5)
    assert osc.export(tmp_path / "large.onnx", check=home, resize=True).parity.agrees


def test_float_images(tmp_path: Path) -> None:
    osc = fit(known=(floats(KNOWN), LABELS), new=(floats(NEW), TRUE), preprocess=None, detector="maxlogit")
    made = osc.export(tmp_path / "osc.onnx", check=floats(MIXED))
    same(tmp_path / "osc.onnx", osc, floats(MIXED))
    assert not made.facts.raw
    again = knownot.load(tmp_path / "osc.onnx")
    with pytest.raises(ImagesError, match="fitted on float arrays"):
        again.predict(MIXED)
    bad = floats(MIXED[:3])
    bad[1] = 1e38  # overflows in the network
    assert [e is not None for e in again.predict(bad).error] == [False, True, False]


def test_preprocessing_has_the_same_bits() -> None:
    """Every way, as the graph does it, against `images.preprocess.apply`, for all 256 values of each channel."""
    import spox

    from knownot.export.pixels import own_input
    from knownot.export.recorded import argument, recording
    from knownot.images.preprocess import apply, candidates

    rng = np.random.default_rng(0)
    x = np.stack([rng.permutation(256) for _ in range(3)], axis=-1).astype(np.uint8).reshape(1, 16, 16, 3)
    ways = [*candidates(3, None, None), *candidates(1, None, None)]
    ways += [knownot.Preprocess(scale=1 / 127.5, mean=(1.0,)), knownot.Preprocess(scale=0.3, mean=(1, 2, 3), std=(7,))]
    for way in ways:
        for layout in ("NHWC", "NCHW"):
            with recording():
                images = argument(np.uint8, ("n", 16, 16, 3))
                graph = spox.build({"x": images.var}, {"y": own_input(images, way, layout).var})
            session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
            (made,) = session.run(None, {"x": x})
            own = apply(x[0], way)[None]
            np.testing.assert_array_equal(
                made, own if layout == "NHWC" else own.transpose(0, 3, 1, 2), err_msg=way.name
            )


def test_the_file_by_onnxruntime_alone(file: Path, osc: Any) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [("images", "tensor(uint8)", ["n", 16, 16, 3])]
    assert {o.name: (o.type, o.shape) for o in session.get_outputs()} == {
        "label": ("tensor(int64)", ["n"]), "unknown": ("tensor(bool)", ["n"]), "p_value": ("tensor(float)", ["n"]),
        "score": ("tensor(float)", ["n"]), "closed_label": ("tensor(int64)", ["n"]),
        "probabilities": ("tensor(float)", ["n", 4]),
    }  # fmt: skip
    label, unknown, probabilities = session.run(["label", "unknown", "probabilities"], {"images": MIXED})
    np.testing.assert_array_equal(unknown, label < 0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    said = json.loads(session.get_modelmeta().custom_metadata_map["knownot"])
    assert said["class_names"] == [str(name) for name in osc.class_names]
    p = osc.predict(MIXED, gallery=False).p_value
    assert {alpha for alpha, _ in said["thresholds"]} >= {0.01, 0.05, 0.1}
    for alpha, threshold in said["thresholds"]:
        calibration = osc.calibration
        other = Calibration.of(calibration.scores, calibration.predicted, alpha=alpha, guarantee="marginal")
        (at,) = session.run(["unknown"], {"images": MIXED, "p_threshold": np.array(threshold, np.float32)})
        np.testing.assert_array_equal(at, other.unknown(p, np.zeros(len(p))), err_msg=str(alpha))


def test_thresholds_on_every_possible_p_value() -> None:
    """j / (m + 1) against itself, rounded to float32 as the graph does it, and against its neighbours."""
    from knownot.export.graph import SLACK

    for m in (19, 99, 599, 4_999, 99_999):
        p = (np.arange(1, m + 2, dtype=np.float32) / np.float32(m + 1)).astype(np.float32)
        threshold = (np.arange(1, m + 2) / (m + 1)).astype(np.float32) * (np.float32(1) + SLACK)
        assert (p <= threshold).all()
        assert (p[1:] > threshold[:-1]).all()


def test_scores_are_rounded_down_so_that_counts_are_exact() -> None:
    from knownot.export.graph import _round_down

    scores = np.random.default_rng(0).normal(size=1000)
    down = _round_down(scores)
    assert (down <= scores).all()
    asked = np.concatenate([down, np.nextafter(down, np.float32(np.inf))])
    np.testing.assert_array_equal(down[:, None] >= asked, scores[:, None] >= asked)


def test_external_weights_are_taken_in(tmp_path: Path) -> None:
    onnx.save(toy.graph(), tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    osc = fit(tmp_path / "net.onnx", detector="msp")
    osc.export(tmp_path / "out" / "osc.onnx", check=MIXED[::4])
    same(tmp_path / "out" / "osc.onnx", osc)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["osc.README.md", "osc.onnx"]


def test_class_conditional_classes_without_images_take_all(osc: Any, tmp_path: Path) -> None:
    """Class 3 has no calibration image: all stand in for it."""
    few = osc.calibration.predicted != 3
    one = fit(detector="msp", guarantee="class-conditional")
    keep = one.calibration.predicted != 3
    changed = Calibration(one.calibration.scores[keep], one.calibration.predicted[keep], 0.05, "class-conditional")
    one = replace(one, calibration=changed)
    one.export(tmp_path / "osc.onnx", check=MIXED[::4])
    same(tmp_path / "osc.onnx", one)
    assert few.any()


# -- what is not written -----------------------------------------------------------------------------------------------


def test_another_decision_is_not_written(osc: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(osc.calibration, scores=osc.calibration.scores - 1e6)
    from knownot.export import graph

    build = graph.build
    monkeypatch.setattr(graph, "build", lambda osc, *a, **k: build(replace(osc, calibration=wrong), *a, **k))
    with pytest.raises(UnsoundError, match=r"decides otherwise than Python for \d+ of 120 images, first for #\d+"):
        osc.export(tmp_path / "osc.onnx", check=MIXED)
    assert list(tmp_path.iterdir()) == []


def test_other_scores_are_not_written(file: Path, osc: Any) -> None:
    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        made = dict(run_file(images))
        made["score"] = made["score"] + 0.02 * np.ptp(made["score"])
        return made

    run_file = runner(file)
    with pytest.raises(UnsoundError, match="other scores than Python"):
        compare(osc, run, MIXED).require()


def test_within_an_ulp_of_the_threshold_either_is_right(osc: Any) -> None:
    threshold = np.float32(osc.calibration.score_threshold)
    for score, near in ((threshold, True), (threshold - np.float32(0.1), False)):
        x = {
            "label": np.array([0]), "their_label": np.array([-1]), "closed": np.array([0]),
            "their_closed": np.array([0]), "score": np.array([score]), "their_score": np.array([score]),
            "p_value": np.array([0.05]), "their_p_value": np.array([0.05]), "gap": np.array([1.0]),
        }  # fmt: skip
        assert parity._judge(osc, ["a"], x, False, "onnxruntime").near == near


def test_detectors_of_more_passes_are_refused(osc: Any, tmp_path: Path) -> None:
    from knownot.detectors.methods.mcdropout import MCDropout

    with pytest.raises(UnsoundError, match="cannot be exported: Thinned looks at an image again"):
        replace(osc, detector=MCDropout(3, 0, "entropy")).export(tmp_path / "osc.onnx")


def test_functions_are_refused_with_the_cure(osc: Any, tmp_path: Path) -> None:
    net = knownot.open_model(lambda x: np.tile([[0.1, 0.2, 0.3, 0.4]], (len(x), 1)), size=(16, 16))
    with pytest.raises(ModelError, match="function classifier cannot be written as ONNX"):
        replace(osc, model=net).export(tmp_path / "osc.onnx")


def test_approximate_neighbours_become_exact(tmp_path: Path) -> None:
    osc = fit(detector="knn")
    approximate = replace(osc, detector=replace(osc.detector, index="ivf"))
    made = approximate.export(tmp_path / "osc.onnx", check=MIXED[::4])
    assert "the file searches exactly" in made.facts.notes[0]
    same(tmp_path / "osc.onnx", osc)


@pytest.mark.parametrize("name", ["osc", "osc.pt", "osc.onnx/"])
def test_names(name: str, osc: Any, tmp_path: Path) -> None:
    if name.endswith("/"):
        (tmp_path / name).mkdir()
    with pytest.raises(OptionError, match=r"ending with \.onnx|is a folder"):
        osc.export(tmp_path / name)


def test_a_failed_write_leaves_what_was_there(osc: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "osc.onnx").write_bytes(b"before")

    def fails(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("knownot.export.onnx.os.replace", fails)
    with pytest.raises(StorageError, match="disk full"):
        osc.export(tmp_path / "osc.onnx", check=MIXED[::8])
    assert [p.name for p in tmp_path.iterdir()] == ["osc.onnx"]
    assert (tmp_path / "osc.onnx").read_bytes() == b"before"


# -- reading it again --------------------------------------------------------------------------------------------------


def test_predict_from_files_and_no_report(file: Path, osc: Any, tmp_path: Path) -> None:
    home = toy.written(tmp_path / "images", MIXED[:10])
    (home / "broken.png").write_bytes(b"no image")
    ours, theirs = osc.predict(home, gallery=False), knownot.load(file).predict(home)
    assert theirs.ids == ours.ids
    np.testing.assert_array_equal(theirs.label, ours.label)
    assert theirs.unreadable.sum() == 1
    assert theirs.promise == osc.promise
    assert len(knownot.load(file).nothing) == 0
    with pytest.raises(OptionError, match="from the saved folder"):
        next(knownot.load(file).stream(home, gallery=True))
    with pytest.raises(ImagesError, match="prepares raw images itself"):
        knownot.load(file).predict(floats(MIXED))
    with pytest.raises(OptionError, match="are for saved folders"):
        knownot.load(file, model="x.onnx")


def ran(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str]:
    with pytest.raises(SystemExit) as done:
        main([str(a) for a in arguments])
    said = capsys.readouterr()
    return int(done.value.code or 0), said.out + said.err


def test_command_line(osc: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = osc.save(tmp_path / "osc"), tmp_path / "osc.onnx"
    images = toy.written(tmp_path / "images", MIXED[:12])
    code, text = ran(capsys, "export", folder, out, "--check", images)
    assert (code, "12 images, 12 of them unknown" in text, "0 decided otherwise" in text) == (0, True, True), text
    code, text = ran(capsys, "export", "--verify", out, folder, images, "--json")
    assert (code, json.loads(text)["images"], json.loads(text)["mismatches"]) == (0, 12, [])
    code, text = ran(capsys, "predict", out, images, "-o", tmp_path / "v.csv", "-q")
    assert (code, "12 images: 0 known, 12 unknown" in text) == (0, True), text
    code, text = ran(capsys, "info", out)
    assert (code, "exported file" in text, osc.promise in text, "1 s" in text) == (0, True, True, False)
    code, text = ran(capsys, "info", folder, "--json")
    assert (code, json.loads(text)["kind"], json.loads(text)["alpha"]) == (0, "saved folder", 0.05)
    assert ran(capsys, "export", folder, out, "stray.png")[0] == 1
    other = replace(osc, calibration=replace(osc.calibration, scores=osc.calibration.scores + 1e6)).save(tmp_path / "b")
    code, text = ran(capsys, "export", "--verify", out, other, images)
    assert (code, "12 decided otherwise" in text, "the file unknown" in text) == (1, True, True), text


def test_card(file: Path, osc: Any) -> None:
    text = file.with_suffix(".README.md").read_text()
    for word in (osc.promise, "Apache-2.0", "120 images", "p_threshold", "| 0.05 |", "onnxruntime"):
        assert word in text


# -- attacks -----------------------------------------------------------------------------------------------------------


def edited(file: Path, change: Callable[[onnx.ModelProto], Any]) -> None:
    proto = onnx.load(file)
    change(proto)
    onnx.save(proto, file)


def changed_weight(proto: onnx.ModelProto) -> None:
    tensor = max(proto.graph.initializer, key=lambda t: len(t.raw_data))
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]


def metadata(key: str, change: Callable[[str], str]) -> Callable[[onnx.ModelProto], None]:
    def edit(proto: onnx.ModelProto) -> None:
        entry = next(p for p in proto.metadata_props if p.key == key)
        entry.value = change(entry.value)

    return edit


def outside(where: str) -> Callable[[onnx.ModelProto], None]:
    def edit(proto: onnx.ModelProto) -> None:
        tensor = max(proto.graph.initializer, key=lambda t: len(t.raw_data))
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=where)

    return edit


def unknown_operator(proto: onnx.ModelProto) -> None:
    next(n for n in proto.graph.node if n.op_type == "Softmax" or n.op_type == "Exp").op_type = "Nonsense"


def drop_metadata(proto: onnx.ModelProto) -> None:
    del proto.metadata_props[:]


ATTACKS = {
    "tampered weights": (changed_weight, "is not the file that was exported"),
    "tampered words": (metadata("knownot", lambda t: t.replace('"alpha": 0.05', '"alpha": 0.01')), "is not the file"),
    "another threshold inside": (
        lambda p: next(t for t in p.graph.initializer if t.name == "p_threshold").CopyFrom(
            onnx.numpy_helper.from_array(np.float32(0.5), "p_threshold")), "is not the file"),
    "newer": (metadata("knownot", lambda t: t.replace('"format": 1', '"format": 2')), "is of format 2"),
    "no metadata": (drop_metadata, "was not exported by knownot"),
    "metadata are no JSON": (metadata("knownot", lambda t: t[:20]), "cannot be read"),
    "metadata are a list": (metadata("knownot", lambda t: "[1]"), "cannot be read"),
    "unknown operator": (unknown_operator, "is not the file"),
    "weights outside": (outside("../secret.bin"), "outside its own folder"),
    "weights at an absolute path": (outside("/etc/passwd"), "outside its own folder"),
    "weights that are not there": (outside("gone.bin"), "that file is not there"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack(attack: str, file: Path, tmp_path: Path) -> None:
    change, says = ATTACKS[attack]
    path = tmp_path / "osc.onnx"
    path.write_bytes(file.read_bytes())
    edited(path, change)
    for read in (knownot.load, knownot.export.info):  # type: ignore[attr-defined]
        with pytest.raises(SavedError, match=says):
            read(path)


def test_unknown_operator_with_a_checksum_made_right(file: Path, osc: Any, tmp_path: Path) -> None:
    from knownot.export.metadata import Facts
    from knownot.models.onnx.file import OnnxFile

    path = tmp_path / "osc.onnx"
    path.write_bytes(file.read_bytes())
    edited(path, unknown_operator)
    proto = onnx.load(path)
    whole = OnnxFile(file)
    facts = Facts.read(whole.metadata, whole.fingerprint, "it")
    drop_metadata(proto)
    for key, text in facts.written(OnnxFile(proto).fingerprint).items():
        proto.metadata_props.add(key=key, value=text)
    onnx.save(proto, path)
    with pytest.raises(SavedError, match=r"onnxruntime .* cannot open the exported file.*update onnxruntime"):
        knownot.load(path)


@pytest.mark.parametrize(
    ("data", "says"), [(b"", "is empty"), (b"not a model at all", "no ONNX|damaged"), (None, "no file")]
)
def test_no_model(data: bytes | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "osc.onnx"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SavedError, match=says):
        knownot.load(path)


def test_a_truncated_file(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "osc.onnx"
    path.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(SavedError, match="cannot be read"):
        knownot.load(path)


def test_of_another_classifier(file: Path) -> None:
    with pytest.raises(SavedError, match="exported from another classifier"):
        knownot.export.verify(file, fit(ensemble()[1], detector="msp"), MIXED)  # type: ignore[attr-defined]


def test_without_spox_it_can_be_read_but_not_written(file: Path, osc: Any, tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['spox'] = None; import numpy as np, knownot; "
        f"k = knownot.load({str(file)!r}); print(k.predict(np.zeros((2, 16, 16, 3), np.uint8)).label.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "(2,)" in done.stdout

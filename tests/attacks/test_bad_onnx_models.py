"""Broken, hostile and foreign files that end in .onnx: each is one ModelError that says what is wrong."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from helpers import onnx as ho
from knownot.errors import ModelError
from knownot.models import open_model

HEAD = ho.weights(9, w=(ho.C, ho.D), b=(ho.C,))


def good(**options: object) -> onnx.ModelProto:
    trunk, w = ho.body()
    return ho.model([*trunk, ho.node("Gemm", "f w b", "y", transB=1)], w | HEAD, **options)


def refused(path: Path, *words: str) -> None:
    before = sorted(p.name for p in path.parent.iterdir())
    with pytest.raises(ModelError) as caught:
        open_model(path)
    for word in words:
        assert word in str(caught.value)
    assert sorted(p.name for p in path.parent.iterdir()) == before


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.onnx"


def test_the_good_one_opens(path: Path) -> None:
    path.write_bytes(good().SerializeToString())
    assert open_model(path).capabilities.classes == ho.C


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9, 0.999])
def test_truncated(path: Path, share: float) -> None:
    data = good().SerializeToString()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, "m.onnx")


def test_empty(path: Path) -> None:
    path.write_bytes(b"")
    refused(path, "empty", "0 bytes")


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 1000,
        b"this is a text file, no model\n" * 20,
        b"\x89PNG\r\n\x1a\n" + b"x" * 99,
        b"PK\x03\x04" + b"z" * 99,
    ],
)
def test_other_files(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    refused(path, "m.onnx", "again")


def test_a_git_lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n")
    refused(path, "git lfs pull")


def test_a_folder(path: Path) -> None:
    path.mkdir()
    refused(path, "is a folder without")


def test_random_changes_never_end_in_another_error(path: Path) -> None:
    data, rng = bytearray(good().SerializeToString()), np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(data)
        for i in rng.integers(0, len(data), size=3):
            changed[i] = int(rng.integers(0, 256))
        path.write_bytes(changed)
        with contextlib.suppress(ModelError):
            open_model(path)


def external(path: Path, location: str) -> None:
    """A model one weight of which lies, so it says, at `location`."""
    proto = good()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(proto.SerializeToString())


def test_external_data_that_is_missing(path: Path) -> None:
    external(path, "weights.bin")
    refused(path, "weights.bin", "not there")


def test_external_data_that_is_too_short(path: Path) -> None:
    external(path, "weights.bin")
    (path.parent / "weights.bin").write_bytes(b"12")
    refused(path, "m.onnx")


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin", "..\\weights.bin", "C:\\w", ""]
)
def test_external_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    (tmp_path / "inner").mkdir()
    external(tmp_path / "inner" / "m.onnx", location)
    refused(tmp_path / "inner" / "m.onnx", "outside its own folder")


def test_a_proto_without_its_external_data(path: Path) -> None:
    external(path, "weights.bin")
    with pytest.raises(ModelError, match="Give the path"):
        open_model(onnx.load(path, load_external_data=False))


def test_an_opset_of_the_future(path: Path) -> None:
    path.write_bytes(good(opset=999).SerializeToString())
    refused(path, "opset 999", "update onnxruntime")


def test_an_unknown_domain(path: Path) -> None:
    trunk, w = ho.body()
    strange = helper.make_node("Guess", ["f"], ["y"], domain="com.example")
    path.write_bytes(ho.model([*trunk, strange], w, domains={"com.example": 1}).SerializeToString())
    refused(path, "Guess", "onnxruntime")


def test_no_output(path: Path) -> None:
    path.write_bytes(good(outputs=[]).SerializeToString())
    refused(path, "no output", "none")


def test_an_output_that_nothing_computes(path: Path) -> None:
    path.write_bytes(good(outputs=["nowhere"]).SerializeToString())
    refused(path, "no output")


def test_an_output_that_does_not_depend_on_the_image(path: Path) -> None:
    trunk, w = ho.body()
    nodes = [*trunk, ho.node("Softmax", "w", "y")]
    path.write_bytes(ho.model(nodes, w | HEAD).SerializeToString())
    refused(path, "depends on the image")


def test_no_input(path: Path) -> None:
    proto = good()
    del proto.graph.input[:]
    path.write_bytes(proto.SerializeToString())
    refused(path, "m.onnx")


def test_no_nodes(path: Path) -> None:
    proto = good()
    del proto.graph.node[:]
    path.write_bytes(proto.SerializeToString())
    refused(path, "no ONNX graph")


def test_strings_go_in(path: Path) -> None:
    path.write_bytes(good(dtype=TensorProto.STRING).SerializeToString())
    refused(path, "STRING")


def test_a_vector_goes_in(path: Path) -> None:
    path.write_bytes(good(shape=("n", 192)).SerializeToString())
    refused(path, "four axes")


def test_whole_numbers_come_out(path: Path) -> None:
    trunk, w = ho.body()
    nodes = [*trunk, ho.node("Gemm", "f w b", "z", transB=1), ho.node("ArgMax", "z", "y", axis=1)]
    path.write_bytes(ho.model(nodes, w | HEAD, outputs={"y": TensorProto.INT64}).SerializeToString())
    refused(path, "only the label")


@pytest.mark.parametrize("names", [("a b", "b a"), ("a a",), ("y2 y", "y y2")])
def test_cycles(path: Path, names: tuple[str, ...]) -> None:
    trunk, w = ho.body()
    loop = [ho.node("Identity", *pair.split()) for pair in names]
    path.write_bytes(ho.model([*trunk, *loop], w, outputs=[names[0].split()[1]]).SerializeToString())
    refused(path, "damaged", "nothing computes before it")


def test_a_tensor_computed_twice(path: Path) -> None:
    proto = good()
    proto.graph.node.append(ho.node("Relu", "f", "y"))
    path.write_bytes(proto.SerializeToString())
    refused(path, "computed twice")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(path: Path, value: float) -> None:
    trunk, w = ho.body()
    bad = {"w": np.full_like(HEAD["w"], value), "b": HEAD["b"]}
    nodes = [*trunk, ho.node("Gemm", "f w b", "y", transB=1)]
    path.write_bytes(ho.model(nodes, w | bad).SerializeToString())
    refused(path, "NaN or infinity", "'w'")


def test_shapes_that_do_not_fit(path: Path) -> None:
    trunk, w = ho.body()
    nodes = [*trunk, ho.node("Gemm", "f w b", "y", transB=1)]
    wrong = {"w": np.ones((ho.C, ho.D + 1), np.float32), "b": HEAD["b"]}
    path.write_bytes(ho.model(nodes, w | wrong).SerializeToString())
    refused(path, "m.onnx")


def test_an_image_size_that_the_graph_cannot_take(path: Path) -> None:
    w = HEAD | {"w": np.ones((ho.C, ho.K * 64), np.float32)}
    nodes = [ho.node("Flatten", "x", "f"), ho.node("Gemm", "f w b", "y", transB=1)]
    path.write_bytes(ho.model(nodes, w, shape=("n", ho.K, "h", "w")).SerializeToString())
    refused(path, "size=(height, width)")
    assert open_model(path, size=(8, 8)).input.height == 8


@pytest.mark.parametrize(
    ("domain", "kind"), [("ai.onnx.contrib", "ImageReader"), ("com.microsoft", "EPContext"), ("", "PyOp")]
)
@pytest.mark.parametrize("inside", [False, True])
def test_operators_that_are_code_or_read_files(path: Path, domain: str, kind: str, inside: bool) -> None:
    proto = good()
    strange = helper.make_node(kind, ["y"], ["z"], domain=domain)
    if inside:  # in the branch of an If
        branch = helper.make_graph([strange], "b", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])
        strange = helper.make_node("If", ["yes"], ["z2"], then_branch=branch, else_branch=branch)
    proto.graph.node.append(strange)
    path.write_bytes(proto.SerializeToString())
    refused(path, kind, "not loaded")


def beside(folder: Path) -> Path:
    folder.mkdir(parents=True)
    onnx.save(good(), folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    return folder / "m.onnx"


@pytest.mark.parametrize("link", ["file", "folder"])
def test_external_data_through_a_link(tmp_path: Path, link: str) -> None:
    path = beside(tmp_path / "inner")
    if link == "file":
        (tmp_path / "inner" / "w.bin").rename(tmp_path / "w.bin")
        (tmp_path / "inner" / "w.bin").symlink_to(tmp_path / "w.bin")
    else:
        proto = onnx.load(path, load_external_data=False)
        for tensor in proto.graph.initializer:
            next(e for e in tensor.external_data if e.key == "location").value = "sub/w.bin"
        path.write_bytes(proto.SerializeToString())
        (tmp_path / "away").mkdir()
        (tmp_path / "inner" / "w.bin").rename(tmp_path / "away" / "w.bin")
        (tmp_path / "inner" / "sub").symlink_to(tmp_path / "away")
    refused(path, "outside its own folder")

"""Files and folders that are not read are refused by name, with the way on."""

import json

import pytest

from helpers import toy
from knownot.errors import ModelError
from knownot.models import open_model

FILES = {
    "last.ckpt": (b"PK\x03\x04", "Lightning"),
    "export.pkl": (b"\x80\x04", r"fastai.*learn\.model"),
    "svm.joblib": (b"\x80\x04", "pickle"),
    "model.safetensors": (b"\0" * 9, "weights.*network"),
    "pytorch_model.bin": (b"\x80\x02", "weights"),
    "m.tflite": (b"\0\0\0\0TFL3", "tf2onnx.convert --tflite"),
    "frozen.pb": (b"\n\x10", "frozen graph.*tf2onnx"),
    "ov.xml": (b"<net/>", "OpenVINO.*ONNX"),
    "m.mlmodel": (b"\x08", "Core ML"),
    "m.ENGINE": (b"ftrt", "TensorRT"),
    "m.plan": (b"ftrt", "TensorRT"),
    "m.mar": (b"PK", "TorchServe"),
    "m.zip": (b"PK", "unpack"),
    "m.tar": (b"", "unpack"),
    "lfs.keras": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "page.pt2": (b"\n <!DOCTYPE html><html>", "web page.*download"),
    "page.onnx": (b"<html>sign in</html>", "web page"),
    "model.json": (json.dumps({"format": "graph-model", "modelTopology": {}}).encode(), "TensorFlow.js"),
    "m.json": (json.dumps({"class_name": "Functional", "config": {}}).encode(), "without its weights"),
    "m.h6": (b"", "no ending of a model file"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_named_with_the_way_on(tmp_path, name):
    data, says = FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError, match=says) as error:
        open_model(tmp_path / name)
    assert name in str(error.value)


FOLDERS = {
    "saved_model": ({"saved_model.pb": b"\x08"}, "SavedModel.*tf2onnx"),
    "vit": ({"config.json": b"{}", "model.safetensors": b""}, r"Hugging Face.*from_pretrained"),
    "optimum": (
        {"config.json": b'{"architectures": ["X"]}', "net.onnx": b""},
        r"give the model file in it: .*net\.onnx",
    ),
    "web": ({"model.json": json.dumps({"format": "layers-model", "modelTopology": {}}).encode()}, "TensorFlow.js"),
    "m.mlpackage": ({"Manifest.json": b"{}"}, "Core ML"),
    "tf": ({"checkpoint": b"", "m.index": b""}, "checkpoint"),
    "export": ({"a.txt": b"", "net.onnx": b""}, r"give the model file in it: .*net\.onnx"),
    "empty": ({}, "no retrained classifier"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_named_with_the_way_on(tmp_path, name):
    files, says = FOLDERS[name]
    folder = tmp_path / name
    folder.mkdir()
    for file, data in files.items():
        (folder / file).write_bytes(data)
    with pytest.raises(ModelError, match=says):
        open_model(folder)


def test_what_is_read_is_still_read(tmp_path):
    assert open_model(toy.saved(tmp_path)).capabilities.classes == 4

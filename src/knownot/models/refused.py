"""Files and folders that people have and that are not read here: what they are, and the way on."""

# ruff: noqa: E501 (a kind of file and its way on, side by side)
from __future__ import annotations

import json
from pathlib import Path

from ..errors import ModelError

TO_ONNX = "export the classifier to ONNX where it was made, and give the .onnx file"
PICKLE = "a pickle, which may run any code when it is opened, so it is not"
KINDS: dict[str, str] = {  # ending: what it is, and the way
    ".ckpt": "a checkpoint of PyTorch Lightning (or another trainer): weights (a state dict) without the network. Build the "
    "network in Python, load the weights (LightningModule.load_from_checkpoint(path)), and give the nn.Module, or its "
    "torch.export: torch.export.save(torch.export.export(model, (images,)), 'model.pt2')",
    ".pkl": f"{PICKLE}. Of fastai (export.pkl): learn = load_learner(path) where you trust it, and give learn.model, an "
    "nn.Module; of scikit-learn: give a function images -> probabilities",
    ".joblib": f"{PICKLE}. Open it where you trust it, and give a function images -> probabilities",
    ".safetensors": "weights (safetensors) without the network. Build the network, load the weights into it, and give the "
    "nn.Module; or give the folder of a Hugging Face model that holds it",
    ".bin": "weights without the network. Build the network, load the weights into it, and give the nn.Module",
    ".tflite": "TensorFlow Lite (LiteRT). Give the Keras model that it was made from (.keras, .h5), or convert it: pip install tf2onnx, then python -m "
    "tf2onnx.convert --tflite model.tflite --output model.onnx",
    ".pb": "a TensorFlow graph (a frozen graph, or the inside of a SavedModel). Convert it to ONNX: python -m "
    "tf2onnx.convert --graphdef model.pb --inputs x:0 --outputs y:0 --output model.onnx (--saved-model for a folder)",
    ".meta": "a TensorFlow 1 checkpoint. Convert it to ONNX: python -m tf2onnx.convert --checkpoint model.meta …",
    ".xml": f"a network of OpenVINO (its weights are the .bin beside it), which is made from another format: {TO_ONNX}",
    ".mlmodel": f"a Core ML model: {TO_ONNX}",
    ".mlpackage": f"a Core ML model: {TO_ONNX}",
    ".engine": f"a TensorRT engine, compiled for one kind of GPU: {TO_ONNX} (the one that the engine was built from)",
    ".trt": f"a TensorRT engine, compiled for one kind of GPU: {TO_ONNX} (the one that the engine was built from)",
    ".plan": f"a TensorRT engine, compiled for one kind of GPU: {TO_ONNX} (the one that the engine was built from)",
    ".mar": "an archive of TorchServe: unpack it (it is a zip) and give the TorchScript file or the network inside",
    ".nemo": f"an archive of NeMo: {TO_ONNX}",
    ".params": f"weights of MXNet without the network: {TO_ONNX}",
    ".pdmodel": f"a PaddlePaddle model: convert it (paddle2onnx), or {TO_ONNX}",
    ".pdiparams": f"weights of PaddlePaddle: convert the model (paddle2onnx), or {TO_ONNX}",
    ".caffemodel": f"weights of Caffe: {TO_ONNX}",
    ".weights": f"weights of Darknet without the network: {TO_ONNX}",
    ".tar": "an archive: unpack it and give the model inside",
    ".gz": "compressed: unpack it and give the model inside",
    ".zip": "a zip archive: unpack it and give the model inside, such as keras_model.h5 with its labels.txt",
    ".rar": "an archive: unpack it and give the model inside",
    ".7z": "an archive: unpack it and give the model inside",
}


def refusal(path: Path) -> str:
    """What a file that is not read is, and the way on; "" for one that nothing is known of."""
    start = _start(path)
    if start.startswith(b"version https://git-lfs"):
        return f"{path.name!r} is a Git LFS pointer, not the model. Fetch it: git lfs pull"
    if start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return f"{path.name!r} is a web page, not a model: the download failed or asks for a login. Download it again."
    kind = KINDS.get(path.suffix.lower(), "")
    return f"{path.name!r} is {kind}." if kind else ""


def json_refusal(path: Path) -> str:
    """The same of a .json file that is no ensemble of ours."""
    try:
        said = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return ""
    if isinstance(said, dict) and ("modelTopology" in said or str(said.get("format", "")).endswith("-model")):
        return (
            f"{path.name!r} is a TensorFlow.js model. Convert it: tensorflowjs_converter --input_format tfjs_layers_model "
            "--output_format keras model.json model.h5, and give the .h5 file; of a graph model, export to ONNX."
        )
    if isinstance(said, dict) and said.get("class_name") in ("Sequential", "Functional", "Model"):
        return f"{path.name!r} is the structure of a Keras model without its weights. Save it whole: model.save('m.keras')."
    return ""


def is_hugging_face(folder: Path) -> bool:
    """Whether a folder holds a model of transformers (`save_pretrained`) with its weights: no ONNX export of one."""
    try:
        said = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    ours = isinstance(said, dict) and ("architectures" in said or "pretrained_cfg" in said)
    return ours and (any(folder.glob("*.safetensors")) or not any(folder.glob("*.onnx")))


def folder_refusal(folder: Path) -> str:
    """The same of a folder."""
    if (folder / "saved_model.pb").is_file():
        return (
            f"{str(folder)!r} is a TensorFlow SavedModel. Give the Keras model that it was made from (.keras, .h5), or "
            f"convert it to ONNX: pip install tf2onnx, then python -m tf2onnx.convert --saved-model {folder.name} --output model.onnx"
        )
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return (
            f"{str(folder)!r} looks like a Hugging Face model folder (from_pretrained), but its config.json names no "
            "architectures: copy the whole folder, or give the network, as an nn.Module."
        )
    if folder.suffix == ".mlpackage":
        return f"{str(folder)!r} is {KINDS['.mlpackage']}."
    if any(folder.glob("*.index")) or (folder / "checkpoint").is_file():
        return f"{str(folder)!r} holds a TensorFlow checkpoint: weights without a network. Save the whole model from Keras."
    if (
        model := next((p for p in sorted(folder.iterdir()) if p.suffix in (".onnx", ".keras", ".h5", ".pt2")), None)
    ) and (not (folder / "manifest.json").is_file()):
        return f"{str(folder)!r} is a folder; give the model file in it: {str(model)!r}."
    return ""


def refuse(path: Path, known: str) -> ModelError:
    """The error for a file with an ending that is not read."""
    return ModelError(refusal(path) or f"{path.name!r} has no ending of a model file. Those read are: {known}.")


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""

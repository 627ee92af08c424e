"""A small trained ONNX classifier on made pictures of four classes: quick, but with everything a real one has.

Two convolution stages with fixed random filters, global average pooling, and a head fitted by least squares. Its input
is [0, 1] NCHW, 16×16; the softmax is inside the graph, as is usual.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("stripes", "columns", "red", "blue")
SIDE = 16


def known(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [n, 16, 16, 3], labels [n]) of the four classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    images = rng.normal(120, 12, (n, SIDE, SIDE, 3))
    phase = rng.integers(0, 4, n)
    wave = 50 * np.sign(np.sin((np.arange(SIDE)[None] + phase[:, None]) * np.pi / 2 + 0.1))
    images[labels == 0] += wave[labels == 0][:, :, None, None]
    images[labels == 1] += wave[labels == 1][:, None, :, None]
    images[labels == 2, :, :, 0] += rng.uniform(50, 90, ((labels == 2).sum(), 1, 1))
    images[labels == 3, :, :, 2] += rng.uniform(50, 90, ((labels == 3).sum(), 1, 1))
    return np.clip(images, 0, 255).astype(np.uint8), labels


def unknown(n: int, seed: int = 99) -> np.ndarray:
    """uint8 [n, 16, 16, 3]: uniform noise, and green pictures."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)
    images[::2] = np.clip(rng.normal((60, 200, 60), 12, (len(images[::2]), SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    return images


@cache
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    w: dict[str, np.ndarray] = {
        "w1": rng.normal(0, 0.4, (12, 3, 3, 3)).astype(np.float32),
        "b1": rng.normal(0, 0.1, 12).astype(np.float32),
        "w2": rng.normal(0, 0.2, (24, 12, 3, 3)).astype(np.float32),
        "b2": rng.normal(0, 0.1, 24).astype(np.float32),
        "w": np.zeros((4, 24), np.float32),
        "b": np.zeros(4, np.float32),
    }
    images, labels = known(2000, seed=1)
    features = reference(images / np.float32(255), w)["features"].astype(np.float64)
    design = np.hstack([features, np.ones((len(features), 1))])
    target = 12 * np.eye(4)[labels] - 3
    solved = np.linalg.solve(design.T @ design + 1e-4 * np.eye(25), design.T @ target)
    return w | {"w": solved[:-1].T.astype(np.float32), "b": solved[-1].astype(np.float32)}


def reference(x: np.ndarray, w: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The network in plain NumPy. x [n, 16, 16, 3] in [0, 1]."""

    def conv(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:  # NHWC, stride 2, padding 1
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
        return np.maximum(np.einsum("nhwkij,okij->nhwo", windows, kernel, optimize=True) + bias, 0)

    one = conv(x.astype(np.float64), w["w1"], w["b1"])
    two = conv(one, w["w2"], w["b2"])
    features = two.mean(axis=(1, 2))
    pooled = np.concatenate([one.mean(axis=(1, 2)), one.std(axis=(1, 2))], axis=1)
    return {"features": features, "stage1": pooled, "logits": features @ w["w"].T + w["b"]}


def graph(batch: int | str = "n") -> onnx.ModelProto:
    """The classifier as an ONNX model."""
    conv = {"strides": [2, 2], "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], **conv),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], **conv),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["z"], transB=1),
        helper.make_node("Softmax", ["z"], ["probabilities"], axis=1),
    ]
    made = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(x, name) for name, x in weights().items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(folder: Path) -> Path:
    """The classifier as a file."""
    path = folder / "toy.onnx"
    onnx.save(graph(), path)
    return path


def written(folder: Path, images: np.ndarray, labels: np.ndarray | None = None) -> Path:
    """The images as PNG files, in class sub-folders when labels are given."""
    from PIL import Image

    for i, image in enumerate(images):
        home = folder if labels is None else folder / CLASSES[labels[i]]
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(home / f"{i:05d}.png")
    return folder

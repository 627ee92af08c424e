"""Resizing inside the graph gives Pillow's bits, for every filter, of larger and smaller, tall and wide images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import spox
from PIL import Image

import knownot
from helpers import toy
from knownot.arrays import Preprocess
from knownot.errors import OptionError
from knownot.export.recorded import argument, recording
from knownot.export.resizing import resized
from knownot.images.preprocess import RESAMPLE, _resize


def graph(way: Preprocess) -> Callable[[np.ndarray], np.ndarray]:
    with recording():
        images = argument(np.uint8, ("n", "h", "w", 3))
        proto = spox.build({"x": images.var}, {"y": resized(images, way).var})
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def columns_first(image: np.ndarray, way: Preprocess) -> np.ndarray:
    """By Pillow, in two calls, so that the order of the passes does not depend on its version."""
    h, w = image.shape[:2]
    th, tw = (round(side / way.crop_share) for side in (way.height or 0, way.width or 0))
    if way.fit == "stretch":
        size, top, left = (way.height or 0, way.width or 0), 0, 0
    else:
        size = (th, max(tw, th * w // h)) if th * w >= tw * h else (max(th, tw * h // w), tw)
        top, left = (round((a - (b or 0)) / 2) for a, b in zip(size, (way.height, way.width), strict=True))
    filter: Any = getattr(Image.Resampling, RESAMPLE[way.resample])
    made = np.asarray(Image.fromarray(image).resize((size[1], h), filter).resize((size[1], size[0]), filter))
    return made[top : top + (way.height or 0), left : left + (way.width or 0)]


SIZES = [(20, 17), (64, 64), (131, 97), (97, 131), (32, 200), (200, 33), (1, 1), (33, 32)]


@pytest.mark.parametrize("fit", ["crop", "stretch"])
@pytest.mark.parametrize("filter", RESAMPLE)
def test_the_bits_of_pillow(filter: str, fit: str) -> None:
    way = Preprocess(32, 40, fit=fit, crop_share=0.875, resample=filter)
    run, rng = graph(way), np.random.default_rng(0)
    for h, w in SIZES:
        x = rng.integers(0, 256, (2, h, w, 3), dtype=np.uint8)
        expected = np.stack([columns_first(image, way) for image in x])
        np.testing.assert_array_equal(run(x), expected, err_msg=f"{filter} {fit} {h} x {w}")
        if filter == "bilinear":  # in any version, whichever is scaled first
            assert np.abs(expected.astype(int) - np.stack([_resize(image, way) for image in x])).max() <= 1


def test_a_file_that_resizes(tmp_path: Path) -> None:
    known, new = toy.known(600, 2), toy.known(300, 3)
    osc: Any = knownot.fit(
        toy.graph(), *known, calibration=new[0], calibration_labels=new[1], guarantee="marginal", progress=False,
        preprocess=Preprocess(16, 16, scale=1 / 255, crop_share=0.875), detector="energy",
    )  # fmt: skip
    large = np.repeat(np.repeat(np.concatenate([toy.unknown(20), toy.known(20, 9)[0]]), 3, axis=1), 4, axis=2)
    made = osc.export(tmp_path / "osc.onnx", resize=True, check=large)
    assert (made.facts.height, made.parity.relative < 1e-5) == (None, True)
    ours, theirs = osc.predict(large, gallery=False), knownot.load(tmp_path / "osc.onnx").predict(large)
    np.testing.assert_array_equal(theirs.label, ours.label)
    home = tmp_path / "images"
    for i, image in enumerate((large[0], large[0][:30], large[25][:, :50])):
        toy.written(home / str(i), image[None])
    np.testing.assert_array_equal(
        knownot.load(tmp_path / "osc.onnx").predict(home).label, osc.predict(home, gallery=False).label
    )
    session = onnxruntime.InferenceSession(tmp_path / "osc.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["n", "h", "w", 3]


def test_float_images_are_not_resized(tmp_path: Path) -> None:
    x, y = toy.known(600, 2)
    floats = np.ascontiguousarray((x / np.float32(255)).transpose(0, 3, 1, 2))
    osc = knownot.fit(toy.graph(), floats, y, detector="msp", guarantee="marginal", progress=False)
    with pytest.raises(OptionError, match="is for raw images"):
        osc.export(tmp_path / "osc.onnx", resize=True)

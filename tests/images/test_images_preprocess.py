"""Preprocessing against an independent float64 reference, and the usual conventions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from knownot.arrays import Preprocess
from knownot.errors import OptionError
from knownot.images.decode import Unreadable
from knownot.images.preprocess import CANDIDATES, GREY_CANDIDATES, apply, candidates, thumbnail

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (9, 14, 3), dtype=np.uint8)


def reference(image: np.ndarray, p: Preprocess) -> np.ndarray:
    """Written from the words of `Preprocess`, in float64, with Pillow for resizing and luma only."""
    pil = Image.fromarray(image)
    if p.height is not None:
        method = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4}[p.resample]
        if p.fit == "stretch":
            pil = pil.resize((p.width, p.height), method)
        else:
            w, h = pil.size
            box = (round(p.width / p.crop_share), round(p.height / p.crop_share))
            scale = max(box[0] / w, box[1] / h)
            big = (max(box[0], int(w * scale + 1e-9)), max(box[1], int(h * scale + 1e-9)))
            pil = pil.resize(big, method)
            left, top = round((big[0] - p.width) / 2), round((big[1] - p.height) / 2)
            pil = pil.crop((left, top, left + p.width, top + p.height))
    if p.channels == "grey":
        x = np.asarray(pil.convert("L"), dtype=np.float64)[..., None]
    else:
        x = np.asarray(pil, dtype=np.float64)
    if p.channels == "bgr":
        x = np.stack([x[..., 2], x[..., 1], x[..., 0]], axis=-1)
    return (x * p.scale - np.array(p.mean)) / np.array(p.std)


@settings(max_examples=80, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    to=st.one_of(st.none(), st.tuples(st.integers(1, 24), st.integers(1, 24))),
    channels=st.sampled_from(["rgb", "bgr", "grey"]),
    fit=st.sampled_from(["crop", "stretch"]),
    share=st.sampled_from([1.0, 0.875, 0.9]),
    resample=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos", "box"]),
    own=st.booleans(),
    seed=st.integers(0, 99),
)
def test_against_the_reference(shape, to, channels, fit, share, resample, own, seed):
    k = (1 if channels == "grey" else 3) if own else 1
    mean, std = (0.485, 0.456, 0.406)[:k], (0.229, 0.224, 0.225)[:k]
    h, w = to or (None, None)
    p = Preprocess(h, w, channels, 1 / 255, mean, std, fit, share, resample)
    image = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    before = image.copy()
    x = apply(image, p)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, reference(image, p).astype(np.float32))  # rounded once
    np.testing.assert_array_equal(image, before)


def test_crop_by_hand():
    """A 4 x 8 image to 2 x 2: nearest keeps every second pixel, the centre is columns 2 and 4 of the original."""
    image = np.arange(32, dtype=np.uint8).reshape(4, 8, 1).repeat(3, axis=-1)
    x = apply(image, Preprocess(2, 2, resample="nearest"))
    np.testing.assert_array_equal(x[..., 0], [[11, 13], [27, 29]])


def test_an_image_of_the_size_is_not_resampled():
    for fit in ("crop", "stretch"):
        x = apply(IMAGE, Preprocess(9, 14, fit=fit, resample="lanczos"))
        np.testing.assert_array_equal(x, IMAGE)
    np.testing.assert_array_equal(apply(IMAGE, Preprocess()), IMAGE)


def test_crop_share_as_in_torchvision():
    """Resize(256), CenterCrop(224): 640 x 480 becomes 341 x 256, cut from (58, 16) on (its documented arithmetic)."""
    image = RNG.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    big = np.asarray(Image.fromarray(image).resize((341, 256), Image.Resampling.BILINEAR))
    x = apply(image, Preprocess(224, 224, crop_share=0.875))
    np.testing.assert_array_equal(x, big[16:240, 58:282])


def test_grey_is_pillows_luma():
    every = np.stack(np.meshgrid(*[np.arange(0, 256, 5)] * 3), axis=-1).reshape(-1, 52, 3).astype(np.uint8)
    np.testing.assert_array_equal(
        apply(every, Preprocess(channels="grey"))[..., 0], np.asarray(Image.fromarray(every).convert("L"))
    )


def test_candidates_do_what_their_names_say():
    black, white = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)
    ends = {p.name: (apply(black, p).ravel(), apply(white, p).ravel()) for p in CANDIDATES}
    assert list(ends) == ["[0, 255]", "[0, 1]", "[-1, 1]", "ImageNet mean/std", "BGR, ImageNet means (caffe)"]
    for name, low, high in (("[0, 255]", 0, 255), ("[0, 1]", 0, 1), ("[-1, 1]", -1, 1)):
        assert (ends[name][0] == low).all()
        assert (ends[name][1] == high).all()
    np.testing.assert_allclose(ends["ImageNet mean/std"][0], [-2.1179, -2.0357, -1.8044], atol=1e-4)
    np.testing.assert_allclose(ends["ImageNet mean/std"][1], [2.2489, 2.4286, 2.64], atol=1e-4)
    red = np.array([[[255, 0, 0]]], np.uint8)
    caffe = candidates(3, None, None)[-1]
    np.testing.assert_allclose(apply(red, caffe).ravel(), [-103.939, -116.779, 255 - 123.68], rtol=1e-6)


def test_candidates_for_an_input():
    assert [p.name for p in candidates(None, 8, 9)] == [p.name for p in CANDIDATES]
    assert {(p.height, p.width) for p in candidates(3, 8, 9)} == {(8, 9)}
    grey = candidates(1, 28, 28)
    assert [p.name for p in grey] == [p.name for p in GREY_CANDIDATES]
    assert {apply(IMAGE, p).shape for p in grey} == {(28, 28, 1)}
    assert apply(np.zeros((1, 1, 3), np.uint8), grey[-1].sized(None, None)).item() == pytest.approx(-0.4242, abs=1e-4)
    with pytest.raises(OptionError, match="4 channels"):
        candidates(4, 8, 8)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"channels": "gray"}, "'rgb', 'bgr', 'grey'"),
        ({"fit": "pad"}, "'crop', 'stretch'"),
        ({"resample": "linear"}, "'bilinear'"),
        ({"mean": (1.0, 2.0)}, "one finite number, or 3"),
        ({"mean": (float("nan"),)}, "one finite number"),
        ({"channels": "grey", "std": (1.0, 2.0, 3.0)}, "one finite number, or 1"),
        ({"std": (1.0, 0.0, 1.0)}, "no zero"),
        ({"scale": float("inf")}, "finite scale"),
        ({"crop_share": 0.0}, "crop_share"),
        ({"crop_share": 87.5}, "crop_share"),
        ({"height": 8}, "give both"),
        ({"height": 0, "width": 8}, "at least 1"),
    ],
)
def test_preprocess_that_makes_no_sense(wrong, says):
    with pytest.raises(OptionError, match=says):
        apply(IMAGE, Preprocess(**wrong))


def test_a_strip_is_refused_before_it_fills_the_memory():
    with pytest.raises(Unreadable, match="too elongated"):
        apply(np.zeros((1, 100_000, 3), np.uint8), Preprocess(224, 224))


def test_thumbnails_are_not_enlarged():
    np.testing.assert_array_equal(thumbnail(IMAGE, 100), IMAGE)
    assert thumbnail(IMAGE, 7).shape == (4, 7, 3)
    assert thumbnail(np.zeros((1, 500, 3), np.uint8), 10).shape == (1, 10, 3)
    assert (thumbnail(np.full((3, 3, 4), 0.7, np.float32), 3) == 0).all()

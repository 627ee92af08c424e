"""preprocess= and alpha= as people write them, in Python and on the command line."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot import Preprocess
from knownot.calibration import as_share
from knownot.cli.common import preprocess_of
from knownot.errors import OptionError
from knownot.images.preprocess import IMAGENET_MEAN, IMAGENET_STD
from knownot.images.ways import as_preprocess


@pytest.mark.parametrize("given", ["5%", "5 %", "0.05", " 0,05 ", 0.05, np.float32(0.05)])
def test_a_share_is_read_however_it_is_written(given):
    assert as_share("alpha", given) == pytest.approx(0.05)


@pytest.mark.parametrize("given", [5, "five", "105%", 0, True, None, -0.1, float("nan"), [0.05]])
def test_what_is_no_share_is_said(given):
    with pytest.raises(OptionError, match="alpha="):
        as_share("alpha", given)


def test_five_is_probably_five_percent():
    with pytest.raises(OptionError, match=r"give 0.05 or '5%'"):
        as_share("alpha", 5)


@pytest.mark.parametrize(
    ("given", "mean"),
    [(127, (127.0,)), ([1, 2, 3], (1.0, 2.0, 3.0)), (np.float32([1, 2, 3]), (1.0, 2.0, 3.0)), (np.float64(3), (3.0,))],
)
def test_numbers_of_a_preprocess_may_be_lists_and_arrays(given, mean):
    assert Preprocess(mean=given).mean == mean
    assert Preprocess(mean=given) == Preprocess(mean=mean)
    hash(Preprocess(mean=given))


@pytest.mark.parametrize(
    "options", [{"mean": "imagenet"}, {"std": None}, {"mean": []}, {"scale": "1/255"}, {"scale": None}]
)
def test_what_is_no_number_is_said(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        Preprocess(**options)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("imagenet", "ImageNet mean/std"),
        ("ImageNet mean/std", "ImageNet mean/std"),
        ("caffe", "BGR, ImageNet means (caffe)"),
        ("[-1,1]", "[-1, 1]"),
        ("0-1", "[0, 1]"),
    ],
)
def test_names_are_the_same_words_in_python_and_on_the_command_line(given, name):
    assert as_preprocess(given).name == name
    assert preprocess_of(given, None, 3) == as_preprocess(given)


def test_a_dict_of_fields_may_be_python_or_json():
    fields = {"scale": 1 / 255, "mean": [0.5], "fit": "stretch"}
    want = Preprocess(scale=1 / 255, mean=(0.5,), fit="stretch")
    assert (
        as_preprocess(fields) == as_preprocess(json.dumps(fields)) == preprocess_of(json.dumps(fields), None, 3) == want
    )
    assert as_preprocess(want) is want
    assert as_preprocess(None) is None
    with pytest.raises(OptionError, match="scale"):
        as_preprocess({"scal": 1})


VIT = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5], "resample": 2, "rescale_factor": 1 / 255, "size": {"height": 224, "width": 192},
}  # fmt: skip
RESNET = {
    "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_normalize": True, "do_rescale": True,
    "do_resize": True, "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD), "resample": 3,
    "rescale_factor": 1 / 255, "size": {"shortest_edge": 256},
}  # fmt: skip
CONVNEXT = {"crop_pct": 0.875, "do_normalize": True, "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD,
            "resample": 3, "size": {"shortest_edge": 224}}  # fmt: skip
OLD = {"do_normalize": False, "do_resize": True, "image_mean": [0.5], "image_std": [0.5], "size": 160}


@pytest.mark.parametrize(
    ("said", "want"),
    [
        (VIT, {"height": 224, "width": 192, "mean": (0.5,) * 3, "fit": "stretch", "resample": "bilinear"}),
        (RESNET, {"height": 224, "fit": "crop", "crop_share": 0.875, "mean": IMAGENET_MEAN, "resample": "bicubic"}),
        (CONVNEXT, {"height": 224, "fit": "crop", "crop_share": 0.875, "std": IMAGENET_STD}),
        (OLD, {"height": 160, "width": 160, "mean": (0.0,), "std": (1.0,), "fit": "stretch"}),
    ],
)
def test_image_processors_are_read(said, want):
    for given in (said, SimpleNamespace(**said)):
        got = as_preprocess(given)
        assert got.scale == pytest.approx(1 / 255)
        assert {name: getattr(got, name) for name in want} == want


def test_timm_and_torchvision_say_it_too():
    timm = {
        "input_size": (3, 224, 224),
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
    }
    preset = SimpleNamespace(
        mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD), crop_size=[224], resize_size=[232],
        interpolation=SimpleNamespace(value="bilinear"),
    )  # fmt: skip
    for given, share, filter_ in ((timm, 0.9, "bicubic"), (preset, 224 / 232, "bilinear")):
        got = as_preprocess(given)
        assert (got.height, got.mean, got.std, got.resample) == (224, IMAGENET_MEAN, IMAGENET_STD, filter_)
        assert got.crop_share == pytest.approx(share)


@pytest.mark.parametrize("given", [lambda image: image / 255, np.mean, 5, [1, 2]])
def test_what_cannot_be_data_is_said(given):
    with pytest.raises(OptionError, match="preprocess="):
        as_preprocess(given)


def test_fit_takes_them():
    known = toy.known(140, 3)
    options = {"detector": "msp", "guarantee": "marginal", "progress": False}
    one, two = (knownot.fit(toy.graph(), known, preprocess=way, alpha=a, **options)
                for way, a in (("[0, 1]", "10%"), ({"scale": 1 / 255}, 0.1)))  # fmt: skip
    assert one.alpha == two.alpha == 0.1
    assert (one.calibration.scores == two.calibration.scores).all()

"""Preprocessing carried out: a raw image becomes the classifier's input, exactly as `arrays.Preprocess` says."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from ..arrays import Preprocess
from ..errors import OptionError
from .decode import Unreadable

RESAMPLE = {"nearest": "NEAREST", "bilinear": "BILINEAR", "bicubic": "BICUBIC", "lanczos": "LANCZOS", "box": "BOX"}
MAX_RESIZED = 50_000_000  # pixels between resizing and cropping: a 1 x 100,000 strip would need gigabytes

SMALLEST, LARGEST = 1e-4, 1e6  # between black and white, as the classifier sees them

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

CANDIDATES: tuple[Preprocess, ...] = (
    Preprocess(name="[0, 255]"),
    Preprocess(scale=1 / 255, name="[0, 1]"),
    Preprocess(scale=1 / 127.5, mean=(1.0,), name="[-1, 1]"),
    Preprocess(scale=1 / 255, mean=IMAGENET_MEAN, std=IMAGENET_STD, name="ImageNet mean/std"),
    Preprocess(channels="bgr", mean=(103.939, 116.779, 123.68), name="BGR, ImageNet means (caffe)"),
)
GREY_CANDIDATES: tuple[Preprocess, ...] = (
    Preprocess(channels="grey", name="[0, 255]"),
    Preprocess(channels="grey", scale=1 / 255, name="[0, 1]"),
    Preprocess(channels="grey", scale=1 / 127.5, mean=(1.0,), name="[-1, 1]"),
    Preprocess(channels="grey", scale=1 / 255, mean=(0.1307,), std=(0.3081,), name="MNIST mean/std"),
)


def candidates(channels: int | None, height: int | None, width: int | None) -> tuple[Preprocess, ...]:
    """The usual conventions, for a classifier with this input. Raises OptionError for other than 1 or 3 channels."""
    if channels not in (None, 1, 3):
        raise OptionError(
            f"No usual preprocessing is known for {channels} channels. Give the classifier's own input as float arrays."
        )
    usual = GREY_CANDIDATES if channels == 1 else CANDIDATES
    return tuple(p.sized(height, width) for p in usual)


def apply(image: np.ndarray, p: Preprocess) -> np.ndarray:
    """uint8 RGB [h, w, 3] -> float32 [height, width, k], k = 1 for "grey", else 3.

    (pixel * scale - mean) / std is computed in float64 and rounded to float32 once. Grey is ITU-R 601 luma as
    Pillow rounds it. fit="crop" scales the image to cover [height, width] / crop_share (the long side rounded down, as
    torchvision does) and cuts the centre. An image that has the size already is not resampled.

    Raises OptionError for a Preprocess that makes no sense, Unreadable for an image too elongated to resize.
    """
    table = pixel_table(p)
    image = _channels(_resize(image, p), p)
    if table.shape[1] == 1:
        return table[:, 0][image]
    return np.stack([table[:, c][image[..., c]] for c in range(image.shape[-1])], axis=-1)


def only_resized(p: Preprocess) -> Preprocess:
    """The same size, cut and filter, pixels left as they are: for a network that does the rest itself."""
    return replace(p, channels="rgb", scale=1.0, mean=(0.0,), std=(1.0,), name="")


def check_preprocess(p: Preprocess) -> None:
    """Raises OptionError for one that makes no sense."""
    try:
        pixel_table(p)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{p!r} makes no sense: {error}.") from error


@lru_cache(maxsize=64)
def pixel_table(p: Preprocess) -> np.ndarray:
    """[256, 1 or k] float32: where each pixel value goes. Raises OptionError for a Preprocess that makes no sense."""
    k = 1 if p.channels == "grey" else 3
    for name, given, allowed in (
        ("channels", p.channels, ("rgb", "bgr", "grey")),
        ("fit", p.fit, ("crop", "stretch")),
        ("resample", p.resample, tuple(RESAMPLE)),
        ("orientation", p.orientation, ("turned", "stored")),
        ("background", p.background, ("white", "black", "ignored")),
    ):
        if given not in allowed:
            raise OptionError(f"Preprocess({name}={given!r}): expected one of {', '.join(map(repr, allowed))}.")
    for name, values in (("mean", p.mean), ("std", p.std)):
        if len(values) not in (1, k) or not np.isfinite(values).all():
            raise OptionError(f"Preprocess({name}={values!r}): expected one finite number, or {k}.")
    if not all(p.std) or not np.isfinite(p.scale):
        raise OptionError(f"Preprocess(scale={p.scale!r}, std={p.std!r}): expected a finite scale and no zero.")
    if not isinstance(p.depth, int) or not 8 <= p.depth <= 16:
        raise OptionError(f"Preprocess(depth={p.depth!r}): expected a whole number of bits from 8 to 16.")
    if not 0 < p.crop_share <= 1:
        raise OptionError(f"Preprocess(crop_share={p.crop_share!r}): expected a share above 0 and up to 1.")
    if (p.height is None) != (p.width is None) or any(s is not None and s < 1 for s in (p.height, p.width)):
        raise OptionError(f"Preprocess(height={p.height}, width={p.width}): give both, at least 1, or neither.")
    if p.height is not None and p.width is not None and p.height * p.width > MAX_RESIZED:
        raise OptionError(f"Preprocess(height={p.height}, width={p.width}): more than {MAX_RESIZED:,} pixels.")
    pixel = np.arange(256, dtype=np.float64)[:, None]
    with np.errstate(all="ignore"):
        table = ((pixel * p.scale - np.asarray(p.mean)) / np.asarray(p.std)).astype(np.float32)
    spread = np.ptp(table, axis=0)
    if not np.isfinite(table).all() or not ((spread > SMALLEST) & (spread < LARGEST)).all():
        raise OptionError(
            f"Preprocess(scale={p.scale!r}, mean={p.mean!r}, std={p.std!r}): black and white would be "
            f"{table[0].tolist()} and {table[-1].tolist()}, which no classifier was trained on."
        )
    return table


def _resize(image: np.ndarray, p: Preprocess) -> np.ndarray:
    if p.height is None or p.width is None:
        return image
    h, w = image.shape[:2]
    if p.fit == "stretch":
        return resample(image, p.height, p.width, p.resample)
    th, tw = round(p.height / p.crop_share), round(p.width / p.crop_share)
    if th * w >= tw * h:  # the height decides; integers, so that no rounding makes the image too small
        rh, rw = th, max(tw, th * w // h)
    else:
        rh, rw = max(th, tw * h // w), tw
    if rh * rw > MAX_RESIZED:
        raise Unreadable(f"too elongated: {w} x {h} pixels would become {rw} x {rh} before the centre is cut out")
    image = resample(image, rh, rw, p.resample)
    top, left = round((rh - p.height) / 2), round((rw - p.width) / 2)
    return image[top : top + p.height, left : left + p.width]


def resample(image: np.ndarray, height: int, width: int, filter: str) -> np.ndarray:
    """uint8 [h, w, 3] -> [height, width, 3] by Pillow; the image itself when it has that size."""
    if image.shape[:2] == (height, width):
        return image
    from PIL import Image

    method: Any = getattr(Image.Resampling, RESAMPLE[filter])
    return np.asarray(Image.fromarray(image).resize((width, height), method))


def _channels(image: np.ndarray, p: Preprocess) -> np.ndarray:
    if p.channels == "bgr":
        return image[..., ::-1]
    if p.channels == "grey":
        weights = np.array([19595, 38470, 7471], dtype=np.uint32)  # .299 .587 .114 of 2**16
        return ((image @ weights + 0x8000) >> 16).astype(np.uint8)[..., None]
    return image


def thumbnail(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 [h, w, 3] of which the longer side is at most `side`, from uint8 RGB or a float input [h, w, k].

    Floats are stretched from their least to their largest value; one channel is repeated.
    """
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = ((image - low) * (255 / (high - low) if high > low else 0.0)).round().astype(np.uint8)
        image = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    h, w = image.shape[:2]
    share = min(1.0, side / max(h, w))
    return np.array(resample(np.ascontiguousarray(image), max(1, round(h * share)), max(1, round(w * share)), "box"))

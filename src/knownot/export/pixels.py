"""From pixels to the classifier's own input inside the graph, bit for bit as `images.preprocess` does it."""

from __future__ import annotations

import numpy as np

from ..arrays import Preprocess
from ..images.preprocess import pixel_table
from . import namespace as xp
from .recorded import Recorded

GREY = (19595, 38470, 7471)  # .299 .587 .114 of 2**16, as in `images.preprocess`


def own_input(images: Recorded, way: Preprocess, layout: str) -> Recorded:
    """uint8 [n, h, w, 3] of the classifier's size -> its own input, float32 in its layout."""
    table = pixel_table(way)
    if way.channels == "grey":
        images = _grey(images)
    elif way.channels == "bgr":
        images = images[..., ::-1]
    channel = 3
    if layout == "NCHW":  # while a pixel is one byte
        images, channel = xp.permute_dims(images, (0, 3, 1, 2)), 1
    shape = [1, 1, 1, 1]
    shape[channel] = table.shape[1]
    exact = _affine(images, table, way, shape)
    return _looked_up(images, table, shape) if exact is None else exact


def _grey(images: Recorded) -> Recorded:
    weighted = xp.astype(images, np.int32) * xp.asarray(np.array(GREY, np.int32))
    return (xp.sum(weighted, axis=-1, keepdims=True) + xp.asarray(np.int32(0x8000))) / xp.asarray(np.int32(1 << 16))


def _affine(images: Recorded, table: np.ndarray, way: Preprocess, shape: list[int]) -> Recorded | None:
    """By one product and one sum in float32, where that gives the bits of the table for each of the 256 values."""
    pixel = np.arange(256, dtype=np.float32)[:, None]
    mean, std = (np.broadcast_to(np.asarray(x, np.float64), (table.shape[1],)) for x in (way.mean, way.std))
    factor = (way.scale / std).astype(np.float32)
    floats = xp.astype(images, np.float32)
    if not mean.any():
        if not np.array_equal(pixel * factor, table):
            return None
        return floats if (factor == 1).all() else floats * _beside(factor, shape)
    before, after = (mean / way.scale).astype(np.float32), (mean / std).astype(np.float32)
    if np.array_equal(pixel * factor - after, table):
        return floats * _beside(factor, shape) - _beside(after, shape)
    if np.array_equal((pixel - before) * factor, table):
        return (floats - _beside(before, shape)) * _beside(factor, shape)
    return None


def _beside(values: np.ndarray, shape: list[int]) -> Recorded:
    return xp.asarray(values[0] if (values == values[0]).all() else values.reshape(shape))


def _looked_up(images: Recorded, table: np.ndarray, shape: list[int]) -> Recorded:
    place = xp.astype(images, np.int32)
    if (table == table[:, :1]).all():
        return xp.take(xp.asarray(table[:, 0]), place, axis=0)
    offset = (256 * np.arange(table.shape[1], dtype=np.int32)).reshape(shape)
    return xp.take(xp.asarray(table.T.reshape(-1)), place + xp.asarray(offset), axis=0)

"""Images of any size, resized inside the graph in Pillow's arithmetic.

ONNX's own Resize differs from Pillow by up to 13 of 255 levels for a bilinear filter with antialiasing, at the borders
most, and some runtimes do without antialiasing. Pillow's resampling is two matrix products whose weights are whole
numbers of 22 bits (`Resample.c`), rounded to pixels in between: both are written here as such, in float64, which is
exact for them. Columns are scaled first, as Pillow did up to version 12; version 13 scales rows first for some shapes
(tall images), which differs by the rounding in between.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import spox.opset.ai.onnx.v18 as op

from ..arrays import Preprocess
from . import namespace as xp
from .recorded import Recorded, constant, node

BITS = 22  # PRECISION_BITS of Pillow's Resample.c


def resized(images: Recorded, way: Preprocess) -> Recorded:
    """uint8 [n, h, w, 3] -> [n, height, width, 3], as `images.preprocess` resizes and cuts."""
    if way.height is None or way.width is None:
        return images
    h, w = (_size(images, axis) for axis in (1, 2))
    x = xp.astype(xp.permute_dims(images, (0, 3, 1, 2)), np.float64)
    if way.fit == "stretch":
        rows, columns = (xp.asarray(np.int64(size)) for size in (way.height, way.width))
        return _as_pixels(_scaled(x, (h, w), (rows, columns), way.resample))
    th, tw = round(way.height / way.crop_share), round(way.width / way.crop_share)
    tall = h * tw <= w * th  # the height decides
    rows = xp.where(tall, xp.asarray(np.int64(th)), xp.maximum(h * tw / w, xp.asarray(np.int64(th))))
    columns = xp.where(tall, xp.maximum(w * th / h, xp.asarray(np.int64(tw))), xp.asarray(np.int64(tw)))
    x = _scaled(x, (h, w), (rows, columns), way.resample)
    for axis, size, wanted in ((2, rows, way.height), (3, columns, way.width)):
        first = xp.astype(xp.round(xp.astype(size - wanted, np.float64) / 2), np.int64)  # half to even, as Python does
        ends = (node(op.reshape, x.var, constant([1], np.int64)) for x in (first, first + wanted))
        x = Recorded(node(op.slice, x.var, *ends, constant([axis], np.int64)))
    return _as_pixels(x, (way.height, way.width))


def _as_pixels(x: Recorded, size: tuple[int, int] | None = None) -> Recorded:
    whole = xp.permute_dims(xp.astype(x, np.uint8), (0, 2, 3, 1))
    if size is None:
        return whole
    return Recorded(node(op.reshape, whole.var, constant([-1, *size, 3], np.int64)))  # so that its size is known


def _size(x: Recorded, axis: int) -> Recorded:
    return Recorded(node(op.squeeze, node(op.shape, x.var, start=axis, end=axis + 1)))


def _scaled(x: Recorded, sizes: tuple[Recorded, Recorded], wanted: tuple[Recorded, Recorded], filter: str) -> Recorded:
    """[n, 3, h, w] -> [n, 3, rows, columns], whole numbers from 0 to 255."""
    (h, w), (rows, columns) = sizes, wanted
    if filter == "nearest":
        x = Recorded(node(op.gather, x.var, _nearest(w, columns).var, axis=3))
        return Recorded(node(op.gather, x.var, _nearest(h, rows).var, axis=2))
    x = _round_cubic(x @ xp.matrix_transpose(_weights(w, columns, filter)))
    return _round_cubic(_weights(h, rows, filter) @ x)


def _round_cubic(sums: Recorded) -> Recorded:
    return xp.clip(xp.floor(sums * 2.0**-BITS + 0.5), min=0.0, max=255.0)


def _range(size: Recorded) -> Recorded:
    ends = (xp.asarray(np.int64(0)), size, xp.asarray(np.int64(1)))
    return xp.astype(Recorded(node(op.range, *(end.var for end in ends))), np.float64)


def _nearest(size: Recorded, wanted: Recorded) -> Recorded:
    """Which pixel stands for each of the wanted ones: by running sums, whose rounding Pillow's are too."""
    step = xp.astype(size, np.float64) / xp.astype(wanted, np.float64)
    steps = xp.where(_range(wanted) == 0, step * 0.5, step)
    place = xp.astype(Recorded(node(op.cumsum, steps.var, constant(0, np.int64))), np.int64)
    return xp.minimum(place, size - 1)


def _weights(size: Recorded, wanted: Recorded, filter: str) -> Recorded:
    """[wanted, size] float64, whole numbers: the share of each pixel in each of the wanted ones, times 2**BITS."""
    formula, reach = FILTERS[filter]
    scale = xp.astype(size, np.float64) / xp.astype(wanted, np.float64)
    wide = xp.maximum(scale, 1.0)
    centre = (_range(wanted) + 0.5) * scale
    support = wide * reach
    first, last = (xp.floor(end)[:, None] for end in (centre - support + 0.5, centre + support + 0.5))
    pixel = _range(size)[None, :]
    weight = formula((pixel - centre[:, None] + 0.5) * (1.0 / wide))
    weight = xp.where((pixel >= first) & (pixel < last), weight, xp.asarray(np.float64(0)))
    weight = weight / xp.sum(weight, axis=1, keepdims=True) * 2.0**BITS
    return xp.sign(weight) * xp.floor(xp.abs(weight) + 0.5)


def _box(x: Recorded) -> Recorded:
    return xp.astype((x > -0.5) & (x <= 0.5), np.float64)


def _bilinear(x: Recorded) -> Recorded:
    return xp.clip(1.0 - xp.abs(x), min=0.0)


def _bicubic(x: Recorded) -> Recorded:
    a, x = -0.5, xp.abs(x)
    near, far = (x * (a + 2.0) - (a + 3.0)) * x * x + 1.0, (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return xp.where(x < 1.0, near, xp.where(x < 2.0, far, xp.asarray(np.float64(0))))


def _lanczos(x: Recorded) -> Recorded:
    inside = (x >= -3.0) & (x < 3.0)
    return xp.where(inside, _sinc(x) * _sinc(x / 3.0), xp.asarray(np.float64(0)))


def _sinc(x: Recorded) -> Recorded:
    y = x * float(np.pi)
    none = x == 0.0
    one = xp.asarray(np.float64(1))
    return xp.where(none, one, xp.sin(y) / xp.where(none, one, y))


FILTERS: dict[str, tuple[Callable[[Recorded], Recorded], float]] = {
    "box": (_box, 0.5),
    "bilinear": (_bilinear, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}

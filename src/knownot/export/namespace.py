"""The part of the Python array API standard that detectors use, on arrays that record an ONNX graph.

`moved(detector, namespace, float32).score(activations)` then is the detector's graph: there is no second
implementation of a score. Names are those of the standard; what no detector uses is not here, and the contract
test finds it when one does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v18 as op

from .recorded import Recorded, binary, constant, node, pair, plain, recorded

float16, float32, float64 = np.float16, np.float32, np.float64
int32, int64, uint8 = np.int32, np.int64, np.uint8
inf, nan, pi = float("inf"), float("nan"), float(np.pi)
BISECTED = 50_000  # references from which on bisection, of some 150 nodes, costs less than comparing with all

Axis = int | Sequence[int] | None


def asarray(x: Any, *, dtype: Any = None, copy: bool | None = None, device: Any = None) -> Recorded:
    if isinstance(x, Recorded):
        return x if dtype is None else astype(x, dtype)
    return recorded(np.asarray(x, dtype=dtype))


def astype(x: Recorded, dtype: Any, /, *, copy: bool = True) -> Recorded:
    dtype = np.dtype(dtype)
    if x.dtype == dtype:
        return x
    if x.counts is not None and x.counts.dtype == dtype:
        return x.counts
    return Recorded(node(op.cast, x.var, to=dtype))


def arange(start: float, stop: float | None = None, step: float = 1, *, dtype: Any = None) -> Recorded:
    return recorded(np.arange(start, stop, step, dtype=dtype) if stop is not None else np.arange(start, dtype=dtype))


def ones(shape: Any, *, dtype: Any = float32) -> Recorded:
    return recorded(np.ones(shape, dtype))


def zeros_like(x: Recorded) -> Recorded:
    return Recorded(None, filled=0, like=x)


def ones_like(x: Recorded) -> Recorded:
    return Recorded(None, filled=1, like=x)


# -- element by element ------------------------------------------------------------------------------------------------


def exp(x: Recorded) -> Recorded:
    return Recorded(node(op.exp, x.var))


def log(x: Recorded) -> Recorded:
    return Recorded(node(op.log, x.var))


def sqrt(x: Recorded) -> Recorded:
    if x.summed is not None:  # of squares over the last axis
        return Recorded(node(op.reduce_l2, x.summed.var, constant([-1], np.int64), keepdims=_kept(x)))
    return Recorded(node(op.sqrt, x.var))


def sign(x: Recorded) -> Recorded:
    return Recorded(node(op.sign, x.var))


def floor(x: Recorded) -> Recorded:
    return Recorded(node(op.floor, x.var))


def round(x: Recorded) -> Recorded:  # half to even, as in the standard
    return Recorded(node(op.round, x.var))


def tanh(x: Recorded) -> Recorded:
    return Recorded(node(op.tanh, x.var))


def sin(x: Recorded) -> Recorded:
    return Recorded(node(op.sin, x.var))


def cos(x: Recorded) -> Recorded:
    return Recorded(node(op.cos, x.var))


def abs(x: Recorded) -> Recorded:
    return Recorded(node(op.abs, x.var))


def log1p(x: Recorded) -> Recorded:
    """By Goldberg (ACM Computing Surveys 1991, theorem 4): exact for small x, which log(1 + x) is not."""
    u = 1.0 + x
    d = u - 1.0
    return where(d == 0, x, log(u) * x / where(d == 0, ones_like(d), d))


def expm1(x: Recorded) -> Recorded:
    """By Kahan (in Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 1.14.1)."""
    u = exp(x)
    d, ln = u - 1.0, log(u)
    return where(u == 1, x, where(d == -1.0, d, d * x / where(ln == 0, ones_like(ln), ln)))


def where(mask: Recorded, one: Any, other: Any) -> Recorded:
    a, b = pair(one, other)
    of_mask = Recorded(mask.var)
    return Recorded(node(op.where, mask.var, _broadcast(a, b, of_mask), _broadcast(b, a, of_mask)))


def _broadcast(x: Recorded, beside: Recorded, mask: Recorded) -> Any:
    if x.filled is not None and (mask.shape == x.shape or (beside.filled is None and beside.shape == x.shape)):
        return constant(x.filled, x.dtype)
    return x.var


def clip(x: Recorded, /, min: Any = None, max: Any = None) -> Recorded:
    if isinstance(min, Recorded) or isinstance(max, Recorded):
        x = x if min is None else maximum(x, min)
        return x if max is None else minimum(x, max)
    low, high = (None if end is None else constant(end, x.dtype) for end in (min, max))
    return Recorded(node(op.clip, x.var, low, high))


def maximum(one: Any, other: Any) -> Recorded:
    a, b = pair(one, other)
    return Recorded(node(op.max, [plain(a, b), plain(b, a)]))


def minimum(one: Any, other: Any) -> Recorded:
    a, b = pair(one, other)
    return Recorded(node(op.min, [plain(a, b), plain(b, a)]))


def pow(one: Any, other: Any) -> Recorded:
    return binary(op.pow, one, other)


# -- over axes ---------------------------------------------------------------------------------------------------------


def _axes(x: Recorded, axis: Axis) -> Any:
    if axis is None:
        return constant(list(range(x.ndim)), np.int64)
    return constant([axis] if isinstance(axis, int) else list(axis), np.int64)


def _kept(x: Recorded) -> int:
    return int(x.summed is not None and x.ndim == x.summed.ndim)


def sum(x: Recorded, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Recorded:
    if x.squared is not None and axis == -1:
        var = node(op.reduce_sum_square, x.squared.var, _axes(x, axis), keepdims=int(keepdims))
        return Recorded(var, summed=x.squared)
    x = astype(x, int64) if x.dtype == np.bool_ else x if dtype is None else astype(x, dtype)
    return Recorded(node(op.reduce_sum, x.var, _axes(x, axis), keepdims=int(keepdims)))


def mean(x: Recorded, /, *, axis: Axis = None, keepdims: bool = False) -> Recorded:
    return Recorded(node(op.reduce_mean, x.var, _axes(x, axis), keepdims=int(keepdims)))


def max(x: Recorded, /, *, axis: Axis = None, keepdims: bool = False) -> Recorded:
    return Recorded(node(op.reduce_max, x.var, _axes(x, axis), keepdims=int(keepdims)))


def min(x: Recorded, /, *, axis: Axis = None, keepdims: bool = False) -> Recorded:
    return Recorded(node(op.reduce_min, x.var, _axes(x, axis), keepdims=int(keepdims)))


def argmax(x: Recorded, /, *, axis: int = -1, keepdims: bool = False) -> Recorded:
    return Recorded(node(op.arg_max, x.var, axis=axis, keepdims=int(keepdims)))


def topk(x: Recorded, k: int) -> tuple[Recorded, Recorded]:
    """The k largest values of each row and where they stand; not in the standard, see `detectors.formulas`."""
    values, index = node(op.top_k, x.var, constant([k], np.int64), axis=-1)
    return Recorded(values), Recorded(index)


def sort(x: Recorded, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Recorded:
    return Recorded(_sort_values(x, axis, descending)[0])


def argsort(x: Recorded, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Recorded:
    return Recorded(_sort_values(x, axis, descending)[1])


def _sort_values(x: Recorded, axis: int, descending: bool) -> Any:
    return node(op.top_k, x.var, constant([x.shape[axis]], np.int64), axis=axis, largest=int(descending))


def searchsorted(reference: Recorded, x: Recorded, /, *, side: str = "left", sorter: Any = None) -> Recorded:
    """#{r in reference: r < x} (side "right": r <= x), [n]: counted, or by bisection where there are many."""
    (r,) = reference.shape
    if r is not None and r > BISECTED:
        return _bisect(reference, x, side)
    column, row = x[:, None], reference
    below = row < column if side == "left" else row <= column
    counts = sum(astype(below, float32), axis=1)  # exact: there are at most BISECTED
    return Recorded(astype(counts, int64).var, counts=counts)


def counted_below(references: Sequence[Recorded], x: Recorded) -> Recorded:
    """#{r in references[i]: r < x[:, i]}, as floats of the type of x, [n, m]; see `detectors.combined`.

    Column by column: one comparison of all at once, [n, m, r] or side by side [n, m r], is what OpenVINO 2026.4
    computes wrongly (NaN scores).
    """
    columns = [searchsorted(r, x[:, i]) for i, r in enumerate(references)]
    return stack([astype(column, x.dtype) for column in columns], axis=1)


def _bisect(reference: Recorded, x: Recorded, side: str) -> Recorded:
    r = int(reference.shape[0] or 0)
    size = 1 << int(np.ceil(np.log2(r + 1)))
    padded = concat([reference, recorded(np.full(size - r, np.inf, reference.dtype))], axis=0)
    place, half = astype(zeros_like(x), int64), size >> 1
    while half:
        there = take(padded, place + (half - 1), axis=0)
        further = there < x if side == "left" else there <= x
        place, half = place + astype(further, int64) * half, half >> 1
    return place


# -- shapes ------------------------------------------------------------------------------------------------------------


def reshape(x: Recorded, /, shape: Sequence[int], *, copy: bool | None = None) -> Recorded:
    if len(shape) == x.ndim and None not in x.shape[1:] and tuple(shape[1:]) == x.shape[1:] and shape[0] == -1:
        return x  # it has that shape
    return Recorded(node(op.reshape, x.var, constant(list(shape), np.int64)))


def squeeze(x: Recorded, /, axis: Axis) -> Recorded:
    return Recorded(node(op.squeeze, x.var, _axes(x, axis)))


def expand_dims(x: Recorded, /, *, axis: int = 0) -> Recorded:
    return Recorded(node(op.unsqueeze, x.var, constant([axis], np.int64)))


def permute_dims(x: Recorded, /, axes: Sequence[int]) -> Recorded:
    return Recorded(node(op.transpose, x.var, perm=tuple(axes)))


def matrix_transpose(x: Recorded, /) -> Recorded:
    n = x.ndim
    return Recorded(node(op.transpose, x.var, perm=(*range(n - 2), n - 1, n - 2)))


def take(x: Recorded, indices: Recorded, /, *, axis: int = 0) -> Recorded:
    return Recorded(node(op.gather, x.var, indices.var, axis=axis))


def concat(arrays: Sequence[Recorded], /, *, axis: int = 0) -> Recorded:
    return Recorded(node(op.concat, [x.var for x in arrays], axis=axis))


def stack(arrays: Sequence[Recorded], /, *, axis: int = 0) -> Recorded:
    values = [x.value for x in arrays if x.value is not None]
    if len(values) == len(arrays):
        return recorded(np.stack(values, axis=axis))
    return Stacked(tuple(arrays), axis)


class Stacked(Recorded):
    """Of arrays [n] as columns: nothing is recorded before more than single columns are asked for."""

    def __init__(self, arrays: tuple[Recorded, ...], axis: int) -> None:
        super().__init__(None, columns=arrays if axis in (1, -1) and arrays[0].ndim == 1 else ())
        self._arrays, self._axis = arrays, axis

    @property
    def var(self) -> Any:
        if self._var is None:
            self._var = concat([expand_dims(x, axis=self._axis) for x in self._arrays], axis=self._axis).var
        return self._var


Recorded.namespace = sys.modules[__name__]

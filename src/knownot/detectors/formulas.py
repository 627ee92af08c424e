"""The few formulas that detectors share, in the array API standard and nothing else.

What the standard lacks (top-k) or what another library does faster (nearest rows) has its branch here, once.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array

from ..arrays import Array, softmax

__all__ = [
    "in_chunks",
    "kth_nearest",
    "largest",
    "log_probabilities",
    "logsumexp",
    "mean_of_largest",
    "nearest_squared",
    "norm",
    "predicted",
    "softmax",
    "unit",
]

CHUNK = 1 << 24  # most numbers that one table of queries against a bank may hold


def in_chunks(score: Callable[..., Array], width: int, *rows: Array) -> Array:  # [n, ...], ... -> [n]
    """score(*rows), in chunks of rows so that a table of n x width numbers never holds more than CHUNK of them."""
    n = rows[0].shape[0]
    if n is None or n <= 1 or n * width <= CHUNK:  # None: a graph being recorded
        return score(*rows)
    step = max(1, CHUNK // width)
    return array_namespace(rows[0]).concat([score(*(x[i : i + step, ...] for x in rows)) for i in range(0, n, step)])


def logsumexp(x: Array) -> Array:  # [n, c] -> [n]
    xp = array_namespace(x)
    top = xp.max(x, axis=-1, keepdims=True)
    return xp.squeeze(top, axis=-1) + xp.log(xp.sum(xp.exp(x - top), axis=-1))


def log_probabilities(logits: Array) -> tuple[Array, Array]:  # [n, c] -> [n, c], [n, c]
    """log p and log(1 - p) of the softmax, both exact where p is near 0 or 1, and always finite.

    1 - p of the winning class is the sum over the others, so nothing cancels when p rounds to 1.
    """
    xp = array_namespace(logits)
    shift = logits - xp.max(logits, axis=-1, keepdims=True)
    classes = xp.arange(logits.shape[-1])
    top = classes[None, :] == xp.argmax(logits, axis=-1, keepdims=True)  # one per row, also among equals
    nothing = xp.asarray(-1e30, dtype=logits.dtype)  # the log of nothing; with one class, all there is beside the top
    others = logsumexp(xp.where(top, nothing, shift))[:, None]
    total = xp.log1p(xp.exp(others))
    log_p = shift - total
    below = xp.where(top, xp.zeros_like(shift), xp.exp(log_p))  # at most 1/2
    return log_p, xp.where(top, others - total, xp.log1p(-below))


def predicted(logits: Array, rows: Array) -> Array:  # [n, c], [c, ...] -> [n, ...]
    """The row of the class that wins, for each image."""
    xp = array_namespace(logits)
    return xp.take(rows, xp.argmax(logits, axis=-1), axis=0)


def norm(x: Array) -> Array:  # [n, d] -> [n]
    xp = array_namespace(x)
    return xp.sqrt(xp.sum(x * x, axis=-1))


def unit(x: Array) -> Array:  # [n, d] -> [n, d]
    """Rows divided by their L2 norm; a row of zeros stays one."""
    xp = array_namespace(x)
    length = norm(x)[:, None]
    return x / xp.where(length > 0, length, xp.ones_like(length))


def largest(x: Array, k: int) -> Array:  # [n, m] -> [n, k]
    """The k largest values of each row, in no particular order."""
    xp = array_namespace(x)
    if k >= x.shape[-1]:
        return x
    if is_numpy_array(x):
        return np.partition(x, x.shape[-1] - k, axis=-1)[:, x.shape[-1] - k :]
    if hasattr(xp, "topk"):  # torch, and a namespace that records graphs: (values, indices), largest first
        return xp.topk(x, k)[0]
    return xp.sort(x, axis=-1)[:, x.shape[-1] - k :]


def mean_of_largest(queries: Array, bank: Array, k: int) -> Array:  # [n, d], [r, d] -> [n]
    """Mean of the k largest inner products of each query with the rows of the bank."""
    xp, r = array_namespace(queries), bank.shape[0]

    def score(q: Array) -> Array:
        products = xp.reshape(q @ bank.T, (-1, r))  # a graph being recorded forgets how wide a product is
        return xp.mean(largest(products, k), axis=-1)

    return in_chunks(score, r, queries)


def _kth_largest_index(x: Array, k: int) -> Array:  # [n, m] -> [n]
    """Where the k-th largest value of each row stands."""
    xp = array_namespace(x)
    if k == 1:
        return xp.argmax(x, axis=-1)
    if is_numpy_array(x):
        return np.argpartition(x, x.shape[-1] - k, axis=-1)[:, x.shape[-1] - k]
    if hasattr(xp, "topk"):
        return xp.topk(x, k)[1][:, k - 1]
    return xp.argsort(x, axis=-1)[:, x.shape[-1] - k]


def kth_nearest(queries: Array, bank: Array, k: int) -> Array:  # [n, d], [r, d] -> [n]
    """Euclidean distance to the k-th nearest row of the bank, 1 <= k <= r.

    The row is found through inner products (by faiss where it is installed: NumPy arrays in float32, its own
    precision); the distance to it is then taken by differences, which keeps small distances exact.
    """
    xp = array_namespace(queries)
    n, r = queries.shape[0], bank.shape[0]
    if n is not None and n * max(r, bank.shape[1]) > CHUNK and n > 1:  # None: a graph being recorded
        step = max(1, CHUNK // max(r, bank.shape[1]))
        return xp.concat([kth_nearest(queries[i : i + step, :], bank, k) for i in range(0, n, step)])
    if is_numpy_array(queries) and queries.dtype == bank.dtype == np.float32 and r >= 1000 and _faiss() is not None:
        index = _faiss().knn(np.ascontiguousarray(queries), np.ascontiguousarray(bank), k)[1][:, k - 1]
    else:
        half = xp.sum(bank * bank, axis=-1) / 2
        index = _kth_largest_index(queries @ bank.T - half[None, :], k)
    return norm(queries - xp.take(bank, index, axis=0))


def nearest_squared(queries: Array, bank: Array) -> Array:  # [n, d], [r, d] -> [n]
    """Squared Euclidean distance to the nearest row of the bank."""
    distance = kth_nearest(queries, bank, 1)
    return distance * distance


@functools.cache
def _faiss() -> Any:
    if importlib.util.find_spec("faiss") is None:
        return None
    with warnings.catch_warnings():  # its SWIG types warn about themselves on import
        warnings.simplefilter("ignore", DeprecationWarning)
        import faiss
    return faiss

"""The few formulas that detectors share, in the array API standard and nothing else.

What the standard lacks (top-k) or what NumPy does faster in another way (counting) has its branch here, once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from array_api_compat import array_namespace, is_numpy_array

from ..arrays import Activations, Array, softmax

__all__ = [
    "against",
    "divided",
    "histogram",
    "in_chunks",
    "kth_nearest",
    "kth_nearest_by_products",
    "largest",
    "log_probabilities",
    "logsumexp",
    "mean_of_largest",
    "nearest_squared",
    "norm",
    "over_products",
    "predicted",
    "products",
    "root",
    "softmax",
    "squares",
    "unit",
]

CHUNK = 1 << 24  # most numbers that one table of queries against a bank may hold
RAMPS = 8  # bins of a histogram that are counted at once, where they are not counted one by one
# Numbers that stay in a core's own cache while several formulas go over them. Larger arrays are also taken from the
# system and given back each time, page by page, which can cost more than what is computed (benchmarks/speed.py).
NEAR = 1 << 18


def in_chunks(score: Callable[..., Array], width: int, *rows: Array, most: int | None = None) -> Array:
    """score(*rows) [n, ...], in chunks of rows so that a table of n x width numbers never holds more than `most`, or
    CHUNK, of them."""
    n, most = rows[0].shape[0], most or CHUNK
    if n is None or n <= 1 or n * width <= most:  # None: a graph being recorded
        return score(*rows)
    step = max(1, most // width)
    cuts = [slice(i, min(i + step, n)) for i in range(0, n, step)]
    return array_namespace(rows[0]).concat([score(*(x[cut, ...] for x in rows)) for cut in cuts])


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


def log_probabilities_of(batch: Activations) -> tuple[Array, Array]:  # [n, c], [n, c]
    """The same of a batch, computed once for all detectors that score it."""
    return batch.cached("log probabilities", lambda: log_probabilities(batch.logits))


def predicted(logits: Array, rows: Array) -> Array:  # [n, c], [c, ...] -> [n, ...]
    """The row of the class that wins, for each image."""
    xp = array_namespace(logits)
    return xp.take(rows, xp.argmax(logits, axis=-1), axis=0)


def norm(x: Array) -> Array:  # [n, d] -> [n]
    xp = array_namespace(x)
    return xp.sqrt(_squares(x))


def divided(x: Array, by: Array) -> Array:
    """x / by, and x as it is where `by` is not above 0."""
    xp = array_namespace(by)
    return x / xp.where(by > 0, by, xp.ones_like(by))


def root(x: Array, p: int) -> Array:
    """The p-th root, element by element, of the sign of x; for even p, x has no negatives."""
    xp = array_namespace(x)
    if p % 2 == 0:
        return xp.sqrt(x) if p == 2 else root(xp.sqrt(x), p // 2)
    if is_numpy_array(x):
        return np.cbrt(x) if p == 3 else _odd_root(x, p)
    return xp.sign(x) * xp.abs(x) ** (1 / p)


def _odd_root(x: np.ndarray, p: int) -> np.ndarray:
    """By logarithms: less than half the time of a power."""
    y = np.abs(x)
    with np.errstate(divide="ignore"):  # the logarithm of 0
        np.log(y, out=y)
    y /= p
    np.exp(y, out=y)
    return np.copysign(y, x, out=y)


def unit(x: Array) -> Array:  # [n, d] -> [n, d]
    """Rows divided by their L2 norm; a row of zeros stays one."""
    return divided(x, norm(x)[:, None])


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


def mean_of_largest(products: Array, k: int) -> Array:  # [n, r] -> [n]
    """Mean of the k largest of each row."""
    return array_namespace(products).mean(largest(products, k), axis=-1)


def products(queries: Array, bank: Array) -> Array:  # [n, d], [r, d] -> [n, r]
    return array_namespace(queries).reshape(queries @ bank.T, (-1, bank.shape[0]))  # a recorded graph forgets its width


def squares(batch: Activations, bank: Array) -> Array:  # [r]
    """Squared lengths of the rows of a bank."""
    found: tuple[Array, Array] = batch.cached(("squares", id(bank)), lambda: (bank, _squares(bank)))
    return found[1]  # the bank is kept with it, so that its id stays its own


def _squares(x: Array) -> Array:  # [n, d] -> [n]
    return array_namespace(x).sum(x * x, axis=-1)


def against(
    score: Callable[..., Array], batch: Activations, bank: Array, *rows: Array, of: str = "features"
) -> Array:  # [n]
    """score(z @ bank.T [n, r], z, *rows) of the unit features z [n, d], in chunks of rows.

    z and the products are computed once for all detectors that share a batch and have equal banks, unless the table
    would be too large.
    """
    z = batch.cached(("unit", of), lambda: unit(batch.named()[of]))
    n, r = z.shape[0], bank.shape[0]
    if n is not None and n * r > CHUNK:
        return over_products(score, z, bank, *rows)
    _, table = batch.cached(("products", of, id(bank)), lambda: (bank, products(z, bank)))
    return in_chunks(score, r, table, z, *rows, most=NEAR)


def over_products(score: Callable[..., Array], z: Array, bank: Array, *rows: Array) -> Array:  # [n]
    """score(z @ bank.T [n, r], z, *rows), in chunks of rows: large ones for the products, small ones for the rest."""
    r = bank.shape[0]

    def chunk(z: Array, *rows: Array) -> Array:
        return in_chunks(score, r, products(z, bank), z, *rows, most=NEAR)

    return in_chunks(chunk, r, z, *rows)


def _kth_largest_index(x: Array, k: int) -> Array:  # [n, m] -> [n]
    """Where the k-th largest value of each row stands."""
    xp = array_namespace(x)
    if k == 1:
        return xp.argmax(x, axis=-1)
    if is_numpy_array(x):  # half the time of argpartition
        kth = np.partition(x, x.shape[-1] - k, axis=-1)[:, x.shape[-1] - k]
        return np.argmax(x == kth[:, None], axis=-1)
    if hasattr(xp, "topk"):
        return xp.topk(x, k)[1][:, k - 1]
    return xp.argsort(x, axis=-1)[:, x.shape[-1] - k]


def kth_nearest(queries: Array, bank: Array, k: int) -> Array:  # [n, d], [r, d] -> [n]
    """Euclidean distance to the k-th nearest row of the bank, 1 <= k <= r.

    The row is found through inner products; the distance to it is then taken by differences, which keeps small
    distances exact.
    """
    half = _squares(bank) / 2
    return in_chunks(lambda q: kth_nearest_by_products(q @ bank.T, q, bank, half, k), max(bank.shape), queries)


def kth_nearest_by_products(products: Array, queries: Array, bank: Array, half: Array, k: int) -> Array:
    """The same, of [n, r], [n, d], [r, d]; half [r]: half the squared lengths of the bank's rows."""
    index = _kth_largest_index(products - half[None, :], k)
    return norm(queries - array_namespace(queries).take(bank, index, axis=0))


def nearest_squared(queries: Array, bank: Array) -> Array:  # [n, d], [r, d] -> [n]
    """Squared Euclidean distance to the nearest row of the bank."""
    distance = kth_nearest(queries, bank, 1)
    return distance * distance


def histogram(place: Array, bins: int) -> Array:  # [n, m] -> [n, bins]
    """Share of each row's values that stand at 0 .. bins - 1; one between two places counts for both, in part.

    That is the mean of a hat function, a difference of ramps; these are taken a few at a time, so that no table of
    n x m x bins is needed. NumPy counts instead.
    """
    xp = array_namespace(place)
    if is_numpy_array(place):
        return _counted(place, bins)
    ramps = []
    for first in range(-1, bins, RAMPS):
        starts = xp.arange(first, min(first + RAMPS, bins), dtype=place.dtype)[None, :, None]
        ramps.append(xp.mean(xp.clip(place[:, None, :] - starts, min=0.0, max=1.0), axis=-1))
    below = xp.concat(ramps, axis=1)
    return below[:, :-1] - below[:, 1:]


def _counted(place: np.ndarray, bins: int) -> np.ndarray:
    n, m = place.shape
    cells = bins + 2  # of one before the first, and one beyond the last
    place = np.clip(place + 1, 0, cells - 1)
    lost = np.isnan(place).any(axis=1)
    place[lost] = 0
    cell = place.astype(np.int64)
    part = place - cell  # that counts for the next cell
    cell += np.arange(n)[:, None] * cells
    share = np.bincount(cell.ravel(), minlength=n * cells).astype(np.float64)
    upper = np.bincount(cell.ravel(), part.ravel(), minlength=n * cells)
    share -= upper
    share[1:] += upper[:-1]
    share = share.reshape(n, cells)[:, 1:-1] / m
    share[lost] = np.nan
    return share.astype(place.dtype)

"""Nearest rows of large banks: exact, or by an index of faiss that is built from the bank when it is first asked.

An index is never saved: the bank is, and the same bank gives the same index. It lives as long as its bank.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
import warnings
import weakref
from typing import Any

import numpy as np
from array_api_compat import is_numpy_array

from ..arrays import Array
from .formulas import kth_nearest, norm

__all__ = ["EXACT_MOST", "INDEXES", "chosen", "kth_nearest_by"]

INDEXES = ("auto", "exact", "ivf", "hnsw")
EXACT_MOST = 50_000  # rows up to which exact search is as fast or about so (benchmarks/neighbours.py)
RECALL = 0.99  # of the nearest rows that an index of cells has to find

_built: dict[int, tuple[weakref.ref[np.ndarray], dict[str, Any]]] = {}
_lock = threading.RLock()  # a bank may be collected, and its entry dropped, while another index is built


def chosen(index: str, rows: int) -> str:
    """What "auto" stands for with a bank of so many rows: exact search when it is small, or without faiss."""
    if index != "auto":
        return index
    return "ivf" if rows > EXACT_MOST and _faiss() is not None else "exact"


def kth_nearest_by(index: str, queries: Array, bank: Array, k: int) -> Array:  # [n, d], [r, d] -> [n]
    """`kth_nearest`, the row found by an approximate index where there is one: NumPy arrays in float32, and faiss.

    Anywhere else the search is exact. The distance to the row found is taken by differences in any case; a row that
    is not the k-th nearest but a farther one makes it larger.
    """
    single = is_numpy_array(queries) and queries.dtype == bank.dtype == np.float32
    if index == "exact" or not single or not len(queries) or _faiss() is None:
        return kth_nearest(queries, bank, k)
    found = _index(index, bank).search(np.ascontiguousarray(queries), k)[1][:, k - 1]
    distance = norm(queries - bank[found])
    if (missed := np.flatnonzero(found < 0)).size:  # fewer than k rows in the cells that were looked at
        distance[missed] = kth_nearest(queries[missed], bank, k)
    return distance


def _index(kind: str, bank: np.ndarray) -> Any:
    with _lock:
        known, indexes = _built.get(id(bank), (None, {}))
        if known is None or known() is not bank:
            indexes = {}
            _built[id(bank)] = (weakref.ref(bank), indexes)
            weakref.finalize(bank, _forget, id(bank))
        if kind not in indexes:
            indexes[kind] = {"ivf": _ivf, "hnsw": _hnsw}[kind](bank)
        return indexes[kind]


def _forget(key: int) -> None:
    with _lock:
        known, _ = _built.get(key, (None, {}))
        if known is not None and known() is None:  # else another array has that id by now
            del _built[key]


def _ivf(bank: np.ndarray) -> Any:
    """Cells about sqrt(r) centres (k-means of fixed seed). An eighth of them is searched, or as many as it takes for
    rows of the bank to find 99 % of their ten nearest: that differs much between networks.
    """
    faiss = _faiss()
    r, d = bank.shape
    cells = max(1, min(int(np.sqrt(r)), r // 40))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(d), d, cells)
    index.cp.seed, index.cp.niter, index.cp.max_points_per_centroid = 1, 10, 64
    rows = np.ascontiguousarray(bank)
    index.train(rows[: 64 * cells])
    index.add(rows)
    asked = rows[:: max(1, r // 100)]
    true = faiss.knn(asked, rows, min(10, r))[1]
    index.nprobe = min(cells, max(8, cells // 8))
    while index.nprobe < cells:
        found = index.search(asked, true.shape[1])[1]
        if np.mean([np.isin(a, b).mean() for a, b in zip(true, found, strict=True)]) >= RECALL:
            break
        index.nprobe = min(cells, 2 * index.nprobe)
    return index


def _hnsw(bank: np.ndarray) -> Any:
    """A graph with 32 links per row. One thread builds it: with more, links depend on who comes first."""
    faiss = _faiss()
    index = faiss.IndexHNSWFlat(bank.shape[1], 32)
    index.hnsw.efConstruction, index.hnsw.efSearch = 80, 128
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        index.add(np.ascontiguousarray(bank))
    finally:
        faiss.omp_set_num_threads(threads)
    return index


@functools.cache
def _faiss() -> Any:
    if importlib.util.find_spec("faiss") is None:
        return None
    with warnings.catch_warnings():  # its SWIG types warn about themselves on import
        warnings.simplefilter("ignore", DeprecationWarning)
        import faiss
    return faiss

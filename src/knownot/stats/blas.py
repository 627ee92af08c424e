"""Small matrix products beside a network's own threads."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_inside: list[Any] = []  # the limit of each who asked and has not left; the first one's takes away all


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """NumPy's matrix products use one thread in here, in the whole process, until the last who asked has left.

    A network keeps its threads waiting in a loop, and so does BLAS: on as many cores they slow each other down to a
    third (benchmarks/speed.py), and the products of one batch are too small for many threads to gain anything.
    """
    with _lock:
        if not _inside:
            _inside.append(_controller().limit(limits=1))
        else:
            _inside.append(None)
    try:
        yield
    finally:
        with _lock:
            last = _inside[0]
            _inside.pop()
            if not _inside:
                _anyone_may_set()
                last.restore_original_limits()
                _anyone_may_set()


def _anyone_may_set() -> None:
    """Recent versions of threadpoolctl ignore all threads but the one that set a limit; here the last to leave takes it
    back, whoever set it."""
    for library in _controller().lib_controllers:
        clear = getattr(library, "clear_controlling_thread", None)
        if clear is not None:
            clear(force=True)


@functools.cache
def _controller() -> Any:
    """Of OpenBLAS, which NumPy's wheels bring; the libraries of networks keep their threads."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(internal_api="openblas")

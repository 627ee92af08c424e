"""Work done ahead of the reader, in threads, in order."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

WORKERS = min(8, os.cpu_count() or 1)


class _Pool(ThreadPoolExecutor):
    """Waits for its threads, unless it is one of them that shuts it down: a walk that an error left open is closed by
    whichever thread collects garbage next, and none can wait for its own end."""

    def __init__(self, workers: int, name: str) -> None:
        own: set[int] = set()
        self.own = own
        super().__init__(workers, thread_name_prefix=name, initializer=lambda: own.add(threading.get_ident()))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait and threading.get_ident() not in self.own, cancel_futures=cancel_futures)


def in_order(
    work: Callable[[T], R], items: Iterable[T], ahead: int, workers: int = WORKERS
) -> Generator[R, None, None]:
    """`work(item)` for every item, in the order of the items, up to `ahead` of them done before they are asked for.

    `items` is walked in the thread that reads; `work` runs in the pool's. An exception of `work` is raised where its
    result would have come. Closing the generator stops the threads and waits for them.
    """
    pool = _Pool(workers, "knownot-images")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def fetch(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items, each fetched in another thread while the one before it is being used."""
    end = object()
    pool = _Pool(1, "knownot-fetch")
    try:
        coming: Future[T | object] = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def overlap_work(
    work: Callable[[T], R], items: Generator[T, None, None], ahead: bool = True
) -> Generator[R, None, None]:
    """work(item) for each item, in their order, each in another thread while the next item is being made; or, unless
    `ahead`, in this one, before the next item is asked for.

    Items are made in the thread that reads, so a network is asked by one thread only. What was done before an
    exception is given first. Closing it closes the items.
    """
    if not ahead:
        with closing(items):
            yield from map(work, items)
        return
    with closing(items), _Pool(1, "knownot-score") as pool:
        before: Future[R] | None = None
        failed: BaseException | None = None
        while True:
            try:
                item = next(items)
            except StopIteration:
                break
            except Exception as error:
                failed = error
                break
            now = pool.submit(work, item)
            if before is not None:
                yield before.result()
            before = now
        if before is not None:
            yield before.result()
        if failed is not None:
            raise failed

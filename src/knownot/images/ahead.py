"""Work done ahead of the reader, in threads, in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

WORKERS = min(8, os.cpu_count() or 1)


def in_order(
    work: Callable[[T], R], items: Iterable[T], ahead: int, workers: int = WORKERS
) -> Generator[R, None, None]:
    """`work(item)` for every item, in the order of the items, up to `ahead` of them done before they are asked for.

    `items` is walked in the thread that reads; `work` runs in the pool's. An exception of `work` is raised where its
    result would have come. Closing the generator stops the threads and waits for them.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="knownot-images")
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


def fetched(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items, each fetched in another thread while the one before it is being used."""
    end = object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="knownot-fetch")
    try:
        coming: Future[T | object] = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def overlapped(work: Callable[[T], R], items: Generator[T, None, None]) -> Generator[R, None, None]:
    """work(item) for each item, in their order, each in another thread while the next item is being made.

    Items are made in the thread that reads, so a network is asked by one thread only. What was done before an
    exception is given first. Closing it closes the items.
    """
    with closing(items), ThreadPoolExecutor(1, thread_name_prefix="knownot-score") as pool:
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

"""The queue before a classifier: a batch is whatever waits when the one before is done; there is no timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

Run = Callable[[Sequence[Any], Sequence[bool]], list[Any]]  # images [n], which to explain [n] -> answers [n]


class Full(Exception):
    """So many images wait that these cannot."""


class Closed(Exception):
    """The classifier behind the queue was taken out of service."""


@dataclass(frozen=True)
class Item:
    image: Any
    explain: bool
    answer: asyncio.Future[Any]


class Batcher:
    """run: computes a batch, in one of `threads` threads. most: images of a batch at most. size: images that wait at
    most. Answers come in the order of each request's images, whatever batches they were computed in.
    """

    def __init__(self, run: Run, *, most: int, size: int, threads: int) -> None:
        self.most, self.size = most, size
        self.waiting = 0  # images in the queue
        self.running = 0  # batches that are being computed
        self._run, self._closed = run, False
        self._queue: asyncio.Queue[Item] = asyncio.Queue()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="knownot-batch")
        self._workers = [asyncio.create_task(self._work()) for _ in range(threads)]

    async def ask(self, images: Sequence[Any], explain: bool = False) -> list[Any]:
        """The answers [n]. Raises Full, Closed, or what `run` raised. Cancelled, its images that still wait are not
        computed."""
        if self._closed:
            raise Closed
        if self.waiting + len(images) > self.size:
            raise Full
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in images]
        for image, future in zip(images, futures, strict=True):
            self._queue.put_nowait(Item(image, explain, future))
        self.waiting += len(images)
        return list(await asyncio.gather(*futures))

    async def close(self) -> None:
        """Answer what waits, then stop."""
        self._closed = True
        while self.waiting or self.running:
            await asyncio.sleep(0.005)
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._pool.shutdown(wait=False)

    async def _work(self) -> None:
        while True:
            items = [await self._queue.get()]
            while len(items) < self.most and not self._queue.empty():
                items.append(self._queue.get_nowait())
            self.waiting -= len(items)
            items = [item for item in items if not item.answer.done()]  # those whose request has gone are left out
            if items:
                await self._batch(items)

    async def _batch(self, items: list[Item]) -> None:
        self.running += 1
        images, explain = [item.image for item in items], [item.explain for item in items]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._pool, self._run, images, explain)
            for item, answer in zip(items, answers, strict=True):
                if not item.answer.done():
                    item.answer.set_result(answer)
        except Exception as error:
            for item in items:
                if not item.answer.done():
                    item.answer.set_exception(error)
        finally:
            self.running -= 1

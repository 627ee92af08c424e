"""Who does the parts of a job: this process, others of this machine, or a Ray cluster. A part is a function of plain
values, done again where its process was lost; so it has to write its result at once, or return it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from .errors import OptionError, StorageError, missing_extra
from .version import __version__

T = TypeVar("T")
R = TypeVar("R")

ENGINES = ("none", "processes", "ray")
TRIES = 5  # of a part whose process is lost, before it is taken to be at fault


def each(
    work: Callable[[T], R], items: Sequence[T], *, engine: str = "none", workers: int | None = None
) -> Iterator[tuple[T, R]]:
    """(item, work(item)) of all items, as they are done. work: a function of a module; items can be pickled.

    Raises what `work` raises, OptionError for an engine that there is not, StorageError where processes are lost again
    and again.
    """
    if engine not in ENGINES:
        raise OptionError(f"engine={engine!r}: expected one of {', '.join(ENGINES)}.")
    if engine == "ray":
        yield from _in_ray(work, items, workers)
    elif engine == "processes":
        yield from _in_processes(work, items, workers or os.cpu_count() or 1)
    else:
        for item in items:
            yield item, work(item)


def _in_processes(work: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[tuple[T, R]]:
    """A pool that lost a process is made anew for what is left."""
    left, lost = list(range(len(items))), 0
    while left:
        before = len(left)
        try:
            with ProcessPoolExecutor(min(workers, len(left)), mp_context=get_context("spawn")) as pool:
                asked = {pool.submit(work, items[i]): i for i in left}
                for done in as_completed(asked):
                    result = done.result()
                    left.remove(asked[done])
                    yield items[asked[done]], result
        except BrokenProcessPool as error:
            lost = 0 if len(left) < before else lost + 1
            if lost >= TRIES:
                raise StorageError(
                    f"A process was lost {TRIES} times while it worked on one of {len(left)} parts; it may have been "
                    "killed for memory. Give fewer workers or a smaller batch; what is done stays."
                ) from error


def _in_ray(work: Callable[[T], R], items: Sequence[T], workers: int | None) -> Iterator[tuple[T, R]]:
    try:
        import ray
    except ImportError:
        raise missing_extra("ray", "scale", "engine='ray'") from None
    if not ray.is_initialized():
        ray.init(num_cpus=workers, log_to_driver=False, logging_level="warning")
    task = ray.remote(_same_version).options(max_retries=TRIES, num_cpus=1)
    waiting = {task.remote(__version__, work, item): item for item in items}
    while waiting:
        (done,), _ = ray.wait(list(waiting))
        item = waiting.pop(done)
        try:
            result: Any = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from error
        yield item, result


def _same_version(version: str, work: Callable[[T], R], item: T) -> R:
    """work(item), on a machine whose knownot is that of the driver."""
    if version != __version__:
        raise OptionError(f"knownot is {version} here and {__version__} on a machine of the cluster: install the same.")
    return work(item)

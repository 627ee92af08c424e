"""Who does the parts of a job: this process, others of this machine, or a Ray cluster. A part is a function of plain
values, done again where its process was lost; so it has to write its result at once, or return it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

from .errors import OptionError, StorageError, missing_extra
from .progress import say
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
            context = get_context("spawn")
            with ProcessPoolExecutor(min(workers, len(left)), context, initializer=_end_with_parent) as pool:
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


def _end_with_parent() -> None:
    """A worker whose driver was killed would wait for more work for ever, and hold on to what it is writing."""

    def wait() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()


def _in_ray(work: Callable[[T], R], items: Sequence[T], workers: int | None) -> Iterator[tuple[T, R]]:
    """Tasks of one core each, at most `workers` at once. None waits for another, so none can starve one.

    A task that was lost with its process or machine is done again by Ray. Ray is started on this machine unless it is
    running or RAY_ADDRESS names a cluster.
    """
    try:
        import ray
    except ImportError:
        raise missing_extra("ray", "scale", "engine='ray'") from None
    if not ray.is_initialized():
        cluster = os.environ.get("RAY_ADDRESS")
        cores = None if cluster else workers
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
        try:
            try:
                started = ray.init(num_cpus=cores, **quiet)
            except ValueError:  # one that runs on this machine already has its own number of cores
                started = ray.init(**quiet)
        except ConnectionError as error:
            raise StorageError(
                f"Ray's cluster at RAY_ADDRESS={cluster} cannot be reached: {error}. Does it run, by the same version "
                "of Ray, and is RAY_AUTH_MODE (and the token, if it wants one) the same here as there?"
            ) from error
        say(f"Ray's dashboard: http://{started.dashboard_url}", bool(started.dashboard_url) and sys.stderr.isatty())
    task = ray.remote(_alike(__version__)).options(max_retries=TRIES, num_cpus=1)
    left, waiting = list(reversed(range(len(items)))), dict[Any, int]()
    while left or waiting:
        while left and len(waiting) < (workers or len(items)):
            number = left.pop()
            waiting[task.remote(ray.cloudpickle.dumps((work, items[number])))] = number
        (done,), _ = ray.wait(list(waiting))
        item = items[waiting.pop(done)]
        try:
            trouble, result = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from error
        except ray.exceptions.RayError as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise StorageError(
                f"Ray lost one of {len(items)} parts again and again: {why} What is done stays."
            ) from error
        if trouble:
            raise OptionError(trouble)
        yield item, result


def _alike(version: str) -> Callable[[bytes], tuple[str, Any]]:
    """A function (pickled work and item) -> (what is wrong on that machine, "" for nothing; work(item)). It travels by
    value, so that it can say that knownot is missing there, or is another version than the driver's."""

    def checked(packed: bytes) -> tuple[str, Any]:
        import pickle
        import socket

        try:
            from knownot.version import __version__ as here
        except ImportError:
            here = "missing"
        if here != version:
            return f"knownot is {version} here and {here} on {socket.gethostname()}: install the same on all.", None
        work, item = pickle.loads(packed)
        return "", work(item)

    return checked

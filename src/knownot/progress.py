"""One progress bar for every long loop; where there is no terminal, a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

EVERY = 10.0  # seconds between two lines, where there is no terminal
clock = time.monotonic


class Advance(Protocol):
    """Call with the number of images just done."""

    def __call__(self, images: int) -> None: ...


def say(text: str, show: bool) -> None:
    """A line on standard error, before something long; nothing when `show` is false."""
    if show:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def bar(what: str, total: int | None, show: bool) -> Iterator[Advance]:
    """A bar on standard error with images done, images per second and time left; nothing when `show` is false. In a log
    file or a notebook's server, where nothing can be drawn over, a line every ten seconds."""
    if not show:
        yield lambda images: None
        return
    if not sys.stderr.isatty():
        yield Lines(what, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=False) as progress:
        task = progress.add_task(what, total=total, speed="")

        def advance(images: int) -> None:
            progress.advance(task, images)
            speed = progress.tasks[0].finished_speed or progress.tasks[0].speed
            progress.update(task, speed=f"{speed:,.0f} images/s" if speed else "")

        yield advance


class Lines:
    """Says how far it is, `EVERY` seconds after it last did."""

    def __init__(self, what: str, total: int | None) -> None:
        self.what, self.total, self.done = what, total, 0
        self.began = self.said = clock()

    def __call__(self, images: int) -> None:
        self.done += images
        now = clock()
        if now - self.said < EVERY:
            return
        self.said = now
        speed = self.done / (now - self.began)
        total = self.total or 0
        of = f"{self.done:,} of {total:,}" if total else f"{self.done:,}"
        left = f", {(total - self.done) / speed:,.0f} s left" if speed and self.done < total else ""
        say(f"{self.what}: {of} images, {speed:,.0f} images/s{left}", True)

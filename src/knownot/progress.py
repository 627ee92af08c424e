"""One progress bar for every long loop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Call with the number of images just done."""

    def __call__(self, images: int) -> None: ...


def say(text: str, show: bool) -> None:
    """A line on standard error, before something long; nothing when `show` is false."""
    if show:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def bar(what: str, total: int | None, show: bool) -> Iterator[Advance]:
    """A bar on standard error with images done, images per second and time left; nothing when `show` is false."""
    if not show:
        yield lambda images: None
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

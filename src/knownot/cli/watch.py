from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import OptionError
from .common import image_limits, network_options, networks_of
from .locking import Lock

if TYPE_CHECKING:
    from ..monitoring import Alarm, Monitor


@click.command("watch")
@click.argument("saved", type=click.Path(path_type=Path))
@click.argument("source")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path("stream.json"),
    show_default=True,
    help="The stream's state, one small file, written after every batch; an existing one is continued.",
)
@click.option(
    "--false-alarms",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="The probability that any alarm is false, ever.",
)
@click.option("--once", is_flag=True, help="Stop when all images that are there have been seen.")
@click.option("--every", type=click.FloatRange(0.05), default=2.0, show_default=True, help="Seconds between two looks.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Images per forward pass.")
@click.option("--on-alarm", help="A shell command to run at an alarm; it gets the alarm as JSON on standard input.")
@click.option("--webhook", help="An http(s) address that is sent the alarm as JSON.")
@click.option("--metrics", type=click.Path(path_type=Path), help="Keep this file of Prometheus metrics up to date.")
@click.option("--page", type=click.Path(path_type=Path), help="Keep this HTML page of the stream up to date.")
@click.option("--name", default="", help="Name of the stream, for metrics and pages; the source, if left out.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random numbers that break ties.")
@network_options
@image_limits
@click.option("--json", "as_json", is_flag=True, help="Print alarms and the end as lines of JSON.")
def command(saved: Path, source: str, state: Path, false_alarms: float, seed: int, model: str | None,
            features: str | None, **options: Any) -> None:  # fmt: skip
    """Watch a stream of images and raise an alarm when it changes.

    SAVED is what 'knownot fit' wrote. SOURCE is a folder that fills (its images in the order in which they came), or -
    for paths on standard input, one a line. After a kill the same command goes on where it was: no image of a folder is
    counted twice, and alarms are the same as without the kill. One process at a time has a state file.
    """
    from ..monitoring.notify import checked_url
    from ..openset.classifier import load

    if options["webhook"]:
        checked_url(options["webhook"])
    name = options.pop("name") or ("standard input" if source == "-" else source)
    osc = load(saved, **networks_of(model, features))
    place = Path(os.path.realpath(state))  # two links may lead to one state
    with Lock(place.with_name(place.name + ".lock"), f"the state {state}", "another --state"):
        monitor = osc.monitor(false_alarms=false_alarms, state=state, seed=seed, name=name)
        Watcher(osc, monitor, state, **options).go(source)


@dataclass
class Watcher:
    """One stream: batches in, alarms out, the state saved in between."""

    osc: Any
    monitor: Monitor
    state: Path
    once: bool = True
    every: float = 2.0
    batch_size: int = 64
    on_alarm: str | None = None
    webhook: str | None = None
    metrics: Path | None = None
    page: Path | None = None
    as_json: bool = False
    _written: float = 0.0

    def go(self, source: str) -> None:
        """Until the source ends, or for ever."""
        what = "-" if source == "-" else os.path.realpath(source)
        if self.monitor.source.setdefault("what", what) != what:
            raise OptionError(
                f"{self.state} is the state of a stream from {self.monitor.source['what']!r}, not {what!r}. Give "
                "another --state for another stream."
            )
        self._tell()  # of what a kill came between
        for paths, done in self._lines() if source == "-" else self._folder(source):
            self._batch(paths, done)
        self._show(True)
        self._say(self.monitor.summary, {"summary": self._facts()})

    def _folder(self, folder: str) -> Iterator[tuple[list[str], Any]]:
        from ..monitoring.sources import FolderSource

        place = FolderSource(folder, tuple(self.monitor.source.get("done", (-1, ""))))
        while True:
            for batch in place.batches(self.batch_size, whole=self.once):
                place.done = batch[-1]
                yield [path for _, path in batch], list(batch[-1])
            if self.once:
                return
            time.sleep(self.every)

    def _lines(self) -> Iterator[tuple[list[str], Any]]:
        from ..monitoring.sources import LineSource

        lines = LineSource(sys.stdin.fileno())
        while paths := lines.batch(self.batch_size):
            yield paths, None

    def _batch(self, paths: list[str], done: Any) -> None:
        verdicts = self.osc.predict(paths, batch_size=self.batch_size, gallery=False)
        before = len(self.monitor.alarms)
        self.monitor.update(verdicts)
        if done is not None:
            self.monitor.source["done"] = done
        untold = self.monitor.source.get("untold", [])
        self.monitor.source["untold"] = [*untold, *range(before, len(self.monitor.alarms))]
        self.monitor.save(self.state)
        self._tell()
        self._show(False)

    def _tell(self) -> None:
        """Of alarms that nobody was told of: after a kill at the wrong moment twice, but never not at all."""
        from ..monitoring.notify import post, run_command

        untold = self.monitor.source.get("untold", [])
        for index in untold:
            alarm: Alarm = self.monitor.alarms[index]
            self._say(f"ALARM {alarm.sentence}.", {"alarm": alarm.facts()})
            failed = [
                run_command(self.on_alarm, alarm, self.monitor.name) if self.on_alarm else None,
                post(self.webhook, alarm, self.monitor.name) if self.webhook else None,
            ]
            for why in filter(None, failed):
                click.echo(f"Not told: {why}.", err=True)
        if untold:
            self.monitor.source["untold"] = []
            self.monitor.save(self.state)

    def _show(self, last: bool) -> None:
        """The files of metrics and the page; at most every five seconds while images come."""
        from ..monitoring.notify import prometheus
        from ..monitoring.page import write_page
        from ..monitoring.state import write_whole

        if not last and time.monotonic() - self._written < 5:
            return
        self._written = time.monotonic()
        if self.metrics:
            write_whole(self.metrics, prometheus(self.monitor).encode())
        if self.page:
            write_page(self.monitor, self.page, self.osc.alpha)

    def _say(self, text: str, facts: dict[str, Any]) -> None:
        click.echo(json.dumps(facts) if self.as_json else text)
        sys.stdout.flush()

    def _facts(self) -> dict[str, Any]:
        monitor = self.monitor
        return {
            "images": monitor.images,
            "unknown": monitor.unknown,
            "unreadable": monitor.unreadable,
            "alarms": len(monitor.alarms),
            "log_evidence": {kind: monitor.log_evidence(kind) for kind in ("more unknown", "known shifted")},
        }

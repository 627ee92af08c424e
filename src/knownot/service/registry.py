"""The classifiers in service, by name; a changed file is opened, tried, and takes over, or is refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import KnownotError, OptionError
from .engine import Engine
from .metrics import Metrics
from .names import check_name
from .problems import Problem
from .settings import Settings

log = logging.getLogger("knownot.service")


@dataclass
class Entry:
    """One name. stamp: of the file that was looked at last, taken or refused; refused: why the newest was, if so."""

    engine: Engine
    stamp: tuple[int, int, int] | None
    refused: str | None = None


class Registry:
    """Opened when made: raises SavedError, OptionError and what else a file can be wrong by."""

    def __init__(
        self, paths: Mapping[str, str | Path], settings: Settings, metrics: Metrics, model: Any = None
    ) -> None:
        if not paths:
            raise OptionError("There is nothing to serve: give a saved folder or an exported .onnx file.")
        self.settings, self.metrics, self._model = settings, metrics, model
        if model is not None and len(paths) > 1:
            raise OptionError("model= is for one folder that was saved without its classifier; several are given.")
        self._closing: set[asyncio.Task[None]] = set()
        self.entries: dict[str, Entry] = {}
        for name, path in paths.items():
            check_name(name)
            path, stamp = Path(path), _stamp(Path(path))
            self.entries[name] = Entry(self._opened(name, path, stamp), stamp)
            engine = self.entries[name].engine
            metrics.in_service(name, engine.digest, engine.facts["alpha"])
            metrics.queue.labels(name).set_function(partial(self._waiting, name))

    def _waiting(self, name: str) -> float:
        return self.entries[name].engine.waiting

    @property
    def first(self) -> str:
        return next(iter(self.entries))

    def get(self, name: str | None) -> Engine:
        """Raises Problem 404."""
        name = name or self.first
        if name not in self.entries:
            raise Problem(404, f"There is no model of that name. There are: {', '.join(self.entries)}.")
        return self.entries[name].engine

    def start(self) -> None:
        for entry in self.entries.values():
            entry.engine.start()

    async def close(self) -> None:
        await asyncio.gather(*(entry.engine.close() for entry in self.entries.values()), *self._closing)

    async def watch(self) -> None:
        """For ever: look at the files, and take what has changed."""
        while True:
            await asyncio.sleep(self.settings.reload)
            await self.look()

    async def look(self) -> None:
        """Once. No request is dropped: those that came before are answered by the classifier that they came to."""
        for name, entry in self.entries.items():
            stamp = _stamp(entry.engine.path)
            if stamp is None or stamp == entry.stamp:
                continue  # gone, or between two renames: the one in memory goes on
            entry.stamp = stamp
            try:
                new = await asyncio.to_thread(self._opened, name, entry.engine.path, stamp)
            except Exception as error:
                self._refuse(name, entry, error)
                continue
            entry.refused = None
            if new.digest == entry.engine.digest:
                log.info("unchanged", extra={"facts": {"model": name}})
                continue
            old, entry.engine = entry.engine, new.start()
            self.metrics.in_service(name, new.digest, new.facts["alpha"], old.digest)
            self.metrics.reloads.labels(name, "taken").inc()
            log.info("reloaded", extra={"facts": {"model": name, "digest": new.digest}})
            task = asyncio.create_task(old.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _refuse(self, name: str, entry: Entry, error: Exception) -> None:
        entry.refused = str(error) if isinstance(error, KnownotError) else type(error).__name__
        self.metrics.reloads.labels(name, "refused").inc()
        log.error("reload refused", extra={"facts": {"model": name, "error": entry.refused}})

    def _opened(self, name: str, path: Path, stamp: tuple[int, int, int] | None) -> Engine:
        from ..export import info, load

        classifier = load(path) if self._model is None else load(path, model=self._model)
        modified = datetime.fromtimestamp((stamp or (0,))[0] / 1e9, UTC)
        return Engine(
            name=name,
            path=path,
            classifier=classifier,
            facts=info(path),
            settings=self.settings,
            metrics=self.metrics,
            modified=modified,
        )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """(time in ns, bytes, inode) of the file, or of the folder's manifest; None where there is none."""
    try:
        seen = (path / "manifest.json" if path.is_dir() else path).stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino

"""The service in a process of its own: listens, and on SIGTERM answers what was accepted before it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from ..errors import OptionError, StorageError
from .app import create_app
from .settings import Settings

log = logging.getLogger("knownot.service")


def serve(
    models: Mapping[str, str | Path] | Sequence[str | Path],
    settings: Settings | None = None,
    *,
    model: Any = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve saved folders or exported files, {name: path} or paths, until SIGTERM or an interrupt.

    ready: called with the address once it listens. Raises SavedError and OptionError for files and settings,
    StorageError when the port is taken.
    """
    settings = settings or Settings()
    app = create_app(models, settings, model=model)
    run(app, settings, ready)


def run(app: FastAPI, settings: Settings, ready: Callable[[str], None] | None = None) -> None:
    """An application of `create_app`, until it is told to end."""
    with contextlib.closing(_listening(settings)) as listening:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=int(2 * settings.timeout + 1),
            lifespan="on",
            ws="none",
            h11_max_incomplete_event_size=64 * 1024,
            proxy_headers=False,
        )
        server = LeavingServer(config, settings.drain)
        app.state.leaving = lambda: server.leaving
        host, port = settings.host, listening.getsockname()[1]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        if not settings.local and settings.token is None:
            log.warning(
                "whoever reaches this address may ask: there is no token", extra={"facts": {"address": address}}
            )
        log.info("listening", extra={"facts": {"address": address}})
        if ready is not None:
            ready(address)
        server.run([listening])
        log.info("left")


def _listening(settings: Settings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise OptionError(f"host={settings.host!r} is no address of this machine: {error.strerror}.") from error
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((settings.host, settings.port))
        made.listen(1024)
    except (OSError, OverflowError) as error:
        made.close()
        raise StorageError(
            f"Nobody can listen on {settings.host}:{settings.port}: {getattr(error, 'strerror', error)}. Is another "
            "service there? Give another --port."
        ) from error
    made.setblocking(False)
    return made


class LeavingServer(uvicorn.Server):
    """At the first SIGTERM or interrupt requests are answered for `drain` seconds more, each answer with the word that
    its connection ends; then the port is closed, what is under way is answered, and it ends. At the second at once.
    """

    def __init__(self, config: uvicorn.Config, drain: float) -> None:
        super().__init__(config)
        self.drain, self.leaving = drain, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.leaving:
            self.should_exit = self.force_exit = True
            return
        self.leaving = True
        log.info("leaving", extra={"facts": {"signal": signal.Signals(sig).name}})
        try:
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(loop.call_later, self.drain, self._leave)
        except RuntimeError:  # outside the loop
            self._leave()

    def _leave(self) -> None:
        self.should_exit = True

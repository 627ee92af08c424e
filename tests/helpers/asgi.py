"""Requests to an ASGI application in this process, without sockets: what was answered, and what went on before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    app: Any
    host: str = "127.0.0.1"

    async def __call__(
        self, method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None, *, chunks: Any = None
    ) -> Answered:
        """chunks: the body in pieces; None in it is a client that hangs up."""
        parts = urlsplit(url)
        given = {"host": self.host, **(headers or {})}
        if chunks is None:
            given.setdefault("content-length", str(len(body)))
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": parts.path, "raw_path": parts.path.encode(), "query_string": parts.query.encode(), "root_path": "",
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in given.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
        }  # fmt: skip
        pieces = list(chunks) if chunks is not None else [body]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if pieces:
                piece = pieces.pop(0)
                if piece is None:
                    return {"type": "http.disconnect"}
                if isinstance(piece, float):
                    await asyncio.sleep(piece)
                    piece = b""
                return {"type": "http.request", "body": piece, "more_body": bool(pieces)}
            await asyncio.sleep(3600)
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        start = sent[0]
        head = {k.decode().lower(): v.decode("latin-1") for k, v in start["headers"]}
        return Answered(start["status"], head, b"".join(m.get("body", b"") for m in sent[1:]))


def served(app: Any, story: Callable[[Client], Awaitable[Any]], host: str = "127.0.0.1") -> Any:
    """What `story` returns, with the application started before and ended after it."""

    @asynccontextmanager
    async def alive() -> Any:
        async with app.router.lifespan_context(app):
            yield Client(app, host)

    async def told() -> Any:
        async with alive() as client:
            return await story(client)

    return asyncio.run(told())


def multipart(files: list[tuple[str, bytes]], field: str = "images") -> tuple[bytes, dict[str, str]]:
    """(body, headers) of a form with files [(name, content)]."""
    parts = [
        b'--knot\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n%s\r\n" % (field.encode(), name.encode(), data)
        for name, data in files
    ]
    return b"".join(parts) + b"--knot--\r\n", {"content-type": "multipart/form-data; boundary=knot"}

"""What stands before every request: who may ask, how many at once; and the headers, log line and metrics of each."""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from .metrics import Metrics
from .problems import Problem, busy, too_large
from .settings import Settings

log = logging.getLogger("knownot.service.requests")

# Asked for without a token.
OPEN = frozenset(
    ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json", "/favicon.ico", "/", "/review",
     "/streams")
)  # fmt: skip
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", CSP.encode()),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
]

Scope = MutableMapping[str, Any]


@dataclass
class Guard:
    """ASGI middleware."""

    app: Any
    settings: Settings
    metrics: Metrics
    leaving: Callable[[], bool] = lambda: False  # whether the service is about to end
    under_way: int = field(default=0, init=False)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await _Exchange(self, scope).run(receive, send)

    def refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> Problem | None:
        """Why this request is not let in."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        allowed = self.settings.allowed_hosts
        if allowed is not None and _without_port(host) not in allowed:
            return Problem(421, "Asked by a name that is not this service's: --allow-host NAME adds one.")
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        if origin and origin.partition("://")[2] != host and origin not in self.settings.origins:
            return Problem(403, "A page of another site asked; --cors ORIGIN lets that site in.")
        path = scope["path"]
        if (
            self.settings.token
            and path not in OPEN
            and not path.startswith("/assets/")
            and scope["method"] != "OPTIONS"
        ):
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self.settings.token.encode()):
                return Problem(401, "Send the header Authorization: Bearer TOKEN.", {"WWW-Authenticate": "Bearer"})
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self.settings.max_body:
            return too_large(self.settings.max_body)
        if self.under_way > self.settings.max_requests:
            return busy(f"More than {self.settings.max_requests} requests are under way.")
        return None


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


class _Exchange:
    """One request and its answer."""

    def __init__(self, guard: Guard, scope: Scope) -> None:
        self.guard, self.scope = guard, scope
        self.status, self.id, self.begin = 0, secrets.token_hex(8), time.perf_counter()
        scope.setdefault("state", {})["facts"] = self.facts = dict[str, Any]()  # what routes add to the log line

    async def run(self, receive: Any, send: Any) -> None:
        guard = self.guard
        guard.under_way += 1
        guard.metrics.under_way.set(guard.under_way)

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                message["headers"] = self._headers(message.get("headers", []))
            await send(message)

        try:
            refusal = guard.refusal(self.scope, dict(self.scope["headers"]))
            if refusal is not None:
                await refusal.response()(self.scope, receive, sending)
            else:
                await guard.app(self.scope, self._counted(receive), sending)
        except Exception:
            log.exception("defect", extra={"facts": {"id": self.id}})
            if self.status:
                raise
            words = f"Please report it, with the lines of the log that have the id {self.id}."
            await Problem(500, words).response()(self.scope, receive, sending)
        finally:
            guard.under_way -= 1
            guard.metrics.under_way.set(guard.under_way)
            self._note()

    def _counted(self, receive: Any) -> Any:
        """`receive`, but a body without a length ends where it is too large: Problem 413."""
        size = 0

        async def counting() -> Any:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.guard.settings.max_body:
                raise too_large(self.guard.settings.max_body)
            return message

        return counting

    def _headers(self, given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        have = {name.lower() for name, _ in given}
        more = [*HEADERS, (b"x-request-id", self.id.encode()), (b"cache-control", b"no-store")]
        if self.guard.leaving() and self.scope.get("http_version") != "2":
            more.append((b"connection", b"close"))
        return [*given, *(pair for pair in more if pair[0] not in have)]

    def _note(self) -> None:
        guard, seconds = self.guard, time.perf_counter() - self.begin
        route = getattr(self.scope.get("route"), "path", "-")
        method = self.scope["method"] if self.scope["method"] in METHODS else "-"
        guard.metrics.requests.labels(method, route, self.status).inc()
        guard.metrics.seconds.labels(route).observe(seconds)
        facts = {"id": self.id, "method": method, "route": route, "status": self.status, "ms": round(1000 * seconds, 1)}
        log.info("request", extra={"facts": facts | self.facts})

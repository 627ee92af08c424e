"""What goes wrong, in the one shape of RFC 9457: application/problem+json, and its place in the OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

MEDIA = "application/problem+json"
WORDS = {
    400: ("bad-request", "The request cannot be understood"),
    401: ("token-needed", "A token is needed"),
    403: ("other-origin", "Pages of other sites may not ask"),
    404: ("not-found", "There is no such thing here"),
    405: ("method", "This address does not take that method"),
    408: ("too-slow", "The request did not arrive in time"),
    409: ("changed", "Somebody else was faster"),
    413: ("too-large", "The request is too large"),
    415: ("media-type", "That kind of body is not read here"),
    421: ("other-host", "This service has another name"),
    422: ("not-valid", "The request is not what was expected"),
    429: ("busy", "More waits than can be answered soon"),
    500: ("defect", "A defect of the service"),
    503: ("unavailable", "The service cannot answer now"),
}


class ProblemDetails(BaseModel):
    """RFC 9457."""

    type: str = Field(description="What kind of problem: a stable name.", examples=["urn:knownot:busy"])
    title: str = Field(description="The same for every problem of the kind.")
    status: int
    detail: str = Field(description="What it was this time, what was expected, and the cure.")


class Problem(Exception):
    """An answer that is a problem. detail: what was given, what was expected, and the cure."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    def body(self) -> bytes:
        kind, title = WORDS.get(self.status, ("other", "The request failed"))
        facts = {"type": f"urn:knownot:{kind}", "title": title, "status": self.status, "detail": self.detail}
        return json.dumps(facts).encode()

    def response(self) -> Response:
        return Response(self.body(), self.status, self.headers, MEDIA)


def busy(detail: str) -> Problem:
    return Problem(429, detail, {"Retry-After": "1"})


def too_large(limit: int) -> Problem:
    words = f"A request may have {limit:,} bytes: send fewer images at once, or smaller ones."
    return Problem(413, words, {"Connection": "close"})


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an operation may answer beside its result, for the OpenAPI document; those that any may answer included."""
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    made: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*statuses, 400, 401, 403, 421, 429, 503}):
        made[status] = {"description": WORDS[status][1], "content": {MEDIA: {"schema": schema}}}
        if status in (429, 503):
            made[status]["headers"] = {
                "Retry-After": {"description": "Seconds after which to ask again.", "schema": {"type": "integer"}}
            }
    return made


def install(app: FastAPI) -> None:
    """Every exception of a request becomes a problem."""

    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        words = {404: "There is nothing at this address.", 405: "See the header Allow for the methods that it takes."}
        return Problem(error.status_code, words.get(error.status_code, str(error.detail)), error.headers).response()

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return Problem(422, told(error.errors())).response()

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)


def told(errors: Any) -> str:
    """What pydantic found, as sentences; nothing of what was given is repeated."""
    parts = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in list(errors)[:5]]
    return "; ".join(parts) + "."

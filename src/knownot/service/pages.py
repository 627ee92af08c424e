"""The page: files of the package, read once, each with a tag of its content; no folder is listed."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ..plots.palette import variables
from .problems import Problem

TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


@cache
def assets() -> dict[str, tuple[bytes, str, str]]:
    """{name: (content, media type, tag)}."""
    found = {
        entry.name: entry.read_bytes()
        for entry in files(__package__).joinpath("page").iterdir()
        if entry.name.rpartition(".")[2] in TYPES
    }
    found["palette.css"] = variables().encode()
    return {name: (data, *_about(name, data)) for name, data in found.items()}


def _about(name: str, data: bytes) -> tuple[str, str]:
    kind = TYPES[name.rpartition(".")[2]]
    return f"{kind}; charset=utf-8", f'"{hashlib.sha256(data).hexdigest()[:20]}"'


def asset(request: Request, name: str) -> Response:
    """Raises Problem 404."""
    if name not in assets():
        raise Problem(404, "There is nothing at this address.")
    data, kind, tag = assets()[name]
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Type": kind}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers)


def page_routes() -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def page(request: Request) -> Response:
        return asset(request, "index.html")

    @router.api_route("/favicon.ico", methods=["GET", "HEAD"])
    async def icon(request: Request) -> Response:
        return asset(request, "icon.svg")

    @router.api_route("/assets/{name}", methods=["GET", "HEAD"])
    async def file(request: Request, name: str) -> Response:
        return asset(request, name)

    return router

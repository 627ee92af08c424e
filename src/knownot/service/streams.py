"""Streams that `knownot watch` follows: their state files, read when somebody looks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ..errors import KnownotError, OptionError
from ..monitoring.page import page as page_of
from ..monitoring.state import options_of
from .answers import StreamOut, StreamsOut
from .pages import asset
from .problems import Problem, responses
from .registry import Registry

router = APIRouter()
page = APIRouter(include_in_schema=False)


@page.api_route("/streams", methods=["GET", "HEAD"])
async def shell(request: Request) -> Response:
    return asset(request, "streams.html")


@router.get("/v1/streams", response_model=StreamsOut, responses=responses(), summary="Streams that are watched")
async def streams(request: Request) -> dict[str, list[str]]:
    return {"streams": [name for name, _ in request.app.state.settings.streams]}


@router.get("/v1/streams/{name}", response_model=StreamOut, responses=responses(404, 422), summary="One of them")
async def stream(request: Request, name: str) -> dict[str, Any]:
    """As it is now: counts, alarms, and the inside of its page as HTML."""
    paths = dict(request.app.state.settings.streams)
    if name not in paths:
        raise Problem(404, f"There is no stream of that name. There are: {', '.join(paths) or 'none'}.")
    return await asyncio.to_thread(_looked_at, request.app.state.registry, name, paths[name])


def _looked_at(registry: Registry, name: str, path: Path) -> dict[str, Any]:
    """Raises Problem 404 while there is no state of a classifier in service."""
    why: KnownotError = OptionError("an exported file knows no calibration scores: serve the saved folder.")
    for served, entry in registry.entries.items():
        classifier = entry.engine.classifier
        if not hasattr(classifier, "monitor"):
            continue
        try:
            monitor = classifier.monitor(state=path, name=name, **options_of(path))
        except KnownotError as error:
            why = error
            continue
        return {
            "name": name, "model": served, "images": monitor.images, "unknown": monitor.unknown,
            "unreadable": monitor.unreadable, "alarms": [alarm.facts() for alarm in monitor.alarms],
            "html": page_of(monitor, classifier.alpha, whole=False),
        }  # fmt: skip
    raise Problem(404, f"The stream {name!r} cannot be shown: {str(why).replace(str(path), 'its state file')}")

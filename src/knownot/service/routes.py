"""Verdicts, what is in service, and how it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from ..version import __version__
from .answers import ExamplesOut, ModelOut, ModelsOut, PredictOut, StateOut
from .batching import Closed, Full
from .engine import Answer, Engine, Image, Unread, explained
from .metrics import MEDIA
from .problems import Problem, busy, responses
from .registry import Registry
from .uploads import BINARY, BODY, read_uploads

router = APIRouter()
Name = Annotated[str | None, Query(alias="model", description="Which model; the first, if left out.", max_length=64)]


@router.post(
    "/v1/predict",
    response_model=PredictOut,
    responses=responses(404, 408, 413, 415, 422),
    openapi_extra={"requestBody": BODY},
    summary="A verdict for every image",
)
async def predict(request: Request, model: Name = None, explain: bool = False) -> Response:
    """One image that cannot be read is a row with its reason and fails no other."""
    registry: Registry = request.app.state.registry
    registry.get(model)
    uploads = await read_uploads(request, registry.settings)
    engine = registry.get(model)  # all images of a request are answered by one classifier
    answers = await ask_engine(engine, [Unread(u.error) if u.error else u.data for u in uploads], explain)
    await request.app.state.keep(engine, uploads, answers)
    request.state.facts.update(model=engine.name, images=len(uploads), bytes=sum(len(u.data) for u in uploads))
    rows = []
    for upload, answer in zip(uploads, answers, strict=True):
        engine.metrics.answered(engine.name, answer.row)
        rows.append({"id": upload.id, **answer.row, **({"explanation": explained(answer)} if explain else {})})
    facts = engine.facts
    said = {"model": engine.name, "digest": engine.digest, **{k: facts[k] for k in ("alpha", "p_threshold", "promise")}}
    return Response(json.dumps({**said, "verdicts": rows}), media_type="application/json")


async def ask_engine(engine: Engine, images: Sequence[Image], explain: bool) -> list[Answer]:
    """The answers of one classifier, in order. Raises Problem 429 and 503."""
    try:
        async with asyncio.timeout(engine.settings.timeout):
            return await engine.ask(images, explain)
    except Full:
        raise busy(f"{engine.waiting} images wait already, of at most {engine.settings.queue}.") from None
    except Closed:
        raise Problem(503, "The service is about to end: ask again.", {"Retry-After": "1"}) from None
    except TimeoutError:
        words = f"There was no answer within {engine.settings.timeout:g} s."
        raise Problem(503, words, {"Retry-After": "1"}) from None


@router.get("/v1/models", response_model=ModelsOut, responses=responses(), summary="What is in service")
async def models(request: Request) -> dict[str, Any]:
    registry: Registry = request.app.state.registry
    settings = registry.settings
    return {
        "default": registry.first,
        "models": [_describe_row(registry, name) for name in registry.entries],
        "limits": {name: getattr(settings, name) for name in ("max_body", "max_images", "max_pixels")},
        "examples": len(settings.examples),
        "streams": len(settings.streams),
    }


@router.get("/v1/models/{name}", response_model=ModelOut, responses=responses(404, 422), summary="One of them")
async def model(request: Request, name: str) -> dict[str, Any]:
    return _describe_row(request.app.state.registry, request.app.state.registry.get(name).name)


def _describe_row(registry: Registry, name: str) -> dict[str, Any]:
    entry = registry.entries[name]
    return {**entry.engine.description(), "refused": entry.refused}


@router.get("/v1/examples", response_model=ExamplesOut, responses=responses(), summary="Names of images to try")
async def examples(request: Request) -> dict[str, list[str]]:
    return {"examples": [path.name for path in request.app.state.settings.examples]}


@router.get(
    "/v1/examples/{number}",
    response_class=Response,
    responses={**responses(404, 422), 200: {"content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}}},
    summary="One of them",
)
async def example(request: Request, number: int) -> Response:
    given = request.app.state.settings.examples
    if not 0 <= number < len(given):
        raise Problem(404, f"There are {len(given)} examples, counted from 0.")
    data = await asyncio.to_thread(given[number].read_bytes)
    return Response(data, headers={"Content-Type": BINARY})


@router.get("/healthz", response_model=StateOut, responses=responses(), summary="Whether the process lives")
async def healthz() -> dict[str, str]:
    return {"status": "ok", "version": __version__}


@router.get("/readyz", response_model=StateOut, responses=responses(), summary="Whether to send it requests")
async def readyz(request: Request) -> dict[str, str]:
    """503 from SIGTERM on."""
    if request.app.state.leaving():
        raise Problem(503, "The service is about to end.", {"Retry-After": "1"})
    return {"status": "ready", "version": __version__}


@router.get(
    "/metrics",
    response_class=Response,
    responses={**responses(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    summary="In the text format of Prometheus",
)
async def metrics(request: Request) -> Response:
    return Response(request.app.state.metrics.text(), headers={"Content-Type": MEDIA})

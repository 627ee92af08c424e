"""The ASGI application: routes, guard, and what runs beside the requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request

from ..version import __version__
from . import open_inference, problems, routes, streams
from .guard import OPEN, Guard
from .metrics import Metrics
from .names import names_of
from .pages import page_routes
from .registry import Registry
from .settings import Settings
from .uploads import PredictIn

log = logging.getLogger("knownot.service")

ABOUT = """Which of the images that reach a trained classifier belong to none of its classes. A verdict is *known*,
with its class, or *unknown*; at most a share alpha of known images is called unknown, with the guarantee that is sent
along."""


def create_app(
    models: Mapping[str, str | Path] | Sequence[str | Path], settings: Settings | None = None, *, model: Any = None
) -> FastAPI:
    """models: saved folders or exported .onnx files, as {name: path} or paths. model: the classifier of one folder that
    was saved without it.

    The files are opened and tried at once: raises SavedError, OptionError.
    """
    settings = settings or Settings()
    metrics = Metrics()
    registry = Registry(names_of(models), settings, metrics, model)
    app = FastAPI(
        title="knownot",
        version=__version__,
        description=ABOUT,
        docs_url=None,  # those pages are fetched from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.registry, app.state.metrics, app.state.settings = registry, metrics, settings
    app.state.leaving = lambda: False
    app.state.keep = _keep_nothing if settings.keep is None else _desk(app, settings)
    problems.install(app)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.include_router(routes.router)
    app.include_router(open_inference.router)
    app.include_router(streams.router)
    app.include_router(streams.page)
    app.include_router(page_routes())
    _openapi(app)
    if settings.origins:
        headers = ["Authorization", "Content-Type"]
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.origins, allow_methods=["GET", "POST"], allow_headers=headers
        )
    app.add_middleware(Guard, settings=settings, metrics=metrics, leaving=lambda: app.state.leaving())
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    registry: Registry = app.state.registry
    registry.start()
    store = getattr(app.state.keep, "store", None)
    beside = [asyncio.create_task(registry.watch())] if app.state.settings.reload else []
    if store is not None:
        beside.append(asyncio.create_task(_retain(store)))
    try:
        yield
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await registry.close()
        if store is not None:
            store.close()


def _desk(app: FastAPI, settings: Settings) -> Any:
    """The review desk, and what keeps images for it."""
    from .review import routes as review
    from .review.keeping import Keeper
    from .review.store import Store

    assert settings.keep is not None
    app.include_router(review.router)
    app.include_router(review.page)
    return Keeper(Store(settings.keep, days=settings.keep_days, most=settings.keep_most), settings.audit_share)


async def _retain(store: Any) -> None:
    """For ever: what is too old goes."""
    while True:
        try:
            await asyncio.to_thread(store.retain)
        except Exception as error:
            log.error("retention failed", extra={"facts": {"error": type(error).__name__}})
        await asyncio.sleep(60)


async def _keep_nothing(*_: Any) -> None:
    """No image outlives its request."""


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


def _openapi(app: FastAPI) -> None:
    """Schemas that routes name by reference, and the token."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for kind in (problems.ProblemDetails, PredictIn, open_inference.InferIn):
                schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(schema.pop("$defs", {}))
                schemas[kind.__name__] = schema
            document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            if app.state.settings.token:
                document["security"] = [{"token": []}]
                for path in OPEN & set(document["paths"]):
                    for operation in document["paths"][path].values():
                        operation["security"] = []
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]

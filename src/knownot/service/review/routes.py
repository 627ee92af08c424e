"""The desk's requests: see, mark, undo, measure, take away."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, BeforeValidator, Field

from ...errors import MissingExtraError
from ..engine import Engine
from ..pages import asset
from ..problems import Problem, responses
from .clusters import alike, clusters_of
from .export import as_parquet, as_zip
from .rate import measure
from .store import Mark, Marked, Store


def no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a whole number is expected")
    return value


router = APIRouter(prefix="/v1/review")
page = APIRouter(include_in_schema=False)
Show = Literal["unmarked", "marked", "all"]
Name = Annotated[str | None, Query(alias="model", max_length=64)]
WHO = Field(min_length=1, max_length=100, description="Who marks.")
ID = Annotated[int, Field(ge=0, lt=2**31)]
Number = Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(no_bool)]  # in JSON, where true is no 1


class NamedMark(BaseModel, extra="forbid"):
    kind: Literal["class", "new"]
    name: str = Field(min_length=1, max_length=100, description="Of the class.")


class PlainMark(BaseModel, extra="forbid"):
    kind: Literal["none", "unusable"] | None = Field(description="None: no mark any more.")
    name: None = None


class Looked(BaseModel, extra="forbid"):
    id: Number
    version: Number = Field(description="That was looked at; an image that has another by now keeps its mark.")


class MarksIn(BaseModel, extra="forbid"):
    who: str = WHO
    mark: NamedMark | PlainMark
    images: list[Looked] = Field(min_length=1, max_length=5000)


class UndoIn(BaseModel, extra="forbid"):
    who: str = WHO
    batch: str = Field(max_length=32)


class DeleteIn(BaseModel, extra="forbid"):
    images: list[Number] = Field(min_length=1, max_length=5000)


@router.get("/images", responses=responses(404, 422), summary="Kept images")
async def images(
    request: Request,
    model: Name = None,
    show: Show = "unmarked",
    after: ID = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 500,
) -> dict[str, Any]:
    engine, store = _engine(request, model), _store(request)
    rows, count = await asyncio.to_thread(store.shown, engine.name, show=show, after=after, limit=limit)
    return {"model": engine.name, "classes": engine.facts["classes"], "count": count, "images": rows}


@router.get("/images/{image}/file", response_class=Response, responses=responses(404, 422), summary="One as it came")
async def file(request: Request, image: ID) -> Response:
    data = await asyncio.to_thread(_store(request).file, image)
    if data is None:
        raise Problem(404, "There is no kept image of that number (any more).")
    return Response(data, headers={"Content-Type": "application/octet-stream"})


@router.get("/images/{image}/alike", responses=responses(404, 422), summary="Those most alike to one")
async def similar(request: Request, image: ID, model: Name = None, show: Show = "unmarked") -> dict[str, Any]:
    engine = _engine(request, model)
    return {"ids": await asyncio.to_thread(alike, _store(request), engine.name, image, show)}


@router.get("/clusters", responses=responses(404, 422), summary="Clusters and a map")
async def clusters(request: Request, model: Name = None, show: Show = "unmarked") -> dict[str, Any]:
    engine = _engine(request, model)
    return await asyncio.to_thread(clusters_of, _store(request), engine.name, show)


@router.post("/marks", responses=responses(404, 413, 415, 422), summary="Mark images")
async def marks(request: Request, given: MarksIn, model: Name = None) -> dict[str, Any]:
    engine, mark = _engine(request, model), given.mark
    if mark.kind == "class" and mark.name not in engine.facts["classes"]:
        raise Problem(404, "The classifier has no class of that name.")
    versions = {looked.id: looked.version for looked in given.images}
    changed = await asyncio.to_thread(_store(request).mark, Mark(mark.kind, mark.name), versions, given.who)
    return _said(changed)


@router.post("/undo", responses=responses(404, 413, 415, 422), summary="Take a mark back")
async def undo(request: Request, given: UndoIn) -> dict[str, Any]:
    changed = await asyncio.to_thread(_store(request).undo, given.batch, given.who)
    if not changed.versions and not changed.conflicts:
        raise Problem(404, "Nothing was marked under that number.")
    return _said(changed)


@router.post("/delete", responses=responses(404, 413, 415, 422), summary="Delete images and their marks for good")
async def delete(request: Request, given: DeleteIn) -> dict[str, int]:
    return {"deleted": await asyncio.to_thread(_store(request).delete, given.images)}


@router.get("/rate", responses=responses(404, 422), summary="The measured rate of false alarms")
async def rate(request: Request, model: Name = None) -> dict[str, Any]:
    engine = _engine(request, model)
    audited = await asyncio.to_thread(_store(request).audited, engine.name, engine.digest)
    found = measure(engine.facts["alpha"], audited)
    return {**asdict(found), "share": request.app.state.keep.share, "sentence": found.sentence}


@router.get("/export", response_class=Response, responses=responses(404, 422), summary="Marked images, to train with")
async def export(request: Request, model: Name = None, form: Literal["zip", "parquet"] = "zip") -> Response:
    engine, store = _engine(request, model), _store(request)
    headers = {"Content-Disposition": f'attachment; filename="marked.{form}"'}
    if form == "zip":
        return StreamingResponse(as_zip(store.marked(engine.name)), headers=headers, media_type="application/zip")
    try:
        data = await asyncio.to_thread(lambda: as_parquet(store.marked(engine.name)))
    except MissingExtraError as error:
        raise Problem(422, str(error)) from None
    return Response(data, headers=headers, media_type="application/vnd.apache.parquet")


@page.api_route("/review", methods=["GET", "HEAD"])
async def desk(request: Request) -> Response:
    return asset(request, "review.html")


def _engine(request: Request, name: str | None) -> Engine:
    engine: Engine = request.app.state.registry.get(name)
    return engine


def _store(request: Request) -> Store:
    store: Store = request.app.state.keep.store
    return store


def _said(changed: Marked) -> dict[str, Any]:
    changes = [{"id": image, "version": version} for image, version in changed.versions.items()]
    return {"batch": changed.batch, "changed": changes, "conflicts": changed.conflicts}

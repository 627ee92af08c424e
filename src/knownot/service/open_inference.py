"""The Open Inference Protocol v2 of KServe, Triton, OpenVINO Model Server and MLServer, over HTTP with JSON tensors.

One input: `images`, BYTES [n] (image files, in base64 as JSON has no bytes) or UINT8 [n, h, w, 3]. Outputs: those of an
exported file, and `status`, `class_name` and `error` as BYTES. The extension for binary tensors (JSON, then raw bytes)
is read and written too, since clients use it without being asked.
https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError

from ..version import __version__
from .engine import Answer, Engine
from .problems import Problem, responses, told
from .registry import Registry
from .routes import ask_engine, readyz
from .uploads import Upload, read_body

router = APIRouter(prefix="/v2")
LENGTH = "inference-header-content-length"
OUTPUTS: dict[str, tuple[str, str]] = {  # name: (type, column of a verdict)
    "label": ("INT64", "label"),
    "p_value": ("FP64", "p_value"),
    "score": ("FP32", "score"),
    "closed_label": ("INT64", "closed_label"),
    "confidence": ("FP32", "confidence"),
    "status": ("BYTES", "status"),
    "class_name": ("BYTES", "class_name"),
    "error": ("BYTES", "error"),
}
NUMPY = {"INT64": "<i8", "FP64": "<f8", "FP32": "<f4"}


class TensorIn(BaseModel):
    name: Literal["images"]
    datatype: Literal["BYTES", "UINT8"]
    shape: list[Annotated[int, Field(ge=1, strict=True)]] = Field(min_length=1, max_length=4)
    data: list[Any] | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class OutputIn(BaseModel):
    name: Literal["label", "p_value", "score", "closed_label", "confidence", "status", "class_name", "error"]
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferIn(BaseModel):
    id: str | None = Field(None, max_length=1000)
    inputs: list[TensorIn] = Field(min_length=1, max_length=1)
    outputs: list[OutputIn] | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class TensorOut(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class InferOut(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[TensorOut]


class MetadataTensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[MetadataTensor]
    outputs: list[MetadataTensor]


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class ModelReady(BaseModel):
    name: str
    ready: bool


BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InferIn"}}},
}


@router.get("", response_model=ServerMetadata, responses=responses(), summary="Server metadata")
async def server_metadata() -> dict[str, Any]:
    return {"name": "knownot", "version": __version__, "extensions": ["binary_tensor_data"]}


@router.get("/health/live", response_model=Live, responses=responses(), summary="Server live")
async def live() -> dict[str, bool]:
    return {"live": True}


@router.get("/health/ready", response_model=Ready, responses=responses(), summary="Server ready")
async def ready(request: Request) -> dict[str, bool]:
    await readyz(request)
    return {"ready": True}


@router.get("/models/{name}/ready", response_model=ModelReady, responses=responses(404), summary="Model ready")
async def model_ready(request: Request, name: str) -> dict[str, Any]:
    await readyz(request)
    return {"name": _engine(request, name).name, "ready": True}


@router.get("/models/{name}", response_model=ModelMetadata, responses=responses(404), summary="Model metadata")
async def model_metadata(request: Request, name: str) -> dict[str, Any]:
    engine = _engine(request, name)
    return {
        "name": engine.name,
        "versions": [engine.digest],
        "platform": "knownot",
        "inputs": [{"name": "images", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": out, "datatype": kind, "shape": [-1]} for out, (kind, _) in OUTPUTS.items()],
    }


@router.post(
    "/models/{name}/infer",
    response_model=InferOut,
    responses=responses(404, 408, 413, 415, 422),
    openapi_extra={"requestBody": BODY},
    summary="Verdicts for images",
)
async def infer(request: Request, name: str) -> Response:
    registry: Registry = request.app.state.registry
    _engine(request, name)
    body = await read_body(request, registry.settings)
    head, rest = _parted(body, request.headers.get(LENGTH))
    try:
        given = InferIn.model_validate_json(head)
    except ValidationError as error:
        raise Problem(422, told(error.errors(include_url=False, include_context=False, include_input=False))) from None
    images = _images(given, rest, registry.settings.max_images)
    wanted = given.outputs if given.outputs else [OutputIn.model_validate({"name": out}) for out in OUTPUTS]
    engine = _engine(request, name)
    answers = await ask_engine(engine, images, False)
    files = [
        (Upload("", image), answer) for image, answer in zip(images, answers, strict=True) if isinstance(image, bytes)
    ]
    await request.app.state.keep(engine, [upload for upload, _ in files], [answer for _, answer in files])
    for answer in answers:
        engine.metrics.answered(engine.name, answer.row)
    request.state.facts.update(model=engine.name, images=len(images), bytes=len(body))
    binary = bool(given.parameters.get("binary_data_output"))
    return _answer(engine, given.id, [_output(out, answers, binary) for out in wanted])


def _engine(request: Request, name: str) -> Engine:
    registry: Registry = request.app.state.registry
    return registry.get(name)


def _parted(body: bytes, length: str | None) -> tuple[bytes, bytes]:
    """(JSON, raw bytes after it). Raises Problem."""
    if length is None:
        return body, b""
    if not length.isdigit() or int(length) > len(body):
        raise Problem(422, "Inference-Header-Content-Length is not the length of the JSON that the body begins with.")
    return body[: int(length)], body[int(length) :]


def _images(given: InferIn, rest: bytes, limit: int) -> list[bytes | np.ndarray]:
    tensor = given.inputs[0]
    n, count = tensor.shape[0], math.prod(tensor.shape)
    if n > limit:
        raise Problem(413, f"There are more than {limit} images in the request: send at most {limit} at once.")
    raw = _raw(tensor, rest)
    if tensor.datatype == "UINT8" and len(tensor.shape) == 4 and tensor.shape[-1] == 3:
        return list(_pixels(tensor, raw, count))
    if tensor.datatype == "BYTES" and count == n:
        return list(_files(tensor, raw, n))
    raise Problem(422, "Expected BYTES [n], image files, or UINT8 [n, h, w, 3], pixels.")


def _raw(tensor: TensorIn, rest: bytes) -> bytes | None:
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        return None
    if not isinstance(size, int) or size != len(rest):
        raise Problem(422, f"binary_data_size is not the {len(rest)} bytes that follow the JSON.")
    return rest


def _pixels(tensor: TensorIn, raw: bytes | None, count: int) -> np.ndarray:
    if raw is not None:
        if len(raw) != count:
            raise Problem(422, f"{len(raw)} bytes are not the {count} pixel values of that shape.")
        return np.frombuffer(raw, np.uint8).reshape(tensor.shape)
    try:
        x = np.asarray(tensor.data)
    except ValueError:
        x = np.empty(0)
    if x.size != count or x.dtype.kind not in "iu" or x.min() < 0 or x.max() > 255:
        raise Problem(422, f"The data are not {count} whole numbers from 0 to 255.")
    return x.astype(np.uint8).reshape(tensor.shape)


def _files(tensor: TensorIn, raw: bytes | None, n: int) -> list[bytes]:
    if raw is not None:
        found: list[bytes] = []
        at = 0
        while at + 4 <= len(raw) and len(found) < n:  # each: its length in 4 bytes, little-endian, then itself
            (size,) = struct.unpack_from("<I", raw, at)
            found.append(raw[at + 4 : at + 4 + size])
            at += 4 + size
        if len(found) != n or at != len(raw):
            raise Problem(422, f"The binary data are not {n} elements, each with its length before it.")
        return found
    data = tensor.data or []
    if len(data) != n or not all(isinstance(x, str) for x in data):
        raise Problem(422, f"The data are not {n} texts in base64.")
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (binascii.Error, ValueError):
        raise Problem(422, "An element of BYTES data is not base64.") from None


def _output(out: OutputIn, answers: list[Answer], binary: bool) -> tuple[dict[str, Any], bytes]:
    """(the tensor as JSON, its raw bytes)."""
    kind, column = OUTPUTS[out.name]
    values = [answer.row[column] for answer in answers]
    tensor: dict[str, Any] = {"name": out.name, "datatype": kind, "shape": [len(values)]}
    if kind == "BYTES":
        values = [value or "" for value in values]
    if not bool(out.parameters.get("binary_data", binary)):
        return tensor | {"data": values}, b""
    if kind == "BYTES":
        raw = b"".join(struct.pack("<I", len(x)) + x for x in (value.encode() for value in values))
    else:
        raw = np.array([math.nan if value is None else value for value in values], NUMPY[kind]).tobytes()
    return tensor | {"parameters": {"binary_data_size": len(raw)}}, raw


def _answer(engine: Engine, given: str | None, outputs: list[tuple[dict[str, Any], bytes]]) -> Response:
    said = {"model_name": engine.name, "model_version": engine.digest, "outputs": [tensor for tensor, _ in outputs]}
    head = json.dumps(said if given is None else said | {"id": given}).encode()
    raw = b"".join(data for _, data in outputs)
    if not any("parameters" in tensor for tensor, _ in outputs):
        return Response(head, media_type="application/json")
    return Response(head + raw, headers={LENGTH: str(len(head))}, media_type="application/octet-stream")

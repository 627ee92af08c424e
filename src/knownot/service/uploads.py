"""A request's images, in the three forms that are taken: multipart, JSON with base64, or one image's bytes."""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import dataclass, field

from fastapi import Request
from pydantic import BaseModel, Field, ValidationError
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from ..images.names import printable
from .problems import Problem, told
from .settings import Settings

BINARY = "application/octet-stream"


@dataclass(frozen=True)
class Upload:
    """One image that was sent. data: the file's bytes; error: why there are none."""

    id: str
    data: bytes
    error: str | None = None


class ImageIn(BaseModel, extra="forbid"):
    data: str = Field(description="The image file in base64, or a data: URI.")
    id: str | None = Field(None, description="Comes back in the verdict.", max_length=1000)


class PredictIn(BaseModel, extra="forbid"):
    images: list[str | ImageIn] = Field(min_length=1, description="Image files in base64, or objects with an id.")


BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "additionalProperties": False,
                "properties": {
                    "images": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
                },
            }
        },
        BINARY: {"schema": {"type": "string", "format": "binary"}},
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "application/json": {"schema": {"$ref": "#/components/schemas/PredictIn"}},
    },
}


async def read_body(request: Request, settings: Settings) -> bytes:
    """Raises Problem 408, 413 (the guard's), 415; ClientDisconnect."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "Content-Encoding is not read: send the body as it is. Images are compressed already.")
    parts = []
    try:
        async with asyncio.timeout(settings.timeout):
            async for part in request.stream():
                parts.append(part)
    except TimeoutError:
        raise Problem(408, f"The body did not arrive within {settings.timeout:g} s.", {"Connection": "close"}) from None
    return b"".join(parts)


async def read_uploads(request: Request, settings: Settings) -> list[Upload]:
    """The images of a request, at least one. Raises Problem 400, 408, 413, 415, 422."""
    media, options = parse_options_header(request.headers.get("content-type"))
    kind = media.decode("latin-1").lower()
    if kind == "multipart/form-data":
        found = _from_multipart(await read_body(request, settings), options.get(b"boundary"), settings.max_images)
    elif kind == "application/json":
        found = _from_json(await read_body(request, settings))
    elif kind == BINARY or kind.startswith("image/"):
        found = [Upload("#0", await read_body(request, settings))]
    else:
        raise Problem(415, _media_words(kind))
    if not found:
        raise Problem(422, "There is no image in the request; expected at least one.")
    if len(found) > settings.max_images:
        raise _too_many(settings.max_images)
    return found


def _too_many(limit: int) -> Problem:
    return Problem(413, f"There are more than {limit} images in the request: send at most {limit} at once.")


def _media_words(kind: str) -> str:
    words = "Content-Type says how to read a body: multipart/form-data, application/json, image/* or "
    words += f"{BINARY} for the bytes of one image."
    if kind == "application/x-www-form-urlencoded":
        words += f" (curl --data-binary says another type by itself: add -H 'Content-Type: {BINARY}', or use -F.)"
    return words


def _from_json(body: bytes) -> list[Upload]:
    try:
        given = PredictIn.model_validate_json(body)
    except ValidationError as error:
        raise Problem(422, told(error.errors(include_url=False, include_context=False, include_input=False))) from None
    items = [ImageIn(data=item, id=None) if isinstance(item, str) else item for item in given.images]
    return [_decode_upload(item, i) for i, item in enumerate(items)]


def _decode_upload(item: ImageIn, i: int) -> Upload:
    name, text = f"#{i}" if item.id is None else printable(item.id), item.data
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return Upload(name, base64.b64decode("".join(text.split()), validate=True))
    except (binascii.Error, ValueError):
        return Upload(name, b"", "not base64")


@dataclass
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)


class _Parts:
    """The parts of a multipart body, kept in memory: the body was limited before, and nothing touches a disk."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.whole = False
        self._name, self._value = bytearray(), bytearray()

    def callbacks(self) -> dict[str, object]:
        names = ("part_begin", "part_data", "header_field", "header_value", "header_end", "end")
        return {f"on_{name}": getattr(self, name) for name in names}

    def part_begin(self) -> None:
        self.parts.append(_Part())

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self.parts[-1].headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def end(self) -> None:
        self.whole = True


def _from_multipart(body: bytes, boundary: bytes | None, limit: int) -> list[Upload]:
    if not boundary:
        raise Problem(422, "Content-Type: multipart/form-data says no boundary.")
    read = _Parts()
    try:
        parser = MultipartParser(boundary, read.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except MultipartParseError:
        read.whole = False
    if not read.whole:
        raise Problem(422, "The multipart body is cut off, or its boundary is not the one that Content-Type says.")
    if len(read.parts) > limit:
        raise _too_many(limit)
    return [_upload(part, i) for i, part in enumerate(read.parts)]


def _upload(part: _Part, i: int) -> Upload:
    _, options = parse_options_header(part.headers.get(b"content-disposition"))
    name = options.get(b"filename")
    if name is None:
        raise Problem(422, f"Part {i} of the form is no file: send images as files, curl -F images=@photo.jpg")
    if not name and not part.data:
        raise Problem(422, f"No file was chosen in part {i} of the form.")
    return Upload(printable(name.decode("utf-8", "replace"))[:1000] or f"#{i}", bytes(part.data))

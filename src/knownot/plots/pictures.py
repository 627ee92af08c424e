"""Small pictures within a page: thumbnails as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from PIL import Image

from ..errors import InputError
from .words import visible

Thumb = bytes | np.ndarray  # a PNG, JPEG or WebP file, or uint8 [h, w], [h, w, 1] or [h, w, 3]

SIDE = 112  # longer side of an embedded thumbnail
HEAVY = 8_000  # bytes: a thumbnail that comes as a larger file is made smaller
FORMATS = ("PNG", "JPEG", "WEBP")


def pixels_of(thumb: Thumb) -> Image.Image:
    """Raises InputError for what is neither an image file nor an array of pixels."""
    try:
        if isinstance(thumb, bytes):
            return Image.open(io.BytesIO(thumb), formats=FORMATS)
        if thumb.dtype != np.uint8:
            raise TypeError("not uint8")
        return Image.fromarray(thumb[..., 0] if thumb.ndim == 3 and thumb.shape[2] == 1 else thumb)
    except (OSError, TypeError, ValueError, IndexError) as error:
        what = f"{len(thumb)} bytes" if isinstance(thumb, bytes) else f"{thumb.dtype} {thumb.shape}"
        raise InputError(
            f"A thumbnail must be a PNG or JPEG file, or uint8 [h, w] or [h, w, 3]; given: {what} ({error})."
        ) from error


def data_uri(thumb: Thumb, side: int = SIDE) -> str:
    """A thumbnail as the address of an `<img>`: its own file when small, else at most `side` pixels wide and high."""
    image = pixels_of(thumb)
    if isinstance(thumb, bytes) and len(thumb) <= HEAVY:
        return _uri(thumb, image.format or "")
    if max(image.size) > side:
        image.thumbnail((side, side))
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    buffer = io.BytesIO()
    form = "PNG" if max(image.size) <= 48 else "JPEG"
    image.save(buffer, form, **({"optimize": True} if form == "PNG" else {"quality": 82}))
    return _uri(buffer.getvalue(), form)


def _uri(file: bytes, form: str) -> str:
    return f"data:image/{form.lower()};base64,{base64.b64encode(file).decode('ascii')}"


def gallery(cards: Sequence[tuple[Thumb | str, str, str]], sure: Sequence[float] = ()) -> Markup:
    """Small pictures with words: (thumbnail, or its data URI; the first line; the second line), in the order given.

    sure: how sure the classifier is of each, by which a page can sort them.
    """
    items = []
    for i, (thumb, first, second) in enumerate(cards):
        uri = thumb if isinstance(thumb, str) else data_uri(thumb)
        if not uri.startswith("data:image/"):
            raise InputError(f"A picture of a gallery must be a thumbnail or its data URI; given: {uri[:40]!r}.")
        items.append(
            Markup(
                '<li{}><img src="{}" alt="" width="80" height="80"><bdi class="id">{}</bdi><span>{}</span></li>'
            ).format(Markup(' data-sure="{}"').format(sure[i]) if sure else "", uri, visible(first), visible(second))
        )
    return Markup('<ul class="pictures">{}</ul>').format(Markup("").join(items))

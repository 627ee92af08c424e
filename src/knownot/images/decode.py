"""From a file or its bytes to pixels: uint8 RGB [h, w, 3], or the reason why not.

What is done, for all formats alike: first frame or page; EXIF orientation applied; transparency composited on
white; 16-bit greys divided by 257 (Pillow itself keeps the high byte of 16-bit colour: at most one level
away); CMYK and YCCK by Pillow's conversion; greys and palettes to RGB; colour profiles ignored. A `Preprocess` says
otherwise of orientation, background and depth. Formats without a fixed value range (32-bit integers, floats, signed
ones) are refused, since any scaling of them would be a guess, and so are camera raw files, of which Pillow reads the
preview, and files that are damaged (see `damage`).
"""

from __future__ import annotations

import io
import os
import re
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..arrays import Preprocess
from .damage import damage, jpeg_pixels
from .file_types import CONVERT, is_not, raw_kind, sniff
from .limits import Timed, TooMuch, in_flight, reduced
from .silence import quiet

MAX_PIXELS = 178_956_970  # where Pillow by default refuses too: half a gigabyte of RGB
STRIP = 4_000_000  # pixels of a large image that are converted at once
ORIENTATION = 0x0112  # EXIF tag

# Formats that are told by their content. None of them starts another program (as EPS would).
PLUGINS = ("Png", "Jpeg", "Mpo", "WebP", "Bmp", "Gif", "Tiff", "Ppm", "Jpeg2K", "Avif", "Ico")
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "HEIF")
CHECKED = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "AVIF")  # whose files tell of damage
NAMES = {"MPO": "JPEG", "WEBP": "WebP"}


class Unreadable(Exception):
    """Why one image cannot be read, for its row."""


@dataclass(frozen=True)
class Traits:
    """Of one image: what could be read in several ways."""

    turned: bool = False  # its EXIF tag says that it does not lie upright
    transparent: bool = False  # it has pixels that are not opaque
    brightest: int = 0  # of its values of more than 8 bits; 0 for the usual 8


_Read = Callable[[Any, Any], Any]


def decode(
    source: str | os.PathLike[str] | bytes, limit: int = MAX_PIXELS, way: Preprocess | None = None
) -> np.ndarray:
    """uint8 [h, w, 3] of a file, given as its path or its bytes. limit: of pixels, against decompression bombs. way:
    what it says of orientation, background and depth counts.

    Raises Unreadable, with a reason for people, whatever is wrong; warns of nothing, and leaves Pillow's
    settings as they are.
    """

    def read(image: Any, file: Any) -> np.ndarray:
        whole = image.size
        with in_flight(reduced(image, limit)):
            return _pixels(image, file if image.size == whole else None, way or Preprocess(), close=True)

    return _opened(source, read)


def traits_of(source: Any) -> Traits:
    """What of a file (path or bytes), a Pillow image or an array could be read in several ways. Raises Unreadable."""
    if isinstance(source, np.ndarray):
        deep = source.dtype == np.uint16
        if source.ndim != 3 or source.shape[-1] != 4:
            return Traits(brightest=int(source.max()) if deep else 0)
        colours, alpha = source[..., :3], source[..., 3]
        brightest = int(colours.max()) if deep else 0
        return Traits(False, bool((alpha < (int(alpha.max()) if deep else 255)).any()), brightest)
    if isinstance(source, str | os.PathLike | bytes):

        def read(image: Any, file: Any) -> Traits:
            with in_flight(reduced(image, MAX_PIXELS)):
                return _traits(image)

        return _opened(source, read)
    return _traits(source)


def size_of(source: str | os.PathLike[str] | bytes) -> tuple[int, int]:
    """(height, width) of an image after EXIF orientation, from its header. Raises Unreadable."""
    return _opened(source, lambda image, file: _size(image))


def _opened(source: str | os.PathLike[str] | bytes, read: _Read) -> Any:
    if isinstance(source, bytes | bytearray | memoryview):
        return _read(io.BytesIO(source), read)
    try:
        kind = os.stat(source).st_mode
        if stat.S_ISDIR(kind):
            listed = os.access(source, os.R_OK | os.X_OK)
            raise Unreadable("a folder, not an image file" if listed else "a folder that may not be listed")
        if not stat.S_ISREG(kind):  # opening a pipe would wait for ever
            raise Unreadable("not a regular file")
        with open(source, "rb") as file:
            return _read(file, read)
    except FileNotFoundError:
        link = " (a broken link)" if os.path.islink(source) else ""
        raise Unreadable(f"no such file{link}") from None
    except PermissionError:
        raise Unreadable("no permission to read it") from None
    except (OSError, ValueError) as e:  # a disk or network error, a name with a zero byte
        raise Unreadable(f"cannot be opened: {_short(e)}") from e


def _read(file: Any, read: _Read) -> Any:
    from PIL import Image

    head = file.read(512)
    file.seek(0)
    if not head:
        raise Unreadable("empty file (0 bytes)")
    name = sniff(head)
    timed: Any = Timed(file)
    with quiet():
        try:
            with Image.open(timed, formats=_formats()) as image:
                if kind := raw_kind(image, head):
                    raise Unreadable(f"{kind}, a camera's raw file, of which only the preview could be read: {CONVERT}")
                return read(image, file)
        except Unreadable:
            raise
        except TooMuch as e:
            raise Unreadable(str(e)) from None
        except Image.DecompressionBombError as e:
            found = re.search(r"\((\d+) pixels\).* limit of (\d+)", str(e))
            how = f"{int(found[1]):,} pixels (limit {int(found[2]):,})" if found else _short(e)
            raise Unreadable(f"too large: {how}") from None
        except Image.UnidentifiedImageError:
            raise Unreadable(_unidentified(head, name)) from None
        except MemoryError:
            raise Unreadable("too large for the memory left") from None
        except Exception as e:  # Pillow's plugins raise nearly anything for a broken file
            cut = "truncat" in str(e).lower() or isinstance(e, EOFError) or _webp_cut(file, head, name)
            what = "truncated" if cut else "corrupt"
            raise Unreadable(f"{what} {name or 'image'}: {_short(e)}") from e


def _unidentified(head: bytes, name: str | None) -> str:
    if name == "HEIC":
        return "HEIC, which Pillow does not read: convert it to JPEG, or install and register pillow-heif"
    if name == "TIFF":
        return "a kind of TIFF that is not read, or a corrupt one: convert it to PNG"
    if name:
        return f"corrupt {name}: its header cannot be read"
    return is_not(head)


def _webp_cut(file: Any, head: bytes, name: str | None) -> bool:
    """Whether a WebP file is shorter than it says; its decoder does not tell."""
    return name == "WebP" and file.seek(0, os.SEEK_END) < 8 + int.from_bytes(head[4:8], "little")


def _short(e: BaseException) -> str:
    said = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
    text = " ".join(said.split()) or type(e).__name__
    return text if len(text) <= 120 else text[:117] + "..."


_loading = threading.Lock()


def _formats() -> list[str]:
    with _loading:  # plugins register themselves on import; threads must not see half of them
        return _registered()


@cache
def _registered() -> list[str]:
    import importlib

    from PIL import Image

    for plugin in PLUGINS:
        with suppress(ImportError):  # AVIF came with Pillow 11.3
            importlib.import_module(f"PIL.{plugin}ImagePlugin")
    return [name for name in FORMATS if name in Image.OPEN]  # HEIF when pillow-heif has registered it


def _size(image: Any) -> tuple[int, int]:
    width, height = image.size
    if image.format == "TIFF":  # of which some versions of Pillow swap the size on opening
        width, height = image.tag_v2[256], image.tag_v2[257]
    return (width, height) if _orientation(image) in (5, 6, 7, 8) else (height, width)


def _orientation(image: Any) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a broken EXIF block is no reason to refuse the pixels
        return 1


def _pixels(image: Any, file: Any, way: Preprocess, close: bool = False) -> np.ndarray:
    """file: None where Pillow has to decode, as for JPEG at a reduced size. close: the image, before it is turned."""
    rgb, why = None, ""
    if file is not None and image.format in CHECKED:
        file.seek(0)
        data = file.read()
        why = damage(data, image)
        if not why and image.format in ("JPEG", "MPO"):
            rgb, why = jpeg_pixels(data, image.mode, image.size)
        if why:
            raise Unreadable(f"damaged {NAMES.get(image.format, image.format)}: {why}")
    if rgb is None:
        image.load()
        rgb = _rgb(image, way)
    orientation = _orientation(image) if way.orientation == "turned" else 1
    if close:
        image.close()  # there is no third copy
    return np.ascontiguousarray(turned(rgb, orientation))


def _traits(image: Any) -> Traits:
    mode, alpha = image.mode, False
    if mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        alpha = int(np.asarray(image.convert("RGBA"))[..., 3].min()) < 255
    deep = int(np.asarray(image).max()) if _is_deep(image) and image.width * image.height else 0
    return Traits(_orientation(image) != 1, alpha, deep)


def _is_deep(image: Any) -> bool:
    """Whether it has greys of 9 to 16 bits; older versions of Pillow call those "I"."""
    return bool(image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")))


def turned(x: np.ndarray, orientation: int) -> np.ndarray:
    """An image [h, w, ...] stored with this EXIF orientation (1 to 8), upright."""
    if orientation in (5, 6, 7, 8):
        x = x.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        x = x[::-1]
    if orientation in (2, 3, 6, 7):
        x = x[:, ::-1]
    return x


def _rgb(image: Any, way: Preprocess) -> np.ndarray:
    """uint8 [h, w, 3] of a loaded Pillow image; a large one in strips, so that it is in memory twice and not more."""
    (width, height), bits, deep = image.size, _tiff(image), _is_deep(image)
    if width * height <= STRIP:
        return _strip_rgb(image, way, deep, bits)
    x, rows = np.empty((height, width, 3), np.uint8), max(1, STRIP // width)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        x[top : top + rows] = _strip_rgb(strip, way, deep, bits)
    return x


def _strip_rgb(image: Any, way: Preprocess, deep: bool, tiff: tuple[int, bool]) -> np.ndarray:
    mode, (bits, inverted) = image.mode, tiff
    if deep:
        grey = np.asarray(image).astype(np.uint32)
        depth = bits if 8 < bits < 16 else way.depth
        grey = (1 << (bits or 16)) - 1 - grey if inverted else grey
        return _grey16(grey, image.info.get("transparency"), depth, way.background)
    if mode in ("I", "F"):
        kind = "32-bit integer" if mode == "I" else "floating-point"
        raise Unreadable(f"{kind} pixels have no fixed range from black to white: convert it to 8 or 16 bits")
    if mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        return on(np.asarray(image.convert("RGBA")), way.background)
    return np.asarray(image if mode == "RGB" else image.convert("RGB"))


def _tiff(image: Any) -> tuple[int, bool]:
    """(bits per value that a TIFF says, whether it says that 0 is white); (0, False) for other formats. Raises
    Unreadable for signed values."""
    if image.format != "TIFF":
        return 0, False
    tags = image.tag_v2
    bits = int((tags.get(258) or (1,))[0])
    signed = 2 in tuple(tags.get(339) or ())
    if signed:
        raise Unreadable("signed pixels have no fixed range from black to white: convert it to 8 or 16 bits, unsigned")
    return bits, int(tags.get(262, 1)) == 0


def _grey16(grey: np.ndarray, transparent: Any, depth: int, background: str) -> np.ndarray:
    white = (1 << depth) - 1
    if isinstance(transparent, int) and background != "ignored":
        grey = np.where(grey == transparent, white if background == "white" else 0, grey)
    return np.repeat(shallow(grey, depth)[..., None], 3, axis=-1)


def shallow(deep: np.ndarray, depth: int) -> np.ndarray:
    """Pixels of so many bits as uint8: white is the largest that they can be, and what is brighter is white."""
    white = (1 << depth) - 1
    return ((np.minimum(deep, white).astype(np.uint32) * 510 + white) // (2 * white)).astype(np.uint8)


def on(rgba: np.ndarray, background: str) -> np.ndarray:
    """[..., 4] uint8 -> [..., 3] uint8: colour * alpha + background * (1 - alpha), rounded to the nearest."""
    if background == "ignored":
        return rgba[..., :3]
    alpha = rgba[..., 3:].astype(np.uint16)
    under = 255 if background == "white" else 0
    return ((rgba[..., :3] * alpha + under * (255 - alpha) + 127) // 255).astype(np.uint8)


def open_pil(image: Any, way: Preprocess | None = None) -> np.ndarray:
    """uint8 [h, w, 3] of a Pillow image object. Raises Unreadable."""
    with quiet():
        try:
            return _pixels(image, None, way or Preprocess())
        except Unreadable:
            raise
        except Exception as e:
            raise Unreadable(f"corrupt image: {_short(e)}") from e

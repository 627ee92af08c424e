"""Damage that Pillow is silent about: JPEG files are decoded by libjpeg-turbo's own interface, which tells of it; the
check sums of PNG and TIFF are looked at; and holes of zeros, as interrupted downloads and broken disks leave them, are
looked for in what is compressed, where no encoder writes them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

# What libjpeg warns of and goes on, with pixels that are grey or shifted. "Premature end" is left to Pillow, which
# tells a missing end marker, that harms nothing, from missing rows.
DAMAGE = re.compile(
    r"premature end of data segment|bad Huffman code|found marker 0x\w+ instead of RST|Inconsistent progression|"
    r"Invalid SOS parameters"
)
EXTRA = re.compile(r"(\d+) extraneous bytes before marker 0xd[0-79]")
PADDING = 16  # bytes before the end marker that some cameras leave; more are what a decoder did not understand
# Zeros in a row: an even picture gives the encoders of WebP one for each 10,000 pixels, and those of JPEG with tables
# made for it one for each 170; all others are 16 at most.
HOLE, EVEN, EVEN_JPEG = 64, 4_000, 64


def damage(data: bytes, image: Any) -> str:
    """What is damaged of a file that Pillow has opened as `image`, "" when nothing is seen."""
    pixels = image.width * image.height
    if image.format == "PNG":
        return _png(data)
    if image.format in ("JPEG", "MPO"):
        return _jpeg(data, pixels)
    if image.format == "TIFF":
        return _tiff(data, image.tag_v2, 32 * pixels)
    if image.format == "WEBP":
        parts = [part for kind, part in _riff(data) if kind in (b"VP8 ", b"VP8L")]
        return _zeros(max(map(_hole(pixels // EVEN), parts), default=0))
    if image.format == "AVIF":
        return _zeros(_hole(pixels // EVEN)(data) and len(data) - len(data.rstrip(b"\0")))
    return ""


def _hole(more: int) -> Any:
    """Tells whether so many more zeros than `HOLE` stand in a row."""
    return lambda part: HOLE + more if part.find(bytes(HOLE + more)) >= 0 else 0


def _zeros(n: int) -> str:
    return (
        f"at least {n:,} bytes in a row of it are zeros, as an interrupted download leaves them"
        if n > HOLE // 2
        else ""
    )


def _png(data: bytes) -> str:
    """Which chunk of a PNG is not what its check sum says."""
    at = 8
    while at + 12 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end = at + 8 + size
        critical = kind[:1].isupper()
        if critical and end + 4 <= len(data) and zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4]):
            return f"the check sum of its part {kind.decode('latin-1')} is wrong"
        if kind == b"IEND":
            break
        at = end + 4
    return ""


def _jpeg(data: bytes, pixels: int) -> str:
    """Zeros where the picture should be, or should end."""
    begin, even = _scan(data)
    if begin < 0:
        return ""
    end = data.find(b"\xff\xd9", begin)
    if end < 0 and (n := len(data) - len(data.rstrip(b"\0"))) > HOLE // 4:
        return f"its last {n:,} bytes are zeros, as an interrupted download leaves them"
    return _zeros(_hole(pixels // (EVEN_JPEG if even else EVEN))(data[begin:end]))


def _scan(data: bytes) -> tuple[int, bool]:
    """(where the first scan of a JPEG begins, -1 without; whether zeros are the code of an even block of light)."""
    at, even = 2, True
    while at + 4 <= len(data) and data[at] == 0xFF:
        kind, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if kind == 0xFF:  # padding
            at += 1
            continue
        if kind == 0xC4:  # Huffman tables: kind and number, 16 counts, values; 0x10 is that of light
            tables = data[at + 4 : at + 2 + size]
            while len(tables) > 17:
                n = sum(tables[1:17])
                even = not tables[17] & 15 if tables[0] == 0x10 else even
                tables = tables[17 + n :]
        at += 2 + size
        if kind == 0xDA:
            return at, even
    return -1, even


def _riff(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _tiff(data: bytes, tags: Any, most: int) -> str:
    """Which strip or tile of a TIFF with deflate is not what its check sum says; libtiff only prints it. most: bytes
    that are looked at, against what unpacks without end."""
    if tags.get(259) not in (8, 32946):
        return ""
    begins, sizes = (_listed(tags.get(one) or tags.get(other)) for one, other in ((273, 324), (279, 325)))
    for i, (begin, size) in enumerate(zip(begins, sizes, strict=False)):
        unpacker, rest = zlib.decompressobj(), data[begin : begin + size]
        try:
            while rest and most > 0:
                most -= len(unpacker.decompress(rest, 1 << 20))
                rest = unpacker.unconsumed_tail
        except zlib.error:
            return f"part {i + 1} of {len(begins)} is not what its check sum says"
    return ""


def _listed(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else () if value is None else (value,)


def jpeg_pixels(data: bytes, mode: str, size: tuple[int, int]) -> tuple[np.ndarray | None, str]:
    """(uint8 [h, w, 3] or None when Pillow is to decode it, what is damaged, "" when nothing is seen).

    mode: Pillow's, "L" or "RGB"; others are only looked at for damage. size: (width, height) as Pillow read it, which
    the limits were held against: a file that this decoder reads otherwise is Pillow's. The pixels are those that Pillow
    gives.
    """
    decoder = _decoder()
    if decoder is None:
        return None, ""
    colours = mode in ("RGB", "L")
    space = "RGB" if colours else "CMYK"
    try:
        height, width, *_ = decoder.decode_jpeg_header(data)
        if (width, height) != size:
            return None, ""
        pixels = decoder.decode_jpeg(data, colorspace=space)
    except ValueError as error:
        said = " ".join(str(error).split()).removeprefix("Corrupt JPEG data: ")
        extra = EXTRA.search(said)
        if DAMAGE.search(said) or (extra and int(extra[1]) > PADDING):
            return None, said
        return None, ""
    except Exception:  # whatever else it cannot do is Pillow's
        return None, ""
    return (np.asarray(pixels) if colours else None), ""


def _decoder() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg

"""JPEG files of few bytes that cost much: many scans, each over the whole picture, and colours in scans of their own,
whose coefficients a decoder keeps until the last one has come."""

import io
import struct

from PIL import Image


def many_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive grey picture whose last scan, of some bytes, comes again and again; with `scans` in all."""
    out = io.BytesIO()
    Image.new("L", (width, height), 77).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    again = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + again * (scans - data.count(b"\xff\xda")) + b"\xff\xd9"


def separate_scans(width: int, height: int) -> bytes:
    """A grey baseline picture with a scan for each of three colours: two bits a block, for "no difference" and "the end
    of this block"."""

    def segment(marker: int, data: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data

    blocks = -(-width // 8) * -(-height // 8)
    frame = struct.pack(">BHHB", 8, height, width, 3) + b"".join(bytes([i, 0x11, 0]) for i in (1, 2, 3))
    code = bytes([1, *[0] * 15, 0])  # one code of one bit, for 0
    parts = [segment(0xDB, b"\0" + b"\1" * 64), segment(0xC0, frame), segment(0xC4, b"\x00" + code + b"\x10" + code)]
    for i in (1, 2, 3):
        parts += [segment(0xDA, bytes([1, i, 0, 0, 63, 0])), bytes(-(-blocks // 4))]
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"


def with_thumbnail(data: bytes, thumbnail: bytes) -> bytes:
    """A JPEG file with another one in an application segment of its header, and after its end."""
    inside = thumbnail[:60_000]
    return data[:2] + struct.pack(">BBH", 0xFF, 0xED, len(inside) + 2) + inside + data[2:] + thumbnail

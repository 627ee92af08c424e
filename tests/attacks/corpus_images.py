"""Broken images of many kinds, made afresh: each with a part of the reason that its row has to give."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
PHOTO = np.asarray(Image.fromarray(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((96, 72)))


def good(format: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PHOTO).save(out, format, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, bits: int = 8, colour: int = 2) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def damaged(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def flat(image: Image.Image, format: str) -> bytes:
    out = io.BytesIO()
    image.save(out, format)
    return out.getvalue()


def contents() -> dict[str, tuple[bytes, str]]:
    """{file name: (its bytes, part of the reason)}"""
    jpeg, progressive = good("JPEG"), good("JPEG", progressive=True)
    whole, webp, gif, tiff, bmp = good("PNG"), good("WEBP", lossless=True), good("GIF"), good("TIFF"), good("BMP")
    zeros = zlib.compress(bytes(20_000 * 2501), 9)  # 400 million pixels in 50 kB
    return {
        "empty.jpg": (b"", "empty file (0 bytes)"),
        "one-byte.png": (b"\x89", "not an image"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated JPEG"),
        "truncated-progressive.jpg": (progressive[: len(progressive) // 2], "truncated JPEG"),
        "truncated.png": (whole[: len(whole) // 2], "truncated PNG"),
        "truncated.webp": (webp[: len(webp) // 2], "truncated WebP"),
        "truncated.gif": (gif[: len(gif) // 2], "truncated GIF"),
        "truncated.tif": (tiff[: len(tiff) // 2], "TIFF"),
        "truncated.bmp": (bmp[: len(bmp) // 2], "truncated BMP"),
        "header-only.jpg": (jpeg[:150], "JPEG"),
        "header-only.png": (whole[:33], "PNG"),
        "magic-only.jpg": (jpeg[:3], "JPEG"),
        "magic-only.gif": (gif[:6], "GIF"),
        "text.jpg": (b"Not found: the picture has moved.\n", "text, not an image"),
        "json.png": (b'{"error": 404}', "text, not an image"),
        "page.jpg": (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        "drawing.png": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        "paper.jpg": (b"%PDF-1.7\n%\xe2\xe3", "a PDF"),
        "archive.jpg": (b"PK\x03\x04" + bytes(60), "a ZIP archive"),
        "packed.jpg": (b"\x1f\x8b\x08\x00" + bytes(60), "gzip"),
        "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        "phone.heic": (b"\x00\x00\x00\x18ftypheic" + bytes(60), "HEIC"),
        "film.jpg": (b"\x00\x00\x00\x18ftypmp42" + bytes(60), "a video"),
        "array.png": (b"\x93NUMPY\x01\x00" + bytes(60), "a NumPy array file"),
        "table.jpg": (b"PAR1" + bytes(60), "a parquet file"),
        "mangled.jpg": (jpeg.decode("utf-8", "replace").encode(), "took it for text"),
        "noise.jpg": (bytes(RNG.integers(128, 256, 5000, dtype=np.uint8)), "not an image"),
        "zeros.png": (bytes(5000), "not an image"),
        "bomb-claimed.png": (png(60_000, 60_000), "too large: 3,600,000,000 pixels (limit "),
        "bomb-real.png": (png(20_000, 20_000, chunk(b"IDAT", zeros), bits=1, colour=0), "too large"),
        "bomb.gif": (damaged(gif, 6, b"\xff\xff\xff\xff"), "too large"),
        "bomb.jpg": (damaged(jpeg, jpeg.index(b"\xff\xc0") + 5, b"\xff\xdc\xff\xdc"), "too large"),
        "text-bomb.png": (
            png(9, 9, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(30_000_000), 9))),
            "corrupt PNG",
        ),
        "no-width.png": (png(0, 9), "PNG"),
        "no-pixels.png": (png(9, 9), "PNG"),
        "bad-checksum.png": (damaged(whole, 29, b"\0\0\0\0"), "PNG"),
        "bad-data.png": (damaged(whole, 60, b"\x55" * 400), "PNG"),
        "bad-colour-type.png": (damaged(whole, 25, b"\x05"), "PNG"),
        "bad-scan.jpg": (jpeg[: jpeg.index(b"\xff\xc0")] + jpeg[jpeg.index(b"\xff\xda") :], "JPEG"),
        "bad-offset.tif": (damaged(tiff, 4, b"\xff\xff\xff\x7f"), "TIFF"),
        "bad-body.webp": (damaged(webp, 12, b"VP8?" + bytes(30)), "WebP"),
        "bad-size.bmp": (damaged(bmp, 18, b"\xff\xff\xff\xff\xff\xff\xff\x7f"), "too large"),
        "bad-depth.bmp": (damaged(bmp, 28, b"\x07"), "BMP"),
        "bad.ico": (b"\x00\x00\x01\x00\x01\x00" + b"\xff" * 40, "ICO"),
        "bad.ppm": (b"P6\n9 x 255\n" + bytes(300), "PPM"),
        "integers.tif": (flat(Image.fromarray(np.zeros((4, 4), np.int32)), "TIFF"), "no fixed range"),
        "floats.tif": (flat(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "no fixed range"),
        "strip.png": (flat(Image.new("RGB", (200_000, 1)), "PNG"), "too elongated"),
    }


def corpus(folder: Path) -> dict[str, str]:
    """Write all kinds into `folder`; {path: part of the reason}."""
    expected = {}
    for name, (data, reason) in contents().items():
        (folder / name).write_bytes(data)
        expected[str(folder / name)] = reason

    def more(name: str, reason: str) -> Path:
        expected[str(folder / name)] = reason
        return folder / name

    more("folder.jpg", "a folder").mkdir()
    os.mkfifo(more("pipe.jpg", "not a regular file"))
    more("broken-link.jpg", "a broken link").symlink_to(folder / "nowhere")
    more("loop.jpg", "cannot be opened").symlink_to(folder / "loop.jpg")
    more("vanished.jpg", "no such file")
    more("zero\0byte.jpg", "cannot be opened")
    more("x" * 300 + ".jpg", "cannot be opened")
    return expected

"""JPEG files: decoded by libjpeg-turbo's own interface, which tells of damage where Pillow is silent."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

# What libjpeg warns of and goes on, with pixels that are grey or shifted. "Premature end" is left to Pillow, which
# tells a missing end marker, that harms nothing, from missing rows.
DAMAGE = re.compile(
    r"premature end of data segment|bad Huffman code|found marker 0x\w+ instead of RST|Inconsistent progression|"
    r"Invalid SOS parameters"
)
EXTRA = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
PADDING = 16  # bytes before the end marker that some cameras leave; more are what a decoder did not understand


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

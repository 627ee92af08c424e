"""What one image may cost, and all that are decoded at once: safe defaults, and one place to change them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ..errors import OptionError
from .jpeg_scans import scans_of

REDUCIBLE = 178_956_970  # pixels, up to which JPEG and JPEG 2000 are decoded at a reduced size
WEIGHTS = {"WEBP": 2.0, "AVIF": 2.0, "HEIF": 2.0, "JPEG2000": 2.5}  # memory per pixel while decoding, others: 1
STEPS = 3  # halvings that a JPEG decoder does
HEADER, PIECES = 64, 16  # bytes of a piece as headers are read in; one of so many pieces looks at the time
SCANS = 40  # of a JPEG of as many pixels as an image may have; smaller ones may have more. Cameras write 1, mozjpeg 10


class TooMuch(Exception):
    """Why an image costs too much, for its row."""


@dataclass(frozen=True)
class Limits:
    """pixels: of one image that is decoded at its full size (some 7 bytes of memory each; formats whose decoders need
    more count more). in_flight: of all that are decoded at once, in all threads; one image always may. seconds: of
    processor time to decode one image; None for no limit."""

    pixels: int = 50_000_000
    in_flight: int = 100_000_000
    seconds: float | None = 5.0


_limits = Limits()
_turn = threading.Condition()
_used = 0.0


def limits() -> Limits:
    """Those in force."""
    return _limits


def set_limits(**changed: Any) -> Limits:
    """Change what images may cost in this process; those in force before are returned. changed: fields of `Limits`."""
    global _limits
    before, names = _limits, Limits.__dataclass_fields__
    for name, value in changed.items():
        if name not in names:
            raise OptionError(f"There is no limit {name!r}. There are: {', '.join(names)}.")
        none = value is None and name == "seconds"
        if not none and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e15):
            raise OptionError(f"{name}={value!r}: expected a number above 0.")
    _limits = replace(_limits, **changed)
    return before


@contextmanager
def in_flight(weight: float) -> Iterator[None]:
    """Waits until so many pixels more may be decoded."""
    global _used
    with _turn:
        _turn.wait_for(lambda: _used == 0 or _used + weight <= _limits.in_flight)
        _used += weight
    try:
        yield
    finally:
        with _turn:
            _used -= weight
            _used = 0.0 if _used < 1 else _used
            _turn.notify_all()


def reduced(image: Any, most: int) -> float:
    """Tell an opened Pillow image to be decoded at a smaller size, where it is large and its format can; the weight of
    what is then decoded, in pixels. Raises TooMuch."""
    width, height = image.size
    n, pixels = width * height, _limits.pixels
    if n > most:
        raise TooMuch(f"too large: {width} x {height} pixels (limit {most:,})")
    if image.format in ("JPEG", "MPO"):
        return _reduced_jpeg(image, n, most)
    weight = WEIGHTS.get(image.format, 1.0)
    if image.format == "JPEG2000" and weight * n > pixels:
        steps = _halvings(n, pixels / weight, 32)
        if hasattr(type(image), "reduce") and n <= max(pixels, REDUCIBLE):
            image.reduce = steps
            return weight * (n >> 2 * steps)
    if weight * n > pixels:
        raise TooMuch(f"too large: {width} x {height} pixels (limit {int(pixels / weight):,})")
    return weight * n


def _reduced_jpeg(image: Any, n: int, most: int) -> float:
    (width, height), pixels = image.size, _limits.pixels
    most_scans = max(2, int(SCANS * pixels / n) + 1)
    scans = _scans(image.fp, most_scans)
    slow = "progressive" in image.info or scans > 1  # its coefficients are all kept, whatever the size
    if n > (1.25 * pixels if slow else max(pixels, REDUCIBLE)):
        raise TooMuch(f"too large: {width} x {height} pixels (limit {int(1.25 * pixels) if slow else most:,})")
    if scans >= most_scans:
        raise TooMuch(f"too slow: {scans:,} scans or more of {width} x {height} pixels")
    steps = _halvings(n, pixels / 3 if slow and 2 * n > pixels else pixels)
    if steps:
        image.draft(None, (max(1, width >> steps), max(1, height >> steps)))
    return float(image.size[0] * image.size[1] + (0.75 * n if slow else 0))


def _scans(file: Any, most: int) -> int:
    at = file.tell()
    file.seek(0)
    scans = scans_of(file.read(), most)
    file.seek(at)
    return scans


def _halvings(n: int, most: float, steps: int = STEPS) -> int:
    return next((k for k in range(steps + 1) if n >> 2 * k <= most), steps)


class Timed:
    """A file that can be read as long as its reader's thread has processor time left. Decoders read in pieces."""

    def __init__(self, file: Any) -> None:
        self._file, self._seconds, self._begin = file, _limits.seconds, time.thread_time()
        self._pieces = 0

    def read(self, size: int = -1) -> bytes:
        self._pieces += 1  # of a header there are dozens, of two bytes each: asking for the time takes longer
        look = size > HEADER or size < 0 or not self._pieces % PIECES
        if look and self._seconds is not None and time.thread_time() - self._begin > self._seconds:
            raise TooMuch(f"too slow: decoding took more than {self._seconds:g} s of processor time")
        data: bytes = self._file.read(size)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        place: int = self._file.seek(offset, whence)
        return place

    def tell(self) -> int:
        place: int = self._file.tell()
        return place

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self._file.readline(size)
        return line

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Whoever opened the file closes it."""

    def flush(self) -> None:
        pass

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

"""How many scans a JPEG file has: each walks over the whole picture, whatever few bytes it takes."""

from __future__ import annotations

import re

MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # all but stuffed zeros and restarts, which are within scans
ALONE = (0x01, 0xD8)  # markers without a length
SCAN, END = 0xDA, 0xD9
MOST = 100_000  # markers that are looked at; photos have some dozens


def scans_of(data: bytes, most: int = MOST) -> int:
    """The scans of the first picture of a file, counted as libjpeg reads them; those of thumbnails in its header and of
    what follows its end are not. `most` where it has as many or so many markers."""
    if data.count(b"\xff\xda") < 2:
        return 1
    scans, at = 0, 2
    for _ in range(MOST):
        found = MARKER.search(data, at)
        if found is None or found[1][0] == END:
            return scans
        at = found.end()
        if found[1][0] not in ALONE:
            at += int.from_bytes(data[at : at + 2], "big")
        scans += found[1][0] == SCAN
        if scans >= most:
            break
    return most

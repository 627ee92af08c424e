"""A file in the place of another, at once: whoever reads it sees the old one or the new one, whole."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path


def put(path: Path, data: bytes) -> None:
    """`data` as the file `path`, through a draft beside it that takes its place when it is on the disk.

    A link stays one: what it leads to is replaced. Permissions stay. What is no regular file (a pipe, /dev/stdout) is
    written to as it is. Raises OSError; what was there is then as it was, and no draft is left.
    """
    place = Path(os.path.realpath(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        path.write_bytes(data)  # a folder says so itself
        return
    if place.exists() and not os.access(place, os.W_OK):  # which a new file in its place would pass over
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    draft = place.with_name(f".{place.name[:200]}.{secrets.token_hex(6)}.new")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if place.exists():
            draft.chmod(place.stat().st_mode & 0o777)
        os.replace(draft, place)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise

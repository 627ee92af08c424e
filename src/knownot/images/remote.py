"""Files behind URLs (s3://, gs://, hf://, …): listed and read, a broken connection tried again."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from ..errors import ImagesError, missing_extra

T = TypeVar("T")

AT_ONCE = 1 << 20  # bytes that are asked for
TRIES, WAIT = 4, 0.2  # seconds before the first new try, twice as many before each further one


def is_url(thing: Any) -> bool:
    """Whether it names a file elsewhere."""
    return isinstance(thing, str) and "://" in thing


def read_url(url: str) -> bytes:
    """The bytes of a file. Raises FileNotFoundError when there is none, ImagesError when it cannot be had."""
    fs, path = _filesystem(url)

    def read() -> bytes:
        with fs.open_input_stream(path) as file:
            return bytes(file.read())

    return patiently(read, url)


def open_url(url: str) -> io.BufferedReader:
    """A file to read from, which asks for a megabyte at a time."""
    fs, path = _filesystem(url)
    return io.BufferedReader(fs.open_input_file(path), AT_ONCE)


def listed(url: str) -> list[str]:
    """The URLs of all files below a folder, or [url] for a file, sorted. Raises ImagesError."""
    import pyarrow.fs as pf

    fs, path = _filesystem(url)

    def look() -> list[str]:
        if fs.get_file_info(path).type == pf.FileType.File:
            return [url]
        found = fs.get_file_info(pf.FileSelector(path, recursive=True))
        head, _, query = url.partition("?")
        return sorted(
            head.rstrip("/") + info.path[len(path.rstrip("/")) :] + ("?" + query if query else "")
            for info in found
            if info.type == pf.FileType.File
        )

    try:
        return patiently(look, url)
    except FileNotFoundError as error:
        raise ImagesError(f"There is no file or folder {url!r}.") from error


def patiently(work: Callable[[], T], url: str) -> T:
    """work(), tried again where the connection breaks. Raises ImagesError after TRIES."""
    for left in range(TRIES - 1, -1, -1):
        try:
            return work()
        except FileNotFoundError:
            raise
        except OSError as error:
            if not left:
                why = (str(error).splitlines() or [type(error).__name__])[0][:300]
                raise ImagesError(
                    f"{url.partition('?')[0]!r} cannot be read, tried {TRIES} times: {why}. Is the address right, and "
                    "are you allowed to read it? A run that was stopped goes on where it was."
                ) from error
        time.sleep(WAIT * 2 ** (TRIES - 1 - left))
    raise AssertionError


@cache
def _system(scheme_and_host: str, query: str) -> Any:
    import pyarrow as pa
    import pyarrow.fs as pf

    try:
        return pf.FileSystem.from_uri(scheme_and_host + ("?" + query if query else ""))[0]
    except (pa.ArrowException, OSError, ValueError) as own:
        scheme = scheme_and_host.partition("://")[0]
        try:
            import fsspec

            return pf.PyFileSystem(pf.FSSpecHandler(fsspec.filesystem(scheme)))
        except (ImportError, ValueError) as error:
            raise ImagesError(f"Files of {scheme}:// cannot be read here: {own}; {error}") from error


def _filesystem(url: str) -> tuple[Any, str]:
    """(the pyarrow file system, the path in it)."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise missing_extra("pyarrow", "parquet", "Reading URLs") from None
    head, _, query = url.partition("?")
    scheme, _, rest = head.partition("://")
    host, _, path = rest.partition("/")
    bucket = host.rpartition("@")[2]
    return _system(f"{scheme}://{host}", query), f"{bucket}/{path}"

"""Silence about Pillow's warnings, safe among threads."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

PILLOW = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)

_filling: list[bool] = []  # what Pillow was set to before


def _strict(on: bool) -> None:
    from PIL import ImageFile

    if on:
        _filling.append(ImageFile.LOAD_TRUNCATED_IMAGES)
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    elif _filling.pop():
        ImageFile.LOAD_TRUNCATED_IMAGES = True


_quiet = threading.Lock()
_inside: list[Any] = []  # one entry per thread inside `quiet`: where its filter is


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, warnings raised in Pillow's modules (a strange EXIF block, a large image) are not shown, and files that
    are cut off are errors, even where some import has set Pillow to fill them up with grey (LOAD_TRUNCATED_IMAGES).

    `warnings.catch_warnings` would not do: it swaps the whole list of filters, which threads share.
    """
    with _quiet:
        if not _inside:
            _strict(True)
            filters: Any = warnings.filters
            filters.insert(0, PILLOW)
            _inside.append(filters)
        _inside.append(None)
    try:
        yield
    finally:
        with _quiet:
            _inside.pop()
            if len(_inside) == 1:
                _strict(False)
                filters = _inside.pop()
                with suppress(ValueError):
                    filters.remove(PILLOW)  # from the list it was put in, should another have taken its place

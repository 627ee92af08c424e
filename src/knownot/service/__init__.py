"""Open-set classifiers over HTTP: verdicts for images that arrive, a page to try them, metrics.

    knownot serve osc/                                       # on the command line
    knownot.service.serve({"clothes": "osc/"})               # the same from Python, until SIGTERM
    app = knownot.service.create_app({"clothes": "osc/"})    # for another ASGI server

Needs the extra `serve`. See docs/how-to/serving.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import create_app
    from .server import serve
    from .settings import Settings

_HOMES = {"Settings": "settings", "create_app": "app", "serve": "server"}

__all__ = ["Settings", "create_app", "serve"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)

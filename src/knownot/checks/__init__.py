"""The promises that detectors, statistics, model adapters and sources of images keep, as functions to run on your own.

Each raises AssertionError, saying which promise is broken, or returns nothing:

    from knownot import checks

    checks.check_detector(MyDetector)                         # a class, a recipe, or a name of the table
    checks.check_statistic(MyStatistic.of, rows, labels, classes)
    checks.check_model(my_model, batch)                       # an adapter, on at least three images
    checks.check_images(lambda: open_my_images(source))       # a reader, opened anew at each call
    checks.check_plugin("my-package")                         # an installed package with entry points

Knownot's own tests run the same functions on everything that it ships. `check_detector` needs the packages of
`pip install 'knownot[test]'` (torch, jax, array-api-strict, ndonnx); the others need none but knownot's own.
Each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .detectors import CHECKS, FIT_CHECKS, Problem, check_detector, problem
    from .images import check_images
    from .models import check_model
    from .plugins import check_plugin
    from .statistics import check_statistic, same_fields

_HOMES = {
    "CHECKS": "detectors",
    "FIT_CHECKS": "detectors",
    "Problem": "detectors",
    "check_detector": "detectors",
    "check_images": "images",
    "check_model": "models",
    "check_plugin": "plugins",
    "check_statistic": "statistics",
    "problem": "detectors",
    "same_fields": "statistics",
}

__all__ = [
    "CHECKS",
    "FIT_CHECKS",
    "Problem",
    "check_detector",
    "check_images",
    "check_model",
    "check_plugin",
    "check_statistic",
    "problem",
    "same_fields",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'knownot.checks' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__

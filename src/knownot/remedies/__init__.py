"""Remedies: retrain the classifier so that it knows what it does not know. `knownot.remedies.REMEDIES` lists them.

    remedied = knownot.remedies.none_class(model, known, outliers="made:all", validation=val)
    osc = remedied.fit(known, calibration=val)

Each remedy of the table is a function of this package: `retrain` with its name given.
"""

from __future__ import annotations

import functools
from typing import Any

from .base import Outcome, Remedy, Settings, Task
from .comparison.compare import compare
from .comparison.result import Compared
from .retraining import from_stream, retrain
from .saved import Remedied, load
from .table import REMEDIES, remedy_class

__all__ = [
    "REMEDIES",
    "Compared",
    "Outcome",
    "Remedied",
    "Remedy",
    "Settings",
    "Task",
    "compare",
    "from_stream",
    "load",
    "remedy_class",
    "retrain",
]


def __getattr__(name: str) -> Any:
    remedy = name.replace("_", "-")
    if remedy in REMEDIES:
        return functools.partial(retrain, remedy)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; its remedies are: {', '.join(REMEDIES)}")


def __dir__() -> list[str]:
    return [*__all__, *(name.replace("-", "_") for name in REMEDIES)]

"""Every scoring method: one file each, one line each in the table `DETECTORS`. `knownot.detectors()` shows it.

The classes of the methods are here by the table alone: `knownot.detectors.KNN` is the KNN that it names. In typed code
import them from their own modules, `from knownot.detectors.methods.knn import KNN`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from ..renamed import old_names
from .base import Detector, Recipe, Shaper, to_namespace
from .combined import default_recipe
from .given import beside_default, given
from .plugged import all_rows
from .resolve import configure, label, resolve, working
from .table import DETECTORS, Row, Rows, classes, method_classes, rows

__all__ = [  # the classes are those of the table
    "DETECTORS",
    "Detector",
    "Recipe",
    "Row",
    "Rows",
    "Shaper",
    "beside_default",
    "classes",
    "configure",
    "default_recipe",
    "given",
    "label",
    "method_classes",
    "to_namespace",
    "resolve",
    "rows",
    "working",
    *method_classes(),
]


_renamed = old_names(__name__, {"moved": "to_namespace"})


def __getattr__(name: str) -> Any:
    return method_classes()[name] if name in method_classes() else _renamed(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Callable(ModuleType):
    """So that `knownot.detectors()` is the table while `knownot.detectors.KNN` is the class."""

    def __call__(self) -> Rows:
        """The table of all detectors, those of installed plug-ins included.

        Examples
        --------
        >>> "mahalanobis++" in [row.name for row in knownot.detectors()]
        True
        """
        return all_rows()


sys.modules[__name__].__class__ = _Callable

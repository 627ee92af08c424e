"""Every scoring method: one file each, one line each in the table `DETECTORS`. `knownot.detectors()` shows it."""

from __future__ import annotations

import sys
from types import ModuleType

from .ash import AshS
from .base import Detector, Recipe, Shaper, moved
from .combined import Combined, default_recipe
from .energy import Energy
from .entropy import Entropy
from .fdbd import FDBD
from .gen import GEN
from .kl_matching import KLMatching
from .knn import KNN
from .mahalanobis import Mahalanobis, RelativeMahalanobis
from .maxlogit import MaxLogit
from .msp import MSP
from .react import ReAct
from .resolve import configure, label, resolve, working
from .shaped import Shaped
from .she import SHE
from .table import DETECTORS, Row, Rows, classes, rows
from .vim import ViM

__all__ = [
    "DETECTORS",
    "FDBD",
    "GEN",
    "KNN",
    "MSP",
    "SHE",
    "AshS",
    "Combined",
    "Detector",
    "Energy",
    "Entropy",
    "KLMatching",
    "Mahalanobis",
    "MaxLogit",
    "ReAct",
    "Recipe",
    "RelativeMahalanobis",
    "Row",
    "Rows",
    "Shaped",
    "Shaper",
    "ViM",
    "classes",
    "configure",
    "default_recipe",
    "label",
    "moved",
    "resolve",
    "rows",
    "working",
]


class _Callable(ModuleType):
    """So that `knownot.detectors()` is the table while `knownot.detectors.KNN` is the class."""

    def __call__(self) -> Rows:
        return rows()


sys.modules[__name__].__class__ = _Callable

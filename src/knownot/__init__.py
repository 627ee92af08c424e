"""knownot: which of the images that reach a trained classifier belong to none of its classes.

    osc = knownot.fit(model, known="data/train", calibration="data/val", alpha=0.05)
    verdicts = osc.predict("incoming/")

Public names are loaded when they are first used, so that importing knownot is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .renamed import install as _find_renamed_modules
from .version import __version__

_find_renamed_modules()

if TYPE_CHECKING:
    from . import audit, detectors, remedies
    from .arrays import Activations, Preprocess
    from .benchmark import BenchmarkModule
    from .errors import KnownotError
    from .export import load
    from .fooling import Fooling, fool
    from .images import open_images
    from .models import open_model
    from .openset.classifier import OpenSetClassifier
    from .openset.fit import fit
    from .openset.parts import fit_part, merge
    from .openset.verdicts import Verdicts
    from .report.build import write_report

    benchmark: BenchmarkModule

_HOMES = {
    "Activations": "arrays",
    "Fooling": "fooling",
    "KnownotError": "errors",
    "OpenSetClassifier": "openset.classifier",
    "Preprocess": "arrays",
    "Verdicts": "openset.verdicts",
    "fit": "openset.fit",
    "fit_part": "openset.parts",
    "fool": "fooling",
    "load": "export",
    "merge": "openset.parts",
    "open_images": "images",
    "open_model": "models",
    "write_report": "report.build",
}

__all__ = [
    "Activations",
    "Fooling",
    "KnownotError",
    "OpenSetClassifier",
    "Preprocess",
    "Verdicts",
    "__version__",
    "audit",
    "benchmark",
    "detectors",
    "fit",
    "fit_part",
    "fool",
    "load",
    "merge",
    "open_images",
    "open_model",
    "remedies",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in ("audit", "benchmark", "detectors", "remedies"):  # modules; the first three can be called
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module 'knownot' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__

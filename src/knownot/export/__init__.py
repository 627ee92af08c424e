"""An open-set classifier as one ONNX file: writing it, checking it, and reading it again.

    osc.export("osc.onnx")                       # or knownot.export.export(osc, "osc.onnx")
    verdicts = knownot.load("osc.onnx").predict("incoming/")

What writes needs the extra `export` (spox); what reads does not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .about import info
    from .onnx import Exported, export
    from .parity import Parity
    from .reading import ExportedClassifier, load, verify

_HOMES = {
    "Exported": "onnx",
    "ExportedClassifier": "reading",
    "Parity": "parity",
    "export": "onnx",
    "info": "about",
    "load": "reading",
    "verify": "reading",
}

__all__ = ["Exported", "ExportedClassifier", "Parity", "export", "info", "load", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)

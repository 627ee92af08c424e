"""Detectors side by side: `knownot.benchmark(model, known, …)` by the field's protocol, `compare` quickly."""

from __future__ import annotations

import sys
from types import ModuleType

from .compare import Comparison, Line, compare
from .protocol import openood
from .result import BenchmarkResult
from .run import benchmark

__all__ = ["BenchmarkModule", "BenchmarkResult", "Comparison", "Line", "benchmark", "compare", "openood"]


class BenchmarkModule(ModuleType):
    """What `knownot.benchmark` is: a module that can be called. `knownot/__init__.py` declares it as one, so that
    editors and type checkers follow both `knownot.benchmark(…)` and `knownot.benchmark.compare(…)`."""

    __call__ = staticmethod(benchmark)
    benchmark = staticmethod(benchmark)
    compare = staticmethod(compare)
    openood = staticmethod(openood)
    BenchmarkResult = BenchmarkResult
    Comparison = Comparison
    Line = Line


sys.modules[__name__].__class__ = BenchmarkModule

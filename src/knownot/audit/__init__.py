"""Why is a classifier so sure, and what would it take? `knownot.audit(model, known)` answers with an `Audit`."""

from __future__ import annotations

import sys
from types import ModuleType

from .page import Audit
from .recommendations import Names
from .record import SCHEMA, Finding, Number, Share
from .run import audit
from .sections import Record

__all__ = ["SCHEMA", "Audit", "Finding", "Names", "Number", "Record", "Share", "audit"]


class _Callable(ModuleType):
    """So that `knownot.audit(…)` makes an audit while `knownot.audit.Audit` is the class."""

    __call__ = staticmethod(audit)


sys.modules[__name__].__class__ = _Callable

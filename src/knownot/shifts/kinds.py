"""Which kinds of change are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..arguments import short
from ..errors import OptionError, unknown_name
from ..outliers.changes import CHANGES, Changed
from ..outliers.noise import Rng


def asked_for(shifts: Any) -> dict[str, Changed]:
    """{name: change} of what is given as `shifts=` to `fit`: None or True: the usual ones, False: none; else names of
    changes or of families ("jpeg-50", "blur"), functions, or a mapping {name: function}.

    Raises OptionError for anything else.
    """
    if shifts is None or shifts is True:
        return dict(CHANGES)
    if shifts is False:
        return {}
    if isinstance(shifts, Mapping):
        return {str(name): _own(str(name), function) for name, function in shifts.items()}
    given = [shifts] if isinstance(shifts, str) or callable(shifts) else shifts
    if not isinstance(given, Iterable):
        raise OptionError(f"shifts={short(shifts)}: expected True, False, names of changes, or functions.")
    found: dict[str, Changed] = {}
    for one in given:
        if isinstance(one, str):
            found |= _named(one.strip())
        else:
            name = getattr(one, "__name__", type(one).__name__)
            if name in found:
                raise OptionError(f"Two kinds of change are called {name!r}: give shifts={{name: function, …}}.")
            found[name] = _own(name, one)
    return found


def _named(name: str) -> dict[str, Changed]:
    found = {k: kind for k, kind in CHANGES.items() if name in (k, kind.family)}
    if not found:
        raise unknown_name("kind of change", name, {*CHANGES, *(kind.family for kind in CHANGES.values())})
    return found


def _own(name: str, function: Any) -> Changed:
    if not callable(function):
        raise OptionError(f"shifts: {name!r} is {short(function)}, no function: images uint8 [n, h, w, 3] -> the same.")
    return Changed(partial(_checked, function=function, name=name), "own", f"changed as by {name}")


def _checked(images: np.ndarray, rng: Rng, *, function: Callable[[np.ndarray], Any], name: str) -> np.ndarray:
    """What a user's own function makes of images. Raises OptionError unless it is as many of the same form."""
    made = np.asarray(function(images.copy()))
    if made.shape != images.shape or made.dtype != np.uint8:
        raise OptionError(
            f"shifts: {name!r} made {made.dtype} of shape {made.shape} of images uint8 {images.shape}: it has to "
            "return as many images of the same form."
        )
    return made

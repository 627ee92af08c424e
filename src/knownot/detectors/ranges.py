"""Which values of their options detectors are tuned over: OpenOOD's, as far as it has the method, for APS.

One line per detector of the table. A detector of another package declares its own, as a class attribute `ranges` of the
same form. "shaper.percentile": the option of the recipe that is the option `shaper`. The value that a detector has
without tuning is tried as well, and a value that a classifier does not allow is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from .recipe import DETECTORS, Recipe

Ranges = Mapping[str, tuple[Any, ...]]

PERCENTILES = (65.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0)
NEIGHBOURS = (5, 10, 20, 50, 100, 200)
DIMENSIONS = (16, 32, 64, 128, 256, 512, 1000)

RANGES: dict[str, Ranges] = {
    "gen": {"gamma": (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0), "top": (10, 50, 100, 200, 500, 1000)},
    "energy": {"temperature": (0.5, 1.0, 2.0, 5.0, 10.0)},
    "knn": {"k": (*NEIGHBOURS, 500, 1000)},
    "nnguide": {"k": (*NEIGHBOURS, 500)},
    "d-knn": {"k": NEIGHBOURS},
    "vim": {"dim": DIMENSIONS},
    "residual": {"dim": DIMENSIONS},
    "neco": {"dim": DIMENSIONS},
    "pca": {"variance": (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)},
    "relation": {"power": (1.0, 2.0, 4.0, 6.0, 8.0)},
    "openmax": {"tail": (10, 20, 40), "alpha": (1, 3, 5)},
    "nci": {"alpha": (0.0, 1e-4, 1e-3, 1e-2)},
    "wdiscood": {"weight": (0.1, 0.5, 1.0, 2.0, 5.0)},
    "odin": {"temperature": (1.0, 10.0, 100.0, 1000.0), "eps": (0.0014, 0.0028)},
    "mahalanobis-odin": {"eps": (0.0005, 0.0014, 0.002, 0.005, 0.01)},
    "react": {"shaper.percentile": (85.0, 90.0, 95.0, 99.0)},
    "ash-s": {"shaper.percentile": PERCENTILES},
    "ash-p": {"shaper.percentile": PERCENTILES},
    "ash-b": {"shaper.percentile": PERCENTILES},
    "scale": {"shaper.percentile": PERCENTILES},
    "lts": {"shaper.percentile": (*PERCENTILES, 99.0)},
    "dice": {"shaper.percentile": (10.0, 30.0, 50.0, 70.0, 90.0)},
    "vra": {"shaper.low": (1.0, 5.0, 10.0, 20.0), "shaper.high": (80.0, 90.0, 95.0, 99.0)},
}


def ranges_of(name: str, recipe: Recipe) -> Ranges:
    """Of a detector by its name in the table, or by what its class declares; {} for none."""
    own: Ranges = getattr(recipe.kind, "ranges", {})
    same = name in DETECTORS and DETECTORS[name].kind is recipe.kind
    return RANGES.get(name, own) if same else own


def variations(recipe: Recipe, ranges: Ranges) -> Iterator[tuple[str, Recipe]]:
    """("k=5", the recipe with it) of every combination of values."""
    for values in product(*ranges.values()) if ranges else ():
        changed = recipe
        for path, value in zip(ranges, values, strict=True):
            changed = _with(changed, path, value)
        said = (f"{path.rpartition('.')[2]}={value:g}" for path, value in zip(ranges, values, strict=True))
        yield ", ".join(said), changed


def _with(recipe: Recipe, path: str, value: Any) -> Recipe:
    option, dot, rest = path.partition(".")
    if dot:
        value = _with(recipe.options[option], rest, value)
    return recipe.with_options(**{option: value})

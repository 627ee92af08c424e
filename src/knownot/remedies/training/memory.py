"""How many images of a step are computed at once, so that a training fits; the step itself stays the same.

A step's rows go through the network in parts. Each part's loss divides by the weights of *all* rows (`losses.Part`), so
the gradients of the parts add up to that of the whole step, whatever their sizes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ...errors import OptionError
from .losses import Part

DEFAULT = 2 << 30  # bytes for a training; the frameworks themselves take about half a GB more
WEIGHTS = 7  # the weights, their gradients, Adam's two moments, those before and after, and the user's own
PASSING = 1.6  # of what is kept of an image for the way back: gradients and what a layer needs while it is computed
INPUT = 4  # copies of a step's input: as made, in the framework's layout, on its way
TOTAL = "/total"
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def bytes_of(given: str | float | None) -> int:
    """Bytes of "4GB", "800 MiB" or a number of bytes; None: the default. Raises OptionError for anything else."""
    if given is None:
        return DEFAULT
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?\s*", str(given).upper())
    bytes_ = 0 if found is None or isinstance(given, bool) else int(float(found[1]) * UNITS[found[2] or ""])
    if bytes_ < 10**6:
        raise OptionError(f"memory={given!r}: expected at least 1MB, as text such as '4GB' or a number of bytes.")
    return bytes_


def said(bytes_: float) -> str:
    """For people."""
    return f"{bytes_ / 1e9:.1f} GB" if bytes_ >= 1e8 else f"{max(1, round(bytes_ / 1e6))} MB"


@dataclass(frozen=True)
class Cost:
    """Bytes. image: kept of one for the way back; values: of one as the input; weights: of those that are trained."""

    image: int
    values: int
    weights: int

    def of(self, rows: int, at_once: int) -> int:
        """The peak of a training with steps of `rows` rows, of which so many are computed at once."""
        return int(WEIGHTS * self.weights + INPUT * rows * self.values + PASSING * at_once * self.image)

    def parts(self, rows: int, memory: str | float | None) -> int:
        """In how many parts a step goes through the network. Raises OptionError where one image is more than what was
        asked for; by default one at a time then."""
        budget = bytes_of(memory)
        room = budget - self.of(rows, 0)
        most = int(room // max(1, PASSING * self.image))
        if most < 1 and memory is not None:
            raise OptionError(
                f"memory={memory!r} is too little to train this classifier. It takes about {said(self.of(rows, 1))}: "
                f"its weights, the input of a step of {rows} images, and one image at a time on its way through. Give "
                "more memory=, a smaller batch_size=, or mode='head' where the remedy knows it."
            )
        return -(-rows // max(1, min(most, rows)))


def estimate(peak: int, seconds: float, parts: int) -> str:
    """What a training is about to take."""
    time = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{max(1, round(seconds))} seconds"
    each = f", each step in {parts} parts" if parts > 1 else ""
    return f"train: about {said(peak)} and {time}{each} (memory= sets the first)"


def split(
    batch: Mapping[str, np.ndarray], parts: int, whole: Collection[str] = (), equal: bool = False
) -> list[dict[str, np.ndarray]]:
    """A step in parts: rows of all arrays but those named `whole`, which every part has. Of weights [n] the total goes
    along. equal: all parts have as many rows, the last ones without any weight where they do not come out even."""
    if parts <= 1:
        return [dict(batch)]
    n = len(batch["x"])
    each = -(-n // parts)
    ends = [min(n, i * each) for i in range(parts + 1)] if equal else [i * n // parts for i in range(parts + 1)]
    found = []
    for a, b in pairwise(ends):
        part = {name: x if name in whole else x[a:b] for name, x in batch.items()}
        if equal and b - a < each:
            part = {name: x if name in whole else _padded(x, each) for name, x in part.items()}
            part["x"] = np.concatenate([batch["x"][a:b], np.repeat(batch["x"][:1], each - (b - a), axis=0)])
        totals = {name + TOTAL: np.array([x.sum()]) for name, x in batch.items() if name not in whole and x.ndim == 1}
        found.append(part | totals | {"share": np.array([1 / parts])})
    return found


def _padded(x: np.ndarray, n: int) -> np.ndarray:
    return np.concatenate([x, np.zeros((n - len(x), *x.shape[1:]), x.dtype)])


def joined(part: Mapping[str, Any]) -> dict[str, Any]:
    """Weights and their totals as the losses take them."""
    names = [name for name in part if not name.endswith(TOTAL)]
    return {name: Part(part[name], part[name + TOTAL]) if name + TOTAL in part else part[name] for name in names}

"""Float arrays beside a preprocessing that is known: do their values look like what it makes of images?"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator

import numpy as np

from ..arrays import Preprocess
from .base import Batch


def first_checked(batches: Iterator[Batch], way: Preprocess) -> Generator[Batch]:
    """The batches; a warning if the values of the first one look like images prepared in another way than `way`."""
    try:
        for i, batch in enumerate(batches):
            if i == 0 and len(batch.x) and (why := unlike(batch.x, way)):
                warnings.warn(why, UserWarning, stacklevel=4)
            yield batch
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()


def unlike(x: np.ndarray, way: Preprocess) -> str:
    """What is suspicious of the values of float images; "" if nothing is.

    Suspicious are values far out of the range of `way` (a quarter of its width), and values that all lie in [0, 1]
    where `way` makes wider ones.
    """
    mean, std = np.asarray(way.mean, float), np.asarray(way.std, float)
    ends = np.stack([(0 * way.scale - mean) / std, (255 * way.scale - mean) / std])
    low, high = float(ends.min()), float(ends.max())
    values = x[np.isfinite(x)]
    if not len(values):
        return ""
    least, most = float(values.min()), float(values.max())
    out = max(low - least, most - high) > (high - low) / 4
    small = least >= 0 and most <= 1 and high - low > 1.5
    if not (out or small):
        return ""
    made = way.name or "preprocess= says"
    return (
        f"The images are float arrays with values from {least:.4g} to {most:.4g}, taken as the classifier's own "
        f"input, unchanged. Its input was made of raw images as {made}: values from {low:.4g} to {high:.4g}. If "
        "these are photographs, give them raw (uint8, 0 to 255, or files), or prepare them so."
    )

"""The images of a comparison: which known ones are for what, and unknown ones in their form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...arrays import Preprocess
from ...errors import ImagesError, OptionError
from ...models import Model
from ..base import Settings
from ..retraining import prepared
from ..training.data import Outliers, Pool, outliers_of


@dataclass(frozen=True)
class Splits:
    """Known images [n, h, w, 3] with labels: to train and fit, to validate, to calibrate, to rank, to test."""

    known: Pool
    validation: Pool
    calibration: Pool
    rank: Pool
    test: Pool


def split(
    opened: Model,
    known: Any,
    held: Any,
    preprocess: Preprocess | None,
    class_names: Sequence[str] | None,
    seed: int,
    progress: bool,
) -> tuple[Splits, tuple[str, ...], tuple[str, ...]]:
    """(all known images, class names, notes). The validation images go in four random parts of equal size."""
    task = prepared(opened, known, held, None, preprocess, class_names, Settings(seed=seed, progress=progress))
    rows = np.random.default_rng([seed, 41]).permutation(len(task.validation))
    quarter = len(rows) // 4
    if quarter < 20:
        raise ImagesError(
            f"{len(rows)} validation images are too few to be split in four. Give more, new known images."
        )
    parts = [task.validation.take(np.sort(rows[i * quarter : (i + 1) * quarter])) for i in range(4)]
    return Splits(task.known, *parts), task.names, task.notes


def strangers(opened: Model, known: Pool, images: Any, name: str, progress: bool) -> Pool:
    """Unknown images in the form and size of the known ones."""
    found = outliers_of(images, known, spec=opened.input, progress=progress) if not isinstance(images, Pool) else images
    pool = getattr(found, "pool", found)
    if isinstance(pool, Outliers):
        raise OptionError(f"unknown={{{name!r}: {images!r}}}: give images; made ones by knownot.outliers.make.")
    return pool


def plain(way: Preprocess | None) -> Preprocess | None:
    """For images that have the classifier's size already: nothing is resized or cropped a second time."""
    return None if way is None else replace(way, height=None, width=None)

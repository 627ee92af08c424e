"""Whether an array of three axes is one image with colours or a batch of grey images: the first one decides for all."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import layout_of
from ..errors import ImagesError, InputError
from .image_arrays import as_numpy, is_array

COLOURS = (3, 4)


class Axes:
    """What the arrays of one source are; the first one is asked, the others have to be alike.

    batched: whether the source says that it gives batches.
    """

    def __init__(self, batched: bool = False) -> None:
        self._batched = batched
        self._first: tuple[int, ...] | None = None
        self._single = False

    def one_image(self, x: np.ndarray, labels: Any) -> bool:
        """Whether this array is one image rather than a batch.

        Labels tell, then the source, then the shape: [3, h, w], [4, h, w], [1, h, w] and those with colours last are
        one image. Raises ImagesError for an array that contradicts the first one, or whose label can be read as either.
        """
        if self._first is None:
            self._single = x.ndim == 3 and self._decide(x, labels)
            self._first = x.shape
            return self._single
        if x.ndim != len(self._first) or (self._single and not _with_colours(x)):
            what = "one image" if self._single else "a batch"
            raise ImagesError(
                f"an array of shape {x.shape}, but the first one, of shape {self._first}, was read as {what}: the axes "
                "of all have to be the same. Give batches [n, h, w, k]: images[..., None] for grey ones, image[None] "
                "for a single one."
            )
        return self._single

    def _decide(self, x: np.ndarray, labels: Any) -> bool:
        if not _with_colours(x):
            return False
        said = as_numpy(labels) if is_array(labels) else np.asarray(labels if labels is not None else 0)
        if len(x) > 1 and said.ndim == 1 and len(said) == len(x):
            if said.dtype.kind in "fb" and sorted(said.tolist()) == [0] * (len(said) - 1) + [1]:
                raise ImagesError(
                    f"an array of shape {x.shape} with {len(said)} numbers: one image with a one-hot label, or a batch "
                    "of grey images with a label each. Give image[None] and label[None], or images[..., None]."
                )
            return False
        return not self._batched


def _with_colours(x: np.ndarray) -> bool:
    """Whether the first or the last of three axes may be colours."""
    try:
        layout_of((1, *x.shape))
    except InputError as e:
        return "can be read as" in str(e)
    return True


def check_one_meaning(x: np.ndarray, labels: Any) -> None:
    """Raises ImagesError for a single array that is three or four grey images, or one with colours first."""
    if x.ndim == 3 and x.dtype in (np.uint8, np.uint16) and len(x) in COLOURS and labels is None and _with_colours(x):
        raise ImagesError(
            f"An array of shape {x.shape} can be read as {len(x)} grey images or as one with {len(x)} colours. Give "
            "images[..., None] for grey ones, image[None] for one."
        )

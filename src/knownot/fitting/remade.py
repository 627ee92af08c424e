"""Images made from what the classifier was given of others, shown to it in the same way."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..arrays import Activations, Preprocess
from ..images import open_images
from ..images.preprocess import apply
from .extraction import Extractor


def pixels_of(x: np.ndarray, way: Preprocess | None) -> tuple[np.ndarray, Preprocess] | None:
    """(pictures uint8 [m, h, w, 3], how they become the classifier's input), of inputs x [m, h, w, k].

    way: how x was made. Of float arrays that is not known: their smallest number is taken for 0, their largest for 255.
    None when the input has other than 1 or 3 channels: then it is no picture.
    """
    k = x.shape[-1]
    if k not in (1, 3) or not len(x):
        return None
    if way is None:
        low, high = float(x.min()), float(x.max())
        way = Preprocess(
            scale=(high - low) / 255 or 1.0, mean=(-low,), channels="grey" if k == 1 else "rgb", name="min–max"
        )
    way = replace(way, height=None, width=None)  # these have the size already
    raw = (x.astype(np.float64) * np.asarray(way.std) + np.asarray(way.mean)) / (way.scale or 1.0)
    pictures = np.clip(np.rint(raw), 0, 255).astype(np.uint8)
    if k == 1:
        pictures = np.repeat(pictures, 3, axis=-1)
    return np.ascontiguousarray(pictures[..., ::-1] if way.channels == "bgr" else pictures), way


@dataclass(frozen=True)
class Remade:
    """Pictures that were cut out already, and a pass over whatever is made of them.

    pictures: uint8 [m, h, w, 3], of the size that the classifier is given, or the second network where that is larger.
    """

    pictures: np.ndarray
    walk: Extractor
    ready: Preprocess | None  # how they become float arrays, where the classifier's own input was given

    @classmethod
    def of(cls, walk: Extractor, x: np.ndarray) -> Remade | None:
        """walk: that of the known images; x [m, h, w, k]: some of its images (`Extracted.x`). None for other than 1 or
        3 channels. Both networks see the same made images, each preprocessed in its own way."""
        second = walk.second
        found = pixels_of(x, second.preprocess if second is not None and walk.second_is_larger else walk.way)
        if found is None:
            return None
        pictures, way = found
        if second is not None and second.preprocess is not None:
            second = replace(second, preprocess=replace(second.preprocess, crop_share=1.0))
        # What is left is their size, of the network that they were not taken from.
        again = None if walk.way is None else replace(walk.way, crop_share=1.0)
        return cls(pictures, Extractor(walk.model, again, walk.size, second), way if walk.way is None else None)

    def run(self, made: np.ndarray, what: str) -> Activations:
        """Of made images, uint8 [n, h, w, 3]. Raises KnownotError where the networks compute nothing but NaN."""
        source = open_images(made if self.ready is None else np.stack([apply(image, self.ready) for image in made]))
        return Activations.concat([a for a, _ in self.walk.run(source, what, labelled=False)])

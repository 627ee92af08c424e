"""From uint8 images to the classifier's own input, exactly as at prediction, and gradients back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import InputSpec, Preprocess
from ..errors import OptionError
from ..images.preprocess import apply

LUMA = np.array([19595, 38470, 7471]) / 2**16  # as `images.preprocess` makes grey


@dataclass(frozen=True)
class PixelPipeline:
    """Images of `size` are made, so that nothing is resampled: what is measured is what an image file gives.

    way: with height and width. With crop_share below 1 images are larger than the input, which is their centre.
    """

    way: Preprocess
    spec: InputSpec

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        h, w = self._inner
        share = 1.0 if self.way.fit == "stretch" else self.way.crop_share
        return round(h / share), round(w / share)

    @property
    def _inner(self) -> tuple[int, int]:
        assert self.way.height is not None
        assert self.way.width is not None
        return self.way.height, self.way.width

    def input(self, images: np.ndarray) -> np.ndarray:
        """uint8 [n, h, w, 3] -> float32 [n, h', w', k], NHWC."""
        return np.stack([apply(image, self.way) for image in images])

    def back(self, gradient: np.ndarray) -> np.ndarray:
        """A gradient with respect to the input, in the classifier's layout, as one with respect to pixels,
        [n, h, w, 3] float64."""
        g = gradient if self.spec.layout == "NHWC" else gradient.transpose(0, 2, 3, 1)
        g = g.astype(np.float64) * (self.way.scale / np.asarray(self.way.std))
        if self.way.channels == "grey":
            g = g * LUMA
        elif self.way.channels == "bgr":
            g = g[..., ::-1]
        (h, w), (ih, iw) = self.size, self._inner
        top, left = round((h - ih) / 2), round((w - iw) / 2)
        return np.pad(g, [(0, 0), (top, h - ih - top), (left, w - iw - left), (0, 0)])


def sized(way: Preprocess, spec: InputSpec, size: tuple[int, int] | None) -> Preprocess:
    """`way` with the classifier's own size. Raises OptionError when nobody says it, or channels do not fit."""
    for height, width in ((way.height, way.width), (spec.height, spec.width), size or (None, None)):
        if height and width:
            break
    else:
        raise OptionError(
            "The classifier takes images of any size, so the size of fooling images is not known. Give it: "
            "preprocess=knownot.Preprocess(height=…, width=…, …) or open_model(…, size=(height, width))."
        )
    channels = 1 if way.channels == "grey" else 3
    if spec.channels not in (None, channels):
        raise OptionError(
            f"preprocess= makes {channels} channel{'s' if channels > 1 else ''}, the classifier takes {spec.channels}. "
            "Fooling images are made for classifiers of colour (3) and grey (1) images."
        )
    return way.sized(height, width)

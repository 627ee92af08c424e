"""Every kind of made image, one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import altered, noise
from .jpeg import jpeg


@dataclass(frozen=True)
class Kind:
    """One kind of made image.

    altered: whether it is made from known images. proper: whether the outcome is surely of no class, so that it can
    speak on detectors; what may still be recognised (a crop, an image badly compressed) cannot.
    """

    function: Callable[..., np.ndarray]
    summary: str
    altered: bool = False
    proper: bool = True


OUTLIERS: dict[str, Kind] = {
    "uniform": Kind(noise.uniform, "each pixel at random"),
    "gaussian": Kind(noise.gaussian, "each pixel at random, normal"),
    "salt-and-pepper": Kind(noise.salt_and_pepper, "each pixel black or white"),
    "solid": Kind(noise.solid, "one colour"),
    "gradient": Kind(noise.gradient, "from one colour to another"),
    "checkerboard": Kind(noise.checkerboard, "squares of two colours"),
    "stripes": Kind(noise.stripes, "stripes of two colours"),
    "fractal": Kind(noise.fractal, "noise with the spectrum of photographs, 1/f"),
    "dead-leaves": Kind(noise.dead_leaves, "discs one over the other"),
    "patch-shuffle-4": Kind(altered.patch_shuffle(4), "4 × 4 patches change places", True),
    "patch-shuffle-8": Kind(altered.patch_shuffle(8), "8 × 8 patches change places", True),
    "pixel-shuffle": Kind(altered.pixel_shuffle, "all pixels change places", True),
    "cutmix": Kind(altered.cutmix, "halves of two images of two classes", True),
    "mixup": Kind(altered.mixup, "the mean of two images of two classes", True),
    "collage": Kind(altered.collage, "quarters of four images", True),
    "inversion": Kind(altered.inversion, "the negative", True),
    "blur": Kind(altered.blur, "out of focus by an eighth of the side", True),
    "jpeg": Kind(jpeg, "JPEG at quality 1", True, proper=False),
    "crop": Kind(altered.crop, "a sixth of each side, enlarged", True, proper=False),
    "phase": Kind(altered.phase, "the same spectrum with random phases", True),
    "noise": Kind(altered.noisy, "strong noise added", True),
}

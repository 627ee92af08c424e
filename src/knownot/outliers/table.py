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

    family: kinds that look alike to a classifier, so that many of one sort do not outvote one of another.
    altered: whether it is made from known images. proper: whether the outcome is surely of no class, so that it can
    speak on detectors; what may still be recognised (a crop, an image badly compressed) cannot.
    """

    function: Callable[..., np.ndarray]
    family: str
    summary: str
    altered: bool = False
    proper: bool = True


OUTLIERS: dict[str, Kind] = {
    "uniform": Kind(noise.uniform, "noise", "each pixel at random"),
    "gaussian": Kind(noise.gaussian, "noise", "each pixel at random, normal"),
    "salt-and-pepper": Kind(noise.salt_and_pepper, "noise", "each pixel black or white"),
    "solid": Kind(noise.solid, "plain", "one colour"),
    "gradient": Kind(noise.gradient, "plain", "from one colour to another"),
    "checkerboard": Kind(noise.checkerboard, "plain", "squares of two colours"),
    "stripes": Kind(noise.stripes, "plain", "stripes of two colours"),
    "fractal": Kind(noise.fractal, "texture", "noise with the spectrum of photographs, 1/f"),
    "dead-leaves": Kind(noise.dead_leaves, "texture", "discs one over the other"),
    "patch-shuffle-4": Kind(altered.patch_shuffle(4), "shuffle", "4 × 4 patches change places", True),
    "patch-shuffle-8": Kind(altered.patch_shuffle(8), "shuffle", "8 × 8 patches change places", True),
    "pixel-shuffle": Kind(altered.pixel_shuffle, "shuffle", "all pixels change places", True),
    "cutmix": Kind(altered.cutmix, "mixture", "halves of two images of two classes", True),
    "mixup": Kind(altered.mixup, "mixture", "the mean of two images of two classes", True),
    "collage": Kind(altered.collage, "mixture", "quarters of four images", True),
    "inversion": Kind(altered.inversion, "inversion", "the negative", True),
    "blur": Kind(altered.blur, "blur", "out of focus by an eighth of the side", True),
    "jpeg": Kind(jpeg, "compression", "JPEG at quality 1", True, proper=False),
    "crop": Kind(altered.crop, "blur", "a sixth of each side, enlarged", True, proper=False),
    "phase": Kind(altered.phase, "texture", "the same spectrum with random phases", True),
    "noise": Kind(altered.noisy, "noise", "strong noise added", True),
}

"""Every kind of made image, one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import OptionError, unknown_name
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


def kinds_named(names: str | Iterable[str], *, proper: bool = False) -> tuple[str, ...]:
    """Kinds by name, by family, by the beginning of a name ("patch-shuffle"), or "all"; with a minus before it, one is
    left out: ["all", "-mixture"]. With a slash after it, surely a family: "noise" is one kind of the family "noise/".
    Text is cut at commas. proper: "all" and families are those that are surely of no class.

    Raises OptionError for a name that fits nothing, or when nothing is left.
    """
    parts = [part.strip() for name in ([names] if isinstance(names, str) else names) for part in name.split(",")]
    chosen: dict[str, None] = {}
    for part in filter(None, parts):
        bare = part.removeprefix("-")
        for kind in _fits(bare, proper):
            if part.startswith("-"):
                chosen.pop(kind, None)
            else:
                chosen[kind] = None
    if not chosen:
        raise OptionError(f"{', '.join(parts)!r} leaves no kind of outlier. There are: all, {', '.join(OUTLIERS)}.")
    return tuple(chosen)


def _fits(name: str, proper: bool) -> list[str]:
    if name in OUTLIERS:
        return [name]
    families = (name, name.removesuffix("/"))
    found = [k for k, kind in OUTLIERS.items() if kind.family in families or k.startswith(f"{name}-")]
    found = list(OUTLIERS) if name == "all" else found
    if proper:
        found = [k for k in found if OUTLIERS[k].proper] or found  # who names one asks for it
    if not found:
        raise unknown_name("kind of outlier", name, {"all", *OUTLIERS, *(kind.family for kind in OUTLIERS.values())})
    return found

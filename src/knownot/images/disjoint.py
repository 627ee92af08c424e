"""Two sources of images that are to have no image in common."""

from __future__ import annotations

from ..errors import ImagesError, OptionError
from .base import Images

AGAIN = "The calibration images are among the known images that the detectors are fitted on: the same content again."
VOID = "They would look too well known, and the guarantee would not hold."
CURE = "Give calibration= other images of the classes, or leave it out: a part of the known images is then held out."


def check_disjoint(images: Images, held: Images | None) -> str:
    """Raise OptionError when images are to calibrate that the detectors are fitted on (the same files or memory):
    they look too well known; ImagesError when one is raw and the other the classifier's own input.

    Returns a sentence when they are copies of the same images, "" when nothing of the kind is seen before a walk.
    """
    if held is None:
        return ""
    if images.ready != held.ready:
        raise ImagesError(
            f"The known images are {_form(images)}, the calibration images {_form(held)}. Give both in the same form, "
            "that in which images will come."
        )
    both = in_both(held, images)
    if both:
        of = f"{both:,} of the {held.count:,}" if held.count else f"{both:,}"
        raise OptionError(
            f"{of} calibration images are among the known images that the detectors are fitted on. {VOID} {CURE}"
        )
    return AGAIN if held.equals(images) else ""


def _form(images: Images) -> str:
    return "float arrays (the classifier's own input)" if images.ready else "raw images (files, uint8)"


def in_both(some: Images, others: Images) -> int:
    """How many images of `some` are surely images of `others` too: the same file, or the same place in memory."""
    mine = set(some.places())
    return len(mine.intersection(others.places())) if mine else 0

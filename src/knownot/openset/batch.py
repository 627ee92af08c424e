"""What decisions over many images start from: their p-values against all calibration images together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Activations
from ..calibration import PER_CLASS, p_values
from ..errors import OptionError
from ..fitting.extraction import extract
from ..fitting.thumbnails import SIDE, embed, squared
from ..images import open_images
from ..progress import bar
from .verdicts import Verdicts

if TYPE_CHECKING:
    from .classifier import OpenSetClassifier


def verdicts_of(osc: OpenSetClassifier, images: Any) -> Verdicts:
    """`images` if they are verdicts of this classifier, else the verdicts that it gives them."""
    if not isinstance(images, Verdicts):
        return osc.predict(images, gallery=False)
    if images.members != osc.detector.members or images.class_names != osc.names:
        raise OptionError(
            f"These verdicts are of another open-set classifier: detectors {', '.join(images.members)}, here "
            f"{', '.join(osc.detector.members)}. Give what predict() of this one returned, or the images."
        )
    return images


def features_of(
    osc: OpenSetClassifier,
    images: Any,
    *,
    view: Callable[[Activations], np.ndarray] = embed,
    unknown_only: bool = False,
    progress: bool = False,
) -> tuple[Verdicts, np.ndarray, np.ndarray]:
    """(verdicts [n], features [n, d], NaN where unreadable, thumbs [n, side, side, 3]) of images in one forward pass.

    view: what is looked at, features of unit length when left out. unknown_only: of the images called unknown; thumbs
    are made only then (else [0, side, side, 3]).
    """
    source = open_images(images)
    batches = osc.batches(source, thumbs=SIDE if unknown_only else 0)
    parts, rows, thumbs = [osc.nothing], [], [np.empty((0, SIDE, SIDE, 3), np.uint8)]
    with bar("features", source.count, progress) as advance:
        for batch, verdicts, activations, fine in extract(osc.looking, batches, osc.second, osc._verdicts):
            seen = view(activations)
            features = np.full((len(batch), seen.shape[1]), np.nan, np.float32)
            features[batch.rows[fine]] = seen
            if unknown_only:
                wanted = np.flatnonzero(verdicts.unknown)
                place = {row: i for i, row in enumerate(batch.rows)}  # thumbs are of the readable images
                if batch.thumbs and len(wanted):
                    thumbs.append(np.stack([squared(batch.thumbs[place[row]]) for row in wanted]))
                verdicts, features = verdicts.take(wanted), features[wanted]
            parts.append(verdicts)
            rows.append(features)
            advance(len(batch))
    found = np.concatenate(rows) if rows else np.empty((0, 0), np.float32)
    return Verdicts.concat(parts), found, np.concatenate(thumbs)


def marginal_p(osc: OpenSetClassifier, images: Any) -> np.ndarray:
    """p-values [n] float64, NaN where unreadable, against all calibration images; see `marginal`."""
    verdicts = verdicts_of(osc, images)
    return marginal(osc, verdicts.p_value, verdicts.score)


def marginal(osc: OpenSetClassifier, p: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The p-values [n], or those of a class-conditional calibration computed anew from the scores [n].

    A statement on a batch is one over all classes, and a class's own few calibration images give no p-value small
    enough to select anything.
    """
    if osc.calibration.guarantee not in PER_CLASS:
        return p
    p, fine = np.full(len(p), np.nan), ~np.isnan(p)
    p[fine] = p_values(osc.calibration.scores, np.asarray(score, np.float32)[fine])
    return p

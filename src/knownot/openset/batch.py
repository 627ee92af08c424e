"""What decisions over many images start from: their p-values against all calibration images together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibration import PER_CLASS, p_values
from ..errors import OptionError
from ..fitting.extraction import batch_size_for, computed
from ..fitting.thumbnails import eyes
from ..images import open_images
from ..progress import bar
from .verdicts import Verdicts

if TYPE_CHECKING:
    from .classifier import OpenSetClassifier


def verdicts_of(osc: OpenSetClassifier, images: Any) -> Verdicts:
    """`images` if they are verdicts of this classifier, else the verdicts that it gives them."""
    if not isinstance(images, Verdicts):
        return osc.predict(images, gallery=False)
    if images.members != osc.detector.members or images.class_names != osc.class_names:
        raise OptionError(
            f"These verdicts are of another open-set classifier: detectors {', '.join(images.members)}, here "
            f"{', '.join(osc.detector.members)}. Give what predict() of this one returned, or the images."
        )
    return images


def features_of(osc: OpenSetClassifier, images: Any, *, progress: bool = False) -> tuple[Verdicts, np.ndarray]:
    """(verdicts [n], features [n, d] of unit length, NaN where unreadable) of images, in one forward pass."""
    source = open_images(images)
    osc._fits(source)
    batches = source.batches(
        batch_size_for(osc.model, osc.preprocess, osc.second),
        None if source.ready else osc.preprocess,
        also=osc.second.preprocess if osc.second is not None and not source.ready else None,
        spec=osc.model.input,
    )
    parts, rows = [osc.nothing], []
    with bar("features", source.count, progress) as advance:
        for batch in batches:
            verdicts, activations, fine = osc._verdicts(batch, *computed(osc.looking, batch, osc.second))
            seen = eyes(activations)
            features = np.full((len(batch), seen.shape[1]), np.nan, np.float32)
            features[batch.rows[fine]] = seen
            parts.append(verdicts)
            rows.append(features)
            advance(len(batch))
    return Verdicts.concat(parts), np.concatenate(rows) if rows else np.empty((0, 0), np.float32)


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

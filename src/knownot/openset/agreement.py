"""Whether the parts of an open-set classifier that was read from a folder go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..arrays import Preprocess
from ..calibration import Calibration
from ..detectors import Detector
from ..errors import SavedError
from ..images.preprocess import check_preprocess
from ..shifts.base import Shifts
from .added import AddedClass

if TYPE_CHECKING:
    from .classifier import OpenSetClassifier


def check_agreement(osc: OpenSetClassifier) -> None:
    """Raises SavedError for parts of the wrong kind, or that contradict each other; OptionError for a senseless
    preprocessing."""
    kinds = {
        "detector": isinstance(osc.detector, Detector),
        "calibration": isinstance(osc.calibration, Calibration),
        "preprocess": isinstance(osc.preprocess, Preprocess | None),
        "class_names": isinstance(osc.class_names, tuple) and all(isinstance(name, str) for name in osc.class_names),
    }
    kinds["added"] = isinstance(osc.added, tuple) and all(isinstance(a, AddedClass) for a in osc.added)
    kinds["shifts"] = isinstance(osc.shifts, Shifts | None) and (osc.shifts is None or osc.shifts.agrees())
    for name, right in kinds.items():
        if not right:
            raise SavedError(f"The manifest does not describe a saved classifier: {name} is something else.")
    for way in (osc.preprocess, None if osc.second is None else osc.second.preprocess):
        if way is not None:
            check_preprocess(way)
    classes, own = osc.model.capabilities.classes, osc.calibration
    if osc.class_names and len(osc.class_names) != classes:
        raise SavedError(f"{len(osc.class_names)} class names were saved, but the classifier has {classes} classes.")
    if len(own.predicted) and not 0 <= int(own.predicted.min()) <= int(own.predicted.max()) < classes:
        raise SavedError(f"Calibration images of classes that are not among the classifier's {classes} were saved.")
    members = len(osc.detector.members)
    if not isinstance(osc.references, tuple) or len(osc.references) != members:
        raise SavedError(f"Reference scores of {len(osc.references)} members were saved; the detector has {members}.")
    for name, scores in zip(osc.detector.members, osc.references, strict=True):
        right = isinstance(scores, np.ndarray) and scores.shape == own.scores.shape and np.isfinite(scores).all()
        if not right or (np.diff(scores) < 0).any():
            raise SavedError(
                f"The reference scores of {name!r} are not {len(own.scores)} ascending numbers, one per calibration "
                "image."
            )

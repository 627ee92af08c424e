"""The passes over known images: detectors are fitted on them; those held out, or calibration images, calibrate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import CalibrationError
from ..fitting.many import CalibratedDetector, fit_known, score_calibration
from ..fitting.sampling import Subsample
from ..fitting.setup import FitJob
from ..selection.choice import watch
from ..selection.decision import decide, hold_out
from .notes import Notes

RANKING = 10  # images that rank the members of a combination, at least


@dataclass(frozen=True)
class Known:
    """What the passes gave. new: of calibration images, None where known images were held out instead."""

    job: FitJob
    seen: Notes
    new: Notes | None
    watch: Subsample  # some of the images that calibrate
    rules: Mapping[str, CalibratedDetector]
    left_out: Mapping[str, str]
    notes: tuple[str, ...] = ()
    why_none: str = ""  # why there are no rules at all


def pass_known(job: FitJob, left_out: Mapping[str, str], timed: Callable[[str], Any]) -> Known:
    """Walk over known images, fit, calibrate. A detector that cannot be had is left out with its reason."""
    classes = job.model.capabilities.classes
    seen, new, kept = Notes(classes), None if job.held is None else Notes(classes), watch(job.options.seed)
    why_none = ""
    observers: tuple[Any, ...] = (seen,)
    if job.held is None:
        try:
            observers = (seen, hold_out(job, RANKING, kept))
        except CalibrationError as error:
            job, why_none, observers = replace(job, recipes={}), str(error), (seen, kept)
    with timed("known images"):
        found = fit_known(job, observers, strict=False, judges=False)
    seen.unreadable = found.known.unreadable
    rules: dict[str, CalibratedDetector] = {}
    left, notes = {**left_out, **found.refused}, []
    with timed("calibration"):
        try:
            if not why_none:
                found = score_calibration(found, () if new is None else (new, kept), judges=False)
        except CalibrationError as error:
            why_none = str(error)
        if new is not None and found.calibration is not None:
            new.unreadable = found.calibration.unreadable
        for name in found.member_scores:
            try:
                rules[name], choice = decide(found, name)
            except CalibrationError as error:
                left[name] = str(error)
                continue
            notes += [] if choice is None else [f"{name}: {choice.note}"]
    if not rules and not why_none:
        why_none = "; ".join(f"{name}: {why}" for name, why in left.items())
    return Known(
        job=job, seen=seen, new=new, watch=kept, rules=rules, left_out=left, notes=tuple(notes), why_none=why_none
    )

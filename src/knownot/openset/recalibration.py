"""Another alpha, or other calibration images, for an open-set classifier that is fitted already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..fitting.content import Contents
from ..fitting.extraction import Extractor, batch_size_for
from ..fitting.labels import class_order
from ..fitting.many import calibrate, score_each
from ..fitting.options import CalibrationOptions
from ..images import open_images

if TYPE_CHECKING:
    from .classifier import OpenSetClassifier


def with_rule(osc: OpenSetClassifier, **changed: Any) -> OpenSetClassifier:
    """The same scores, and another rule. changed: alpha, guarantee, delta, those that are not None."""
    rule = {**_rule(osc), **{name: x for name, x in changed.items() if x is not None}}
    return replace(osc, calibration=osc.calibration.under(**rule))


def recalibrate(
    osc: OpenSetClassifier,
    images: Any,
    labels: Any,
    *,
    rule: dict[str, Any],
    batch_size: int | None,
    seed: int,
    progress: bool,
) -> OpenSetClassifier:
    """One pass over new calibration images; the detector's statistics stay as they are.

    Whether they are new to the classifier is not seen here: the known images are not kept.
    """
    source = open_images(images, labels)
    size = batch_size or batch_size_for(osc.model, osc.preprocess, osc.second)
    walk = Extractor(model=osc.looking, way=osc.preprocess, size=size, second=osc.second, progress=progress)
    walk.allow_low_accuracy = osc.record.low_accuracy_allowed
    names: Sequence[str] = osc.class_names
    order = class_order(source, osc.model, names, which="calibration")[1]
    contents = Contents(once=True)
    batches = walk.run(source, "calibration", order=order, names=names, contents=contents)
    (scores,), predicted, _, numbers = score_each([osc.detector], (activations for activations, _ in batches), seed)
    walk.judge(names, osc.record.trials)
    wanted = {**_rule(osc), **{name: x for name, x in rule.items() if x is not None}}
    decided = calibrate(osc.detector, scores, predicted, CalibrationOptions(**wanted, seed=seed), numbers=numbers)
    calibration = decided.calibration.among(osc.model.capabilities.classes)
    count = len(calibration.scores)
    seen = walk.confusion
    note = f"Calibrated anew on {len(scores):,} images; before, on {osc.record.calibration + osc.record.ranking:,}."
    if contents.repeats:
        note += f" {contents.repeats:,} others were the same images again, which count once."
    if osc.shifts is not None:
        note += " How changed images look was told from the images of before, and is no longer told."
    record = replace(
        osc.record, calibration=count,
        ranking=len(scores) - count if decided.detector.needs_reference else 0, held_out=0,
        void="", evidence=0, calibration_is_new=True, accuracy=seen.accuracy if seen.images else osc.record.accuracy,
        accuracy_images=seen.images or osc.record.accuracy_images, notes=(*osc.record.notes, note),
        unreadable=(*osc.record.unreadable, *walk.unreadable)[:1000],
        unreadable_count=osc.record.unreadable_count + len(walk.unreadable),
    )  # fmt: skip
    return replace(
        osc, detector=decided.detector, calibration=calibration, references=decided.references, record=record,
        shifts=None,
    )  # fmt: skip


def _rule(osc: OpenSetClassifier) -> dict[str, Any]:
    own = osc.calibration
    return {"alpha": own.alpha, "guarantee": own.guarantee, "delta": own.delta}

"""The classifier in another precision, and the threshold computed again for what it then computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Activations
from ..errors import CalibrationError, LabelsError, ModelError, OptionError
from ..fitting.extraction import Extractor, batch_size_for
from ..fitting.labels import class_order
from ..fitting.many import calibrate, score_each
from ..fitting.options import CalibrationOptions
from ..images import Images, open_images
from ..images.preprocess import only_resized
from ..measure import auroc
from ..models import Model
from ..models.onnx import OnnxModel
from ..models.onnx import opened as opened_onnx
from ..outliers import OUTLIERS, make

if TYPE_CHECKING:
    from ..openset.classifier import OpenSetClassifier

SHOWN = 128  # known images whose activations give int8 its ranges
COMPARED = 256  # known images that AUROC compares with made ones
MADE = 16  # of each kind


@dataclass(frozen=True)
class Converted:
    """osc: with the network in another precision, and calibrated on it. words: what that changed."""

    osc: OpenSetClassifier
    words: str


def convert_precision(
    osc: OpenSetClassifier, model: Model, precision: str, images: Any, labels: Any, folder: Path
) -> Converted:
    """osc whose network is `model` (as ONNX), in float16 or int8, calibrated on `images`.

    Raises OptionError without images or for another precision, CalibrationError for too few, ModelError when the
    network cannot be converted.
    """
    if precision not in CONVERTERS:
        raise OptionError(f"precision={precision!r}: expected one of float32, {', '.join(CONVERTERS)}.")
    if images is None:
        raise CalibrationError(
            f"In {precision} the scores are others, so the threshold has to be computed again: give calibration "
            "images, known ones that are new to the classifier (calibration=, --calibration)."
        )
    if osc.added:
        names = ", ".join(a.name for a in osc.added)
        raise OptionError(
            f"In {precision} the features are others, and the images of the added classes ({names}) are not kept, by "
            "which these would be measured again: export in float32, or without_class(name)."
        )
    if not isinstance(model, OnnxModel):
        raise OptionError(
            f"precision={precision!r} is for a single network; ensembles and none-classes are exported in float32."
        )
    source = open_images(images, labels)
    before = replace(osc, model=model)
    path = folder / model.save(folder)
    target = folder / f"{precision}.onnx"
    try:
        CONVERTERS[precision](path, target, model, _inputs(before, source))
        spec = model.input
        size = None if spec.height is None or spec.width is None else (spec.height, spec.width)
        other = opened_onnx(target, size=size, layout=spec.layout)
    except Exception as error:  # whatever onnxruntime's converters raise
        text = " ".join(str(error).split())[:300]
        raise ModelError(f"The classifier could not be converted to {precision}: {text}") from error
    if other.capabilities.stages != model.capabilities.stages:
        raise ModelError(f"Converted to {precision}, the classifier shows other stages: {other.capabilities.stages}.")
    after, right, count = _recalibrate(replace(osc, model=other), source)
    was = _accuracy(before, source)
    ours, theirs = (_told(o, source) for o in (before, after))
    accuracy = "" if right is None else f"accuracy {was:.2%} → {right:.2%} of {count:,} labelled images; "
    words = (
        f"float32 → {precision}: {accuracy}AUROC on made images {ours:.2%} → {theirs:.2%}; "
        f"{path.stat().st_size / 1e6:.2f} → {target.stat().st_size / 1e6:.2f} MB. References and threshold were "
        f"computed again on {precision}, from {len(after.calibration.scores):,} calibration images that decide."
    )
    record = replace(after.record, accuracy=right, accuracy_images=count, calibration_is_new=True)
    return Converted(replace(after, record=record), words)


def _recalibrate(osc: OpenSetClassifier, source: Images) -> tuple[OpenSetClassifier, float | None, int]:
    """Ranked and calibrated again on these images; and its accuracy on the labelled ones."""
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    calibration = osc.calibration
    options = CalibrationOptions(calibration.alpha, calibration.guarantee, calibration.delta)
    (parts,), predicted, _, numbers = score_each([osc.detector], _activations(osc, source, seen), options.seed)
    decided = calibrate(osc.detector, parts, predicted, options, numbers=numbers)
    changed = replace(osc, detector=decided.detector, calibration=decided.calibration, references=decided.references)
    return changed, *_share(seen)


def _accuracy(osc: OpenSetClassifier, source: Images) -> float | None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in _activations(osc, source, seen):
        pass
    return _share(seen)[0]


def _share(seen: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float | None, int]:
    labels, predicted = (np.concatenate([pair[i] for pair in seen]) for i in (0, 1))
    has = labels >= 0
    return (float((labels[has] == predicted[has]).mean()) if has.any() else None), int(has.sum())


def _activations(
    osc: OpenSetClassifier, source: Images, seen: list[tuple[np.ndarray, np.ndarray]]
) -> Iterator[Activations]:
    """Of all images that can be read. seen: filled with (labels, predicted classes)."""
    order = None
    if source.labelled:
        with suppress(LabelsError):
            order = class_order(source, osc.model, osc.class_names, which="calibration")[1]
    size = batch_size_for(osc.model, osc.preprocess, osc.second)
    for activations, labels in Extractor(osc.looking, osc.preprocess, size, osc.second).run(
        source, "calibration", order=order
    ):
        seen.append((labels, np.argmax(activations.logits, axis=1)))
        yield activations


def _told(osc: OpenSetClassifier, source: Images) -> float:
    """AUROC of known images against made ones of every kind."""
    some = source.sample(COMPARED)
    known = osc.predict(some, gallery=False).score
    if osc.preprocess is None:
        raise OptionError("Another precision is for open-set classifiers that were fitted on raw images.")
    x = np.concatenate([b.x for b in some.batches(64, only_resized(osc.preprocess)) if len(b.x)]).astype(np.uint8)
    kinds = [kind for kind, entry in OUTLIERS.items() if entry.proper]
    unknown = np.concatenate([make(kind, MADE, like=x) for kind in kinds])
    return float(auroc(known[np.isfinite(known)], osc.predict(unknown, gallery=False).score))


def _inputs(osc: OpenSetClassifier, source: Images) -> list[np.ndarray]:
    """Some known images as the network's own input."""
    way = None if source.ready else osc.preprocess
    batches = source.sample(SHOWN).batches(32, way, spec=osc.model.input)
    return [osc.model.input.to_layout(batch.x) for batch in batches if len(batch.x)]


def _float16(path: Path, target: Path, model: OnnxModel, inputs: list[np.ndarray]) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), target)


def _int8(path: Path, target: Path, model: OnnxModel, inputs: list[np.ndarray]) -> None:
    """Static quantisation: weights for each channel, activations by their ranges on known images."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(inputs)

        def get_next(self) -> dict[str, np.ndarray] | None:
            x = next(self.left, None)
            return None if x is None else {model.input_name: x}

    ready = target.with_name("prepared.onnx")
    quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
    quantize_static(
        str(ready), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


CONVERTERS: dict[str, Callable[[Path, Path, OnnxModel, list[np.ndarray]], None]] = {"float16": _float16, "int8": _int8}

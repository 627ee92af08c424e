"""Writing an open-set classifier as one ONNX file, checked against Python before it is there."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto

from ..arrays import Preprocess
from ..detectors.base import exact
from ..errors import KnownotError, ModelError, OptionError, UnsoundError, missing_extra
from ..models import Model
from ..models.onnx.file import OnnxFile, serialise
from ..version import __version__
from .layouts import Layout, layout_of
from .metadata import ALPHAS, Facts
from .parity import Parity, compare
from .precision import convert_precision
from .runtimes import by, runner

if TYPE_CHECKING:
    from ..openset.classifier import OpenSetClassifier

APART = 1e-2  # of the largest value: from which difference on features or stages are read elsewhere

EXACT = (
    "{names} looks for neighbours with an approximate index in Python; the file searches exactly. What it finds is as "
    "near or nearer, so its p-values are as large or larger. The guarantee holds, but verdicts near the threshold "
    "differ."
)


@dataclass(frozen=True)
class Exported:
    """What was written. nodes: of its graph."""

    path: Path
    facts: Facts
    parity: Parity
    size: int  # bytes
    nodes: int

    @property
    def words(self) -> str:
        lines = [
            f"{self.path}: {self.size / 1e6:.2f} MB, {self.nodes:,} nodes, {self.facts.precision}; "
            f"{self.facts.promise}.",
            f"Compared with Python: {self.parity.words}",
            *(f"- {note}" for note in self.facts.notes),
        ]
        return "\n".join(lines)


def export(
    osc: OpenSetClassifier,
    path: str | Path,
    *,
    check: Any = None,
    resize: bool = False,
    layout: str | None = None,
    precision: str = "float32",
    calibration: Any = None,
    calibration_labels: Any = None,
) -> Exported:
    """Write `osc` as one ONNX file: images in, verdicts out; and a model card beside it.

    path: ending with .onnx. check: images to compare the file with Python by, anything that `open_images` reads; made
    ones of every kind where none are given. resize: images of any size are taken, and resized in the graph.
    layout: "triton": path is the folder of a model, as Triton and OpenVINO Model Server read it.
    precision: "float16" or "int8": the network is converted, and references and threshold are computed again, on
    `calibration`, known images that are new to the classifier (with `calibration_labels` its accuracy is told).

    The file is written only when it decides as Python does on every one of the images, but for scores within a
    float32 ulp of the threshold.
    Raises UnsoundError where it does not, or for detectors that no graph can compute; ModelError when the classifier
    cannot be had as ONNX; CalibrationError for another precision with too few images; MissingExtraError without the
    extra `export`.
    """
    place = layout_of(Path(path), layout)
    osc, notes = _exact(osc)
    notes += [f"Added: {a.sentence}." for a in osc.added]
    with tempfile.TemporaryDirectory(prefix="knownot-") as folder:
        model, second = _networks(osc, Path(folder))
        if precision != "float32":
            made = convert_precision(osc, model, precision, calibration, calibration_labels, Path(folder))
            osc, model, notes = made.osc, made.osc.model, [*notes, made.words]
        proto = _built(osc, model, second, resize)
        data = serialise(proto)
        parity = compare(osc, by(model.input.batch, runner(data)), check, resizes=resize).require()
    facts = described(osc, model, resize=resize)
    facts = replace(facts, notes=tuple(notes), parity=parity.facts(), precision=precision)
    return write(place, proto, facts, parity)


def _exact(osc: OpenSetClassifier) -> tuple[OpenSetClassifier, list[str]]:
    """With exact neighbours, and a sentence if they were not."""
    detector = exact(osc.detector)
    if detector is osc.detector:
        return osc, []
    return replace(osc, detector=detector), [EXACT.format(names=", ".join(osc.detector.members))]


def _networks(osc: OpenSetClassifier, folder: Path) -> tuple[Model, Model | None]:
    """Classifier and second network as ONNX, showing what they show in Python. Raises ModelError."""
    from .graph import refuse

    refuse(osc)
    model = same_places(osc.model, osc.model.as_onnx(folder, _size(osc.preprocess)), "classifier")
    if osc.second is None:
        return model, None
    home = folder / "second"
    home.mkdir()
    try:
        other = osc.second.model.as_onnx(home, _size(osc.second.preprocess))
        return model, same_places(osc.second.model, other, "second network")
    except KnownotError as error:
        raise ModelError(f"The second network (features=): {error}") from error


def _size(way: Preprocess | None) -> tuple[int, int] | None:
    return None if way is None or way.height is None or way.width is None else (way.height, way.width)


def same_places(ours: Model, theirs: Model, who: str) -> Model:
    """`theirs`. Raises ModelError unless it shows the same classes, features and stages, with the same widths."""
    if ours is theirs:
        return theirs
    from ..models.base import probe

    batch = probe(theirs.input, theirs.input.batch or 2)
    there = theirs.forward(batch).named()
    for path, x in ours.forward(ours.input.to_layout(batch)).named().items():
        y = there.get(path)
        same = y is not None and y.shape == x.shape
        if same and path != "logits":  # these may differ by a constant
            same = bool(np.abs(x - y).max() <= APART * max(1.0, float(np.abs(x).max())))
        if not same:
            what = f"{path} {list(x.shape[1:])}" if y is None or y.shape != x.shape else f"the same values as {path}"
            shown = ", ".join(f"{name} {list(value.shape[1:])}" for name, value in there.items())
            raise ModelError(
                f"Converted to ONNX, the {who} does not show {what}; it shows {shown}. Fit on the converted network: "
                "export it to ONNX with its framework's tool, then knownot fit model.onnx …"
            )
    return theirs


def _built(osc: OpenSetClassifier, model: Model, second: Model | None, resize: bool) -> ModelProto:
    try:
        from .graph import build
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "spox":
            raise
        raise missing_extra("spox", "export", "Exporting to ONNX") from error
    if resize and osc.preprocess is None:
        raise OptionError(
            "resize= is for raw images, but this open-set classifier was fitted on float arrays, the classifier's own "
            "input."
        )
    if second is not None and not resize and osc.preprocess is not None:
        _same_size(osc)
    return build(osc, model, second, resize=resize)


def _same_size(osc: OpenSetClassifier) -> None:
    from ..images.preprocess import only_resized

    assert osc.preprocess is not None
    assert osc.second is not None
    assert osc.second.preprocess is not None
    ours, theirs = only_resized(osc.preprocess), only_resized(osc.second.preprocess)
    if ours != theirs:
        raise UnsoundError(
            f"Classifier and second network want images resized differently ({ours.height} × {ours.width}, "
            f"{theirs.height} × {theirs.width}), so the file has to do it: export with resize=True (--resize)."
        )


def described(osc: OpenSetClassifier, model: Model, *, resize: bool = False) -> Facts:
    """What the file says of itself. model: as ONNX."""
    calibration, way, record = osc.calibration, osc.preprocess, osc.record
    size = (way.height, way.width) if way is not None and way.height else (model.input.height, model.input.width)
    height, width = (None, None) if resize else size
    return Facts(
        class_names=osc.names[: len(osc.names) - len(osc.added)],
        added=tuple(a.name for a in osc.added),
        alpha=osc.alpha,
        guarantee=calibration.guarantee,
        delta=calibration.delta,
        promise=osc.promise,
        p_threshold=calibration.p_threshold,
        thresholds=tuple(calibration.p_thresholds(sorted({*ALPHAS, osc.alpha})).items()),
        calibration=len(calibration.scores),
        detector=type(osc.detector).__name__,
        members=tuple(osc.detector.members),
        raw=way is not None,
        resizes=resize,
        layout="NHWC" if way is not None else model.input.layout,
        height=height,
        width=width,
        channels=3 if way is not None else model.input.channels,
        batch=model.input.batch,
        preprocess=way,
        classifier=osc.model.framework,
        fingerprint=osc.model.fingerprint,
        accuracy=record.accuracy,
        accuracy_images=record.accuracy_images,
        known=record.known,
        calibration_is_new=record.calibration_is_new,
        version=__version__,
        fitted_by=record.version,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def write(place: Layout, proto: ModelProto, facts: Facts, parity: Parity) -> Exported:
    """The file with its metadata, at once, then the card and what else the layout has."""
    from .card import card

    del proto.metadata_props[:]
    for key, text in facts.written(OnnxFile(proto).fingerprint).items():
        proto.metadata_props.add(key=key, value=text)
    data = serialise(proto)
    path = place.file
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        draft.write_bytes(data)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    made = Exported(path=path, facts=facts, parity=parity, size=len(data), nodes=len(proto.graph.node))
    place.card.write_text(card(made), encoding="utf-8")
    for beside, text_of in place.more.items():
        beside.write_text(text_of(facts), encoding="utf-8")
    return made

"""Writing an open-set classifier as one ONNX file, checked against Python before it is there."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import ModelProto

from ..detectors.base import exact
from ..errors import KnownotError, ModelError, OptionError, UnsoundError, missing_extra
from ..models import Model
from ..models.onnx.file import OnnxFile, serialised
from ..version import __version__
from .metadata import ALPHAS, Facts
from .parity import Parity, compare
from .runtimes import by, runner

if TYPE_CHECKING:
    from ..openset.classifier import OpenSetClassifier

EXACT = (
    "{names} looks for neighbours with an approximate index in Python; the file searches exactly. What it finds is as "
    "near or nearer, so its p-values are as large or larger: the promise holds, and verdicts near the threshold differ."
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


def export(osc: OpenSetClassifier, path: str | Path, *, check: Any = None, resize: bool = False) -> Exported:
    """Write `osc` as one ONNX file: images in, verdicts out; and a model card beside it.

    path: ending with .onnx. check: images to compare the file with Python by, anything that `open_images` reads; made
    ones of every kind where none are given. resize: images of any size are taken, and resized in the graph.

    The file is written only when it decides as Python does on every one of these images, but for scores within a
    float32 ulp of the threshold.
    Raises UnsoundError where it does not, or for detectors that no graph can compute; ModelError when the classifier
    cannot be had as ONNX; MissingExtraError without the extra `export`.
    """
    path = _checked(Path(path))
    osc, notes = _exact(osc)
    with tempfile.TemporaryDirectory(prefix="knownot-") as folder:
        model, second = _networks(osc, Path(folder))
        proto = _built(osc, model, second, resize)
        data = serialised(proto)
        parity = compare(osc, by(model.input.batch, runner(data)), check, resizes=resize).require()
    facts = replace(described(osc, model, resize=resize), notes=tuple(notes), parity=parity.facts())
    return write(path, proto, facts, parity)


def _checked(path: Path) -> Path:
    if path.suffix.lower() != ".onnx":
        raise OptionError(f"{str(path)!r}: expected a name ending with .onnx.")
    if path.is_dir():
        raise OptionError(f"{str(path)!r} is a folder; give the name of a file.")
    return path


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
    model = same_places(osc.model, osc.model.as_onnx(folder), "classifier")
    if osc.second is None:
        return model, None
    home = folder / "second"
    home.mkdir()
    try:
        return model, same_places(osc.second.model, osc.second.model.as_onnx(home), "second network")
    except KnownotError as error:
        raise ModelError(f"The second network (features=): {error}") from error


def same_places(ours: Model, theirs: Model, who: str) -> Model:
    """`theirs`. Raises ModelError unless it shows the same classes, features and stages, with the same widths."""
    if ours is theirs:
        return theirs
    from ..models.base import probe

    batch = probe(theirs.input, theirs.input.batch or 2)
    there = {path: x.shape[1:] for path, x in theirs.forward(batch).named().items()}
    turned = ours.input.to_layout(batch) if ours.input.layout != theirs.input.layout else batch
    for path, x in ours.forward(turned).named().items():
        if there.get(path) != x.shape[1:]:
            raise ModelError(
                f"Converted to ONNX, the {who} does not show {path} {list(x.shape[1:])}, but "
                f"{ {name: list(shape) for name, shape in there.items()} }. Fit on the converted network: export it to "
                "ONNX with its framework's tool, knownot fit model.onnx …"
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
        class_names=osc.class_names,
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


def write(path: Path, proto: ModelProto, facts: Facts, parity: Parity) -> Exported:
    """The file with its metadata, at once, and the card beside it."""
    from .card import card

    del proto.metadata_props[:]
    for key, text in facts.written(OnnxFile(proto).fingerprint).items():
        proto.metadata_props.add(key=key, value=text)
    data = serialised(proto)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        draft.write_bytes(data)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    made = Exported(path, facts, parity, len(data), len(proto.graph.node))
    path.with_suffix(".README.md").write_text(card(made), encoding="utf-8")
    return made

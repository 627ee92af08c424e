"""What a saved folder or an exported file says of itself, as plain values; no network is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import saving
from ..arrays import Preprocess
from ..detectors import classes
from ..openset.classifier import OUR_KINDS
from .metadata import ALPHAS
from .reading import facts_of


def info(path: str | Path) -> dict[str, Any]:
    """{"kind", "classes", "promise", "detector", …} of a folder or an .onnx file. Raises SavedError."""
    path = Path(path)
    if path.suffix.lower() == ".onnx" and not path.is_dir():
        return _of_file(path)
    return _of_folder(path)


def _of_file(path: Path) -> dict[str, Any]:
    facts = facts_of(path)
    size = "any size, resized inside" if facts.resizes else f"{facts.height or 'h'} × {facts.width or 'w'}"
    return {
        "kind": "exported file",
        "classes": list(facts.names),
        "added_classes": list(facts.added),
        "promise": facts.promise,
        "alpha": facts.alpha,
        "guarantee": facts.guarantee,
        "delta": facts.delta,
        "p_threshold": facts.p_threshold,
        "thresholds": {f"{alpha:g}": p for alpha, p in facts.thresholds},
        "calibration_images": facts.calibration,
        "detector": facts.detector,
        "members": list(facts.members),
        "accuracy": facts.accuracy,
        "accuracy_images": facts.accuracy_images,
        "input": f"{'raw uint8' if facts.raw else f'float32 {facts.layout}'}, {size}, {facts.channels or 'k'} channels",
        "preprocessing": _way(facts.preprocess),
        "precision": facts.precision,
        "runtime": facts.runtime,
        "classifier": facts.classifier,
        "fingerprint": facts.fingerprint,
        "knownot": facts.version,
        "fitted_by": facts.fitted_by,
        "created": facts.created,
        "parity": dict(facts.parity),
        "notes": list(facts.notes),
    }


def _of_folder(path: Path) -> dict[str, Any]:
    things, about, files = saving.read(path, {**classes(), **OUR_KINDS})
    calibration, record, detector = things["calibration"], things["record"], things["detector"]
    added = [a.name for a in things.get("added", ())]
    return {
        "kind": "saved folder",
        "classes": [*things["class_names"], *added],
        "added_classes": added,
        "promise": f"none. {record.void}" if record.void else calibration.sentence,
        "alpha": calibration.alpha,
        "guarantee": calibration.guarantee,
        "delta": calibration.delta,
        "p_threshold": calibration.p_threshold,
        "thresholds": {f"{alpha:g}": p for alpha, p in calibration.p_thresholds(ALPHAS).items()},
        "calibration_images": len(calibration.scores),
        "detector": type(detector).__name__,
        "members": list(detector.members),
        "accuracy": record.accuracy,
        "accuracy_images": record.accuracy_images,
        "known_images": record.known,
        "preprocessing": _way(things["preprocess"]),
        "classifier": about.get("framework"),
        "model_file": about.get("model_file") or "left out",
        "second_network": (about.get("second") or {}).get("framework"),
        "fingerprint": about.get("fingerprint"),
        "knownot": about.get("knownot"),
        "files": list(files),
        "notes": list(record.notes),
    }


def _way(way: Preprocess | None) -> dict[str, Any] | None:
    if way is None:
        return None
    return {name: list(x) if isinstance(x, tuple) else x for name, x in vars(way).items()}

"""Where the file and its card go: a file by itself, or the folder that a model server reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import OptionError, unknown_name
from .metadata import Facts

KINDS = (  # output, type in Triton's words, and whether it has one number for each class
    ("label", "TYPE_INT64", False),
    ("unknown", "TYPE_BOOL", False),
    ("p_value", "TYPE_FP32", False),
    ("score", "TYPE_FP32", False),
    ("closed_label", "TYPE_INT64", False),
    ("probabilities", "TYPE_FP32", True),
)
MOST = 256  # images that a server puts together


@dataclass(frozen=True)
class Layout:
    """file, card: where they are written. more: {further file: its text}, of the facts."""

    file: Path
    card: Path
    more: dict[Path, Callable[[Facts], str]]


def layout_of(path: Path, layout: str | None) -> Layout:
    """path: the file, or for a server the folder of the model, its name the model's. Raises OptionError."""
    if layout is not None and layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    return _one_file(path) if layout is None else LAYOUTS[layout](path)


def _one_file(path: Path) -> Layout:
    if path.suffix.lower() != ".onnx":
        raise OptionError(f"{str(path)!r}: expected a name ending with .onnx.")
    if path.is_dir():
        raise OptionError(f"{str(path)!r} is a folder; give the name of a file.")
    return Layout(path, path.with_suffix(".README.md"), {})


def _triton(path: Path) -> Layout:
    if path.suffix:
        raise OptionError(f"{str(path)!r}: the layout of a server is a folder, called as the model: models/osc.")
    if path.is_file():
        raise OptionError(f"{str(path)!r} is a file; give the folder of the model.")
    return Layout(
        path / "1" / "model.onnx", path / "README.md", {path / "config.pbtxt": lambda f: config_pbtxt(path.name, f)}
    )


def config_pbtxt(name: str, facts: Facts) -> str:
    """The configuration that Triton Inference Server reads; OpenVINO Model Server needs the version folder only."""
    sides = [-1 if s is None else s for s in (facts.height, facts.width)]
    k = facts.channels or 3
    dims = [*sides, k] if facts.layout == "NHWC" else [k, *sides]
    kind = "TYPE_UINT8" if facts.raw else "TYPE_FP32"
    several = facts.batch is None
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {MOST if several else 0}",
        f'input [ {{ name: "images" data_type: {kind} dims: {dims if several else [facts.batch, *dims]} }} ]',
        "output [",
    ]
    for i, (output, kind, wide) in enumerate(KINDS):
        own = [len(facts.class_names)] if wide else []
        if several and not own:
            shape = "dims: [1] reshape: { shape: [] }"  # one number for each image
        else:
            shape = f"dims: {own if several else [facts.batch, *own]}"
        comma = "," if i < len(KINDS) - 1 else ""
        lines.append(f'  {{ name: "{output}" data_type: {kind} {shape} }}{comma}')
    return "\n".join([*lines, "]", *(["dynamic_batching { }"] if several else []), ""])


LAYOUTS: dict[str, Callable[[Path], Layout]] = {"triton": _triton}

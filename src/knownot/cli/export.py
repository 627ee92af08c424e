from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..errors import OptionError
from .common import machine_options, networks_of, said


@click.command("export")
@click.argument("saved", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1)
@click.option(
    "--check",
    multiple=True,
    help="Images to compare the file with Python by, before it is written: a folder, "
    "files, a glob or Parquet (several times). Made ones of every kind, if left out.",
)
@click.option("--resize", is_flag=True, help="The file takes images of any size and resizes them itself.")
@click.option(
    "--layout",
    type=click.Choice(["triton"]),
    help="OUTPUT is the folder of a model, as Triton and OpenVINO Model Server read it.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16", "int8"]),
    default="float32",
    show_default=True,
    help="Precision of the network. Any but float32 needs --calibration.",
)
@click.option(
    "--calibration",
    help="With --precision: known images that are new to the classifier; they decide the threshold again.",
)
@click.option("--model", help="The classifier, when it was saved without it, or to export another form of it.")
@click.option("--features", help="The second network, when it was saved without it.")
@click.option(
    "--verify",
    is_flag=True,
    help="Write nothing: 'knownot export --verify osc.onnx osc/ IMAGES' compares a "
    "file with the folder that it was exported from.",
)
@click.option("--runtime", default="onnxruntime", show_default=True, help="With --verify: onnxruntime or openvino.")
@machine_options
def command(saved: Path, output: Path, images: tuple[str, ...], check: tuple[str, ...], verify: bool, runtime: str,
            as_json: bool, quiet: bool, **options: Any) -> int:  # fmt: skip
    """One ONNX file of classifier, detector and threshold: images in, verdicts out.

    SAVED is what 'knownot fit' wrote, OUTPUT a name ending with .onnx (or a folder, with --layout). The file is
    compared with Python on images, and written only when it decides as Python does. It runs wherever ONNX Runtime does.
    """
    if verify:
        return _verify(saved, output, list(images), runtime, as_json, options)
    if images:
        raise OptionError(f"{images[0]!r}: give images to compare by with --check.")
    if runtime != "onnxruntime":
        raise OptionError("--runtime says where --verify runs a file; a new file is compared in onnxruntime.")
    from ..export import export

    osc = _loaded(saved, options)
    made = export(
        osc, output, check=_one(check), resize=options["resize"], layout=options["layout"],
        precision=options["precision"], calibration=options["calibration"],
    )  # fmt: skip
    facts = {"path": str(made.path), "bytes": made.size, "nodes": made.nodes, "parity": made.parity.facts()}
    said(made.words, {**facts, "notes": list(made.facts.notes)}, as_json)
    return 0


def _loaded(saved: Path, options: dict[str, Any]) -> Any:
    from ..openset.classifier import load

    model, features = options["model"], options["features"]
    return load(saved, **networks_of(model, features))


def _one(images: tuple[str, ...] | list[str]) -> Any:
    return None if not images else images[0] if len(images) == 1 else list(images)


def _verify(file: Path, saved: Path, images: list[str], runtime: str, as_json: bool, options: dict[str, Any]) -> int:
    from ..export import verify

    parity = verify(file, _loaded(saved, options), _one(images), runtime=runtime)
    lines = [f"{file}: {parity.words}"]
    lines += [f"- {image}: Python says {ours}, the file {theirs}" for image, ours, theirs in parity.mismatches[:20]]
    said("\n".join(lines), asdict(parity), as_json)
    return 0 if parity.agrees else 1

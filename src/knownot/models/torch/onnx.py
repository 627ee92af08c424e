"""A torch classifier written as ONNX, by torch's own exporter from a torch.export program."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...errors import KnownotError, ModelError, missing_extra
from . import files
from .saving import EXPORTABLE, program_of

if TYPE_CHECKING:
    from . import TorchModel
    from .network import Network

SCRIPT = (
    "This classifier is TorchScript, which torch's ONNX exporter does not read. Export from the network itself: give "
    "it when loading, knownot.load(folder, model=network) (--model module:name), or save it with torch.export.save "
    "(.pt2) and fit on that. Folders that this version of knownot saves hold such a program beside the TorchScript."
)


def write(model: TorchModel, folder: Path, size: tuple[int, int]) -> Path:
    """The classifier as an ONNX file in `folder`, with a batch of any size where the program has one.

    Raises ModelError, with the cure; MissingExtraError without onnxscript.
    """
    try:
        import onnxscript  # noqa: F401  # torch's exporter writes with it
    except ImportError as error:
        raise missing_extra("onnxscript", "export", "Exporting a torch classifier to ONNX") from error
    network = model.network
    if network.kind == "script":
        network = _program_beside(model)
    path = folder / "model.onnx"
    h, w = size
    n = model.input.batch or 2
    k = model.input.channels or 3
    shape = (n, h, w, k) if model.input.layout == "NHWC" else (n, k, h, w)
    x = torch.from_numpy(np.random.default_rng(0).random(shape, dtype=np.float32)).to(network.device, network.dtype)
    try:
        with warnings.catch_warnings(), network.untouched(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            _written(network, x, path, fixed=model.input.batch is not None)
    except Exception as error:  # whatever torch's exporter raises
        raise ModelError(
            f"torch {torch.__version__} could not export the classifier to ONNX: {' '.join(str(error).split())[:300]} "
            "Export it yourself (torch.onnx.export) and fit on that file."
        ) from error
    return path


def _written(network: Network, x: torch.Tensor, path: Path, *, fixed: bool) -> None:
    options: dict[str, Any] = {"dynamo": True, "verbose": False, "external_data": False, "optimize": True}
    if network.kind == "program":
        torch.onnx.export(network.thing, (x,), str(path), **options)
        return
    program = program_of(network, x, {} if fixed else {0: torch.export.Dim.DYNAMIC})
    torch.onnx.export(program, (x,), str(path), **options)


def _program_beside(model: TorchModel) -> Network:
    """The torch.export program that was saved beside a TorchScript file. Raises ModelError where there is none."""
    from .network import Network

    path = None if model.file is None else model.file.parent / EXPORTABLE
    if path is None or not path.is_file():
        raise ModelError(SCRIPT)
    try:
        thing, _, _ = files.read(path, unsafe_pickle=False)
        network = Network(thing)
    except KnownotError as error:
        raise ModelError(f"{SCRIPT} The program in this folder cannot be used: {error}") from error
    if network.fingerprint() != model.fingerprint:
        raise ModelError(f"{SCRIPT} The program beside this file has other weights.")
    return network

"""Writing a torch classifier so that what is opened again computes the same bits."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...arrays import InputSpec
from ...errors import KnownotError, ModelError
from . import files, outputs

if TYPE_CHECKING:
    from . import TorchModel
    from .network import Network

EXPORTABLE = "export.pt2"  # beside TorchScript: the same network as a program, of which an ONNX file can be made

# File name, how to write it, what to tell the user, what the file then reads.
Route = tuple[str, Callable[[Path], None], str, InputSpec]


def save(model: TorchModel, folder: Path, opened: Callable[..., TorchModel]) -> tuple[str, str]:
    """Write `model` into `folder`: (file name, a note or ""). opened: opens what was written.

    A file that was opened is copied. Otherwise the first way of writing wins that gives, opened again, the same
    bits for a probe. Raises ModelError when none does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if model.file is not None:
        name = "model" + model.file.suffix.lower()
        if (folder / name).resolve() != model.file.resolve():
            shutil.copyfile(model.file, folder / name)
        return name, ""
    failures = []
    for name, write, note, spec in _routes(model):
        path = folder / name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with model.network.untouched(), torch.inference_mode(False), torch.no_grad():
                    write(path)
            difference = _difference(model, opened(path, embedding=model.embedding), spec)
        except Exception as error:
            difference = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if not difference:
            if name == "model.ts" and model.network.kind == "module":
                _beside(model, folder / EXPORTABLE)
            return name, note
        failures.append(f"{name}{f' ({note})' if note else ''}: {difference}")
        path.unlink(missing_ok=True)
    raise ModelError(
        "The classifier could not be written so that it computes the same when opened again. Tried: "
        + " | ".join(failures)
        + ". Export it yourself (torch.export.save) and open that file, or save without the classifier "
        "(include_model=False, --no-model) and give it again: load(folder, model=…)."
    )


def _routes(model: TorchModel) -> Iterator[Route]:
    network, spec = model.network, model.input
    extra = {
        files.SAID: files.told(
            model.preprocess,
            head=model.options["head"],
            stages=model.options["stages"],
            size=model.options["size"],
            class_names=model.class_names,
        )
    }
    if network.kind == "program":
        yield "model.pt2", lambda p: torch.export.save(network.thing, str(p), extra_files=extra), "", spec
        return
    if network.kind == "script":
        yield "model.ts", lambda p: torch.jit.save(network.thing, str(p), _extra_files=extra), "", spec
        return
    shape = (2, spec.channels or 3, *model.used)
    x = torch.from_numpy(np.random.default_rng(0).random(shape, dtype=np.float32)).to(network.device, network.dtype)

    def export(dynamic: dict[int, Any]) -> Callable[[Path], None]:
        return lambda path: torch.export.save(
            program_of(network, x, dynamic, _plain(model)), str(path), extra_files=extra
        )

    def trace(path: Path) -> None:
        traced = torch.jit.trace(_plain(model), x, check_trace=False)
        torch.jit.save(traced, str(path), _extra_files=extra)

    def script(path: Path) -> None:
        torch.jit.save(torch.jit.script(copy.deepcopy(network.module)), str(path), _extra_files=extra)

    auto, batch = torch.export.Dim.AUTO, {0: torch.export.Dim.DYNAMIC}
    h, w = model.used
    sized = replace(spec, height=h, width=w)
    if spec.height is None:
        yield "model.pt2", export({0: auto, 2: auto, 3: auto}), "", spec
        yield "model.ts", trace, "Saved as TorchScript: torch.export would have fixed the image size.", spec
        yield "model.ts", script, "Saved as TorchScript: torch.export would have fixed the image size.", spec
        yield "model.pt2", export(batch), f"Saved for images of {h} x {w} pixels only.", sized
    else:
        yield "model.pt2", export(batch), "", spec
        yield "model.ts", trace, "Saved as a TorchScript trace: torch.export did not give a batch of any size.", spec
    yield "model.pt2", export({}), "Saved with a fixed batch size of 2: slower.", replace(sized, batch=2)


def _plain(model: TorchModel) -> torch.nn.Module:
    """A copy of the network that gives its scores and nothing else: an output of a class of another library, as Hugging
    Face's, could be opened again only where that library has been imported."""
    module = copy.deepcopy(model.network.module)
    if model.path:
        whole, path = module.forward, model.path
        module.forward = lambda images: outputs.follow(whole(images), path)
    return module


def program_of(
    network: Network, x: torch.Tensor, dynamic: dict[int, Any], module: torch.nn.Module | None = None
) -> torch.export.ExportedProgram:
    """torch.export of a copy of a module. dynamic: axes of x that take any size. module: that copy, if made already."""
    module = copy.deepcopy(network.module) if module is None else module
    return torch.export.export(module, (x,), dynamic_shapes=(dynamic,) if dynamic else None, strict=False)


def _beside(model: TorchModel, path: Path) -> None:
    """The network as a program for images of the size that it was used with, where it can be had."""
    network = model.network
    x = torch.zeros((2, model.input.channels or 3, *model.used), device=network.device, dtype=network.dtype)
    try:
        with warnings.catch_warnings(), network.untouched(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.export.save(program_of(network, x, {0: torch.export.Dim.DYNAMIC}), str(path))
    except Exception:  # whatever torch raises: then the folder has none, and `as_onnx` says so
        path.unlink(missing_ok=True)


def _difference(model: TorchModel, again: TorchModel, spec: InputSpec) -> str:
    """What differs between a model and the one opened from the file written of it; "" when no bit does."""
    if again.input != spec:
        return f"it reads {again.input}, not {spec}"
    if again.fingerprint != model.fingerprint:
        return "other weights"
    if again.capabilities != model.capabilities:
        return f"it offers {again.capabilities}, not {model.capabilities}"
    h, w = used = model.used
    probes = [(1, h, w), (3, h, w)]
    if again.input.height is None:
        probes += [(2, h + 32, w + 32), (2, 2 * h, w + 32)]
    for n, h, w in probes:
        x = np.random.default_rng(n).random((n, model.input.channels or 3, h, w), dtype=np.float32)
        try:
            ours = model.forward(x).named()
        except KnownotError:
            continue  # the classifier itself does not take this size
        finally:
            model.used = used
        theirs = again.forward(x).named()
        for key, values in ours.items():
            if not np.array_equal(values, theirs[key]):
                return f"{key} differ by up to {np.abs(values - theirs[key]).max():.3g}"
    return ""

"""Folders of Hugging Face image classifiers (`save_pretrained`): the network by transformers' own classes, no code of
the folder, and what its processor says of preprocessing."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...arguments import preprocess_fields
from ...arrays import Preprocess
from ...errors import MissingExtraError, ModelError, OptionError

PROCESSOR = "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def network_of(folder: Path) -> tuple[torch.nn.Module, Preprocess | None, tuple[str, ...]]:
    """(the network in evaluation mode, in float32; what the folder says of preprocessing; notes).

    Raises ModelError for what is no image classifier, has code or pickles instead of weights, or weights that do not
    belong to it; MissingExtraError without transformers.
    """
    config = _json(folder / "config.json")
    _check(folder, config)
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{folder.name!r} is a Hugging Face model folder. Opening it needs the package 'transformers', which is "
            "not installed. Install it with: pip install transformers (with 'knownot[torch]')"
        ) from error
    with _silent():
        try:
            network, found = transformers.AutoModelForImageClassification.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True,
                output_loading_info=True,
            )  # fmt: skip
        except Exception as error:  # of any class: transformers raises what it likes
            raise ModelError(f"transformers {transformers.__version__} cannot open {str(folder)!r}: {error}") from error
    _check_loaded(folder, found)
    own = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    notes = () if own == torch.float32 else (f"Its weights are {own}; they are computed with in float32.",)
    return network.float().eval(), _preprocess(folder, config), notes


def _check(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises ModelError unless this is an image classifier, with weights, and without code of its own."""
    kinds = [str(kind) for kind in config.get("architectures") or ()]
    timm = "architecture" in config and "pretrained_cfg" in config
    if not timm and not any("ForImageClassification" in kind for kind in kinds):
        raise ModelError(
            f"{str(folder)!r} is a Hugging Face model folder of {', '.join(kinds) or 'an unnamed kind'}, which is no "
            "image classifier (…ForImageClassification). For an embedding network give the network itself, as an "
            "nn.Module: features=knownot.open_model(module, embedding=True)."
        )
    if "auto_map" in config:
        raise ModelError(
            f"{str(folder)!r} brings its network as Python code (trust_remote_code), which is not run. Where you trust "
            "it, open it yourself and give the nn.Module, or export it (torch.export.save) and give the file."
        )
    if config.get("problem_type") == "multi_label_classification":
        raise ModelError(
            f"{str(folder)!r} was trained with one yes or no per class (multi_label_classification): its classes do "
            "not exclude one another. knownot reads classifiers that choose one class."
        )
    if not any((folder / name).is_file() for name in WEIGHTS):
        pickles = sorted(p.name for p in folder.glob("*.bin"))
        there = f"only {pickles[0]!r}, a pickle, which may run any code when it is opened" if pickles else "no weights"
        raise ModelError(
            f"{str(folder)!r} has no model.safetensors: {there}. Save it again with model.save_pretrained(folder, "
            "safe_serialization=True), or download the whole folder."
        )


def _check_loaded(folder: Path, found: Mapping[str, Any]) -> None:
    """Raises ModelError where parts of the network have no weights in the file, and were drawn by chance."""
    for what, words in (("missing_keys", "are missing"), ("mismatched_keys", "have other shapes")):
        if names := sorted(str(n[0] if isinstance(n, tuple) else n) for n in found.get(what) or ()):
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ModelError(
                f"{str(folder)!r} is a Hugging Face folder that does not hold the whole classifier: weights {words} "
                f"({', '.join(names[:3])}{more}), and would be drawn by chance. "
                "Save it again after training, with model.save_pretrained(folder)."
            )


def _preprocess(folder: Path, config: Mapping[str, Any]) -> Preprocess | None:
    timm = config.get("pretrained_cfg")
    said = timm if isinstance(timm, Mapping) else None
    if (folder / PROCESSOR).is_file():
        said = _json(folder / PROCESSOR)
    try:
        fields = preprocess_fields(said) if said else None
        name = "the folder's pretrained_cfg" if said is timm else f"the folder's {PROCESSOR}"
        return None if fields is None else Preprocess(**{**fields, "name": name})
    except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError, OptionError) as error:
        raise ModelError(f"{str(folder / PROCESSOR)!r} makes no sense: {error!r}. Copy the folder again.") from error


def _json(path: Path) -> Mapping[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{str(path)!r} cannot be read: {error}. Copy the folder again.") from error
    if not isinstance(said, Mapping):
        raise ModelError(f"{str(path)!r} holds no JSON object. Copy the folder again.")
    return said


@contextmanager
def _silent() -> Iterator[None]:
    """Without the bars and warnings of transformers: what matters of them is an error here."""
    from transformers.utils import logging as theirs

    before, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.CRITICAL)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(before)
        if bars:
            theirs.enable_progress_bar()


def opened(
    folder: Any, *, head: str | None = None, stages: Sequence[str] | None = None,
    size: tuple[int, int] | None = None, **options: Any,
) -> Any:  # fmt: skip
    """The classifier of such a folder. Raises ModelError, MissingExtraError."""
    from . import opened as opened_torch

    network, said, notes = network_of(Path(folder))
    model = opened_torch(network, head=head, stages=stages, size=size, **options)
    if said is not None and model.input.channels == 1:  # its processor says nothing of colours
        said = replace(said, channels="grey", mean=said.mean[:1], std=said.std[:1])
    model.preprocess = said or model.preprocess
    model.notes = (*model.notes, *notes)
    return model

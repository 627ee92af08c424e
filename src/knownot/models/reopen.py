"""The network's file in a saved folder: what the manifest says of it, and opening it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import SavedError, UnsafeError
from . import Model, open_model
from .saved import permitted


def described(model: Model, file: str | None) -> dict[str, Any]:
    """What the manifest says of a network. file: within the folder, None when it was left out."""
    return {
        "model_file": file,
        "framework": model.framework,
        "fingerprint": model.fingerprint,
        "stages": list(model.capabilities.stages),
        "opened_with": dict(model.opened_with),
    }


def reopen(about: Mapping[str, Any], given: Any, folder: Path, files: Sequence[str], *, who: str, option: str) -> Model:
    """The network that the manifest speaks of: `given` if there is one, else its file; opened as at fit time.

    who, option: what messages call it, and the argument of `load` that gives it.
    Raises SavedError when it is not there, or another one.
    """
    file = about.get("model_file")
    if file is not None and file not in files:
        raise SavedError(f"The manifest names a model outside its folder: {file!r}. Do not use this folder.")
    given = folder / file if given is None and file is not None else given
    if given is None:
        raise SavedError(f"{folder} was saved without its {who}: give load(folder, {option}=…).")
    try:
        options = permitted(about.get("opened_with"))
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise SavedError(f"The manifest of {folder} does not say how the {who} is opened: {error!r}.") from error
    try:
        opened = given if isinstance(given, Model) else open_model(given, **options)
    except UnsafeError as error:
        raise SavedError(
            f"The {who} was not opened: {error} What is loaded never gets that permission from a folder; if you trust "
            f"it, open it yourself and give it: load(folder, {option}=knownot.open_model(file, unsafe_pickle=True))."
        ) from error
    if opened.fingerprint != about.get("fingerprint"):
        raise SavedError(
            f"This is not the {who} that was fitted: its weights have another fingerprint. Fit again."
            + (" (It was opened with embedding=True at fit time.)" if options.get("embedding") else "")
        )
    if list(opened.capabilities.stages) != list(about.get("stages", [])):
        raise SavedError(
            f"The {who} shows the stages {list(opened.capabilities.stages)}, but {about.get('stages')} were fitted. "
            "Open it as at fit time (the same file), or fit again."
        )
    return opened

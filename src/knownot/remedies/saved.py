"""A retrained classifier in a folder: the model, how it is opened, the scorer that belongs to it, and its history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import saving
from ..detectors import Detector, Recipe, classes
from ..errors import OptionError, SavedError
from ..models import open_model
from ..models import saved as model_folder
from ..models.reopen import described, reopened
from ..openset.replacing import replacing
from ..version import __version__
from .base import Remedied
from .training.frameworks import also_saved

KIND = "retrained classifier"
WORDS = (
    "remedy",
    "none_classes",
    "accuracy_before",
    "accuracy_after",
    "accuracy_images",
    "validation_is_new",
    "seconds",
)


def save(remedied: Remedied, folder: Path) -> Path:
    """See `Remedied.save`."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not is_remedied(folder))):
        raise SavedError(f"{str(folder)!r} is a file or holds something else: it is left as it is. Give a new folder.")
    if isinstance(remedied.detector, Recipe):
        raise OptionError("A recipe is not saved; give the remedy's scorer by name, or fitted.")
    with replacing(folder) as draft:
        _write(remedied, draft)
    return folder


def _write(remedied: Remedied, folder: Path) -> None:
    file = remedied.opened.save(folder)
    if remedied.model is not None:
        also_saved(remedied.opened, remedied.model, folder)
    names = remedied.class_names
    model_folder.write(folder, remedied.opened, file, remedied.opened.preprocess, names)
    about = {"knownot": __version__, "is": KIND, **described(remedied.opened, file)}
    about |= {word: getattr(remedied, word) for word in (*WORDS, "share")}
    things: dict[str, Any] = {
        "detector": remedied.detector,
        "history": tuple(dict(line) for line in remedied.history),
        "class_names": names,
        "notes": remedied.notes,
        "options": {key: value for key, value in remedied.options.items() if _plain(value)},
    }
    files = tuple(sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()))
    saving.write(folder, things, about=about, files=files)


def is_remedied(folder: Path) -> bool:
    return (folder / saving.MANIFEST).is_file() and (folder / model_folder.FILE).is_file()


def load(folder: str | Path) -> Remedied:
    """Open what `Remedied.save` wrote; `model` is None, `opened` the classifier. No code of the folder is run.

    Raises SavedError when the folder is damaged or something else.
    """
    folder = Path(folder)
    if not is_remedied(folder):
        raise SavedError(
            f"{str(folder)!r} is no folder of a retrained classifier: it has no {model_folder.FILE}. A saved open-set "
            "classifier is opened by knownot.load."
        )
    things, about, files = saving.read(folder, classes())
    if about.get("is") != KIND:
        raise SavedError(f"{str(folder)!r} is no retrained classifier. A saved open-set classifier is opened by load.")
    opened = reopened(about, open_model(folder), folder, files, who="classifier", option="model")
    detector = things["detector"]
    if not isinstance(detector, str | Detector):
        raise SavedError(f"{folder} names no detector. Save the retrained classifier again.")
    try:
        words = {word: about[word] for word in WORDS}
        return Remedied(
            model=None, opened=opened, detector=detector, history=things["history"], options=things["options"],
            class_names=tuple(things["class_names"]), notes=tuple(things["notes"]), share=about.get("share", 1.0),
            **words,
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise SavedError(f"{folder} does not hold what a retrained classifier needs: {error!r}.") from error


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)

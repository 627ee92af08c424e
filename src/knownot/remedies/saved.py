"""A retrained classifier: the model, the scorer that belongs to it and its history; also in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import saving
from ..detectors import Detector, Recipe, beside_default, classes, configure, given, label
from ..errors import OptionError, SavedError
from ..models import Model, open_model
from ..models import saved as model_folder
from ..models.reopen import described, reopen
from ..openset.classifier import OpenSetClassifier
from ..openset.fit import fit
from ..openset.replacing import replacing
from ..version import __version__
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


@dataclass(frozen=True)
class Remedied:
    """A retrained classifier, and how well it still knows its classes.

    model: a `keras.Model` or `nn.Module`; None when the remedy left the user's own as it was. opened: the classifier to
    use from now on, opened, with its none-classes if it has any. detector: the scorer that belongs to it, a name, a
    recipe or a fitted detector. accuracy_before, accuracy_after: on the same `accuracy_images` known images, which were
    not trained on. validation_is_new: whether these were given, rather than held out of the known images, which the
    classifier knows from its own training. share: how far the weights went on the way to those that were learnt.
    """

    remedy: str
    model: Any
    opened: Model
    none_classes: int
    detector: Any
    history: tuple[Mapping[str, float], ...]
    accuracy_before: float
    accuracy_after: float
    accuracy_images: int
    validation_is_new: bool
    seconds: float
    class_names: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    share: float = 1.0

    @property
    def recipe(self) -> Recipe:
        """Of the scorer that belongs to it, for `knownot.fit(…, detector=…)`."""
        return recipe_of(self.detector)

    @property
    def scorer(self) -> str:
        """The name of that, for people: its own in the table, the remedy's for one that is fitted already."""
        if isinstance(self.detector, str):
            return self.detector
        return self.remedy if isinstance(self.detector, Detector) else label(self.recipe)

    @property
    def combined(self) -> dict[str, Any]:
        """The default detectors and its own, for `knownot.fit(…, detector=…)`."""
        return beside_default(self.remedy, self.detector)

    def fit(self, known: Any, labels: Any = None, *, detector: Any = None, **options: Any) -> OpenSetClassifier:
        """`knownot.fit` of the retrained classifier. detector: `combined`, unless told otherwise."""
        return fit(self.opened, known, labels, detector=self.combined if detector is None else detector, **options)

    def save(self, folder: str | Path) -> Path:
        """Write model, scorer and history into a folder that `knownot.fit`, `knownot fit` and `remedies.load` open.

        Files: the model (.keras or .pt2), for torch its state dict as well; JSON and safetensors. No code is stored.
        Raises SavedError for a folder with something else in it, ModelError when the model cannot be written.
        """
        return save(self, Path(folder))

    def __repr__(self) -> str:
        what = f" {self.none_classes} none-class{'es' if self.none_classes > 1 else ''}," if self.none_classes else ""
        return (
            f"Remedied({self.remedy!r},{what} accuracy {self.accuracy_before:.2%} before, {self.accuracy_after:.2%} "
            f"after on {self.accuracy_images:,} images, {self.seconds:.0f} s)"
        )


def recipe_of(detector: Any) -> Recipe:
    if isinstance(detector, Detector):
        return given(detector)
    if isinstance(detector, Recipe):
        return detector
    return configure(detector)


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
    opened = reopen(about, open_model(folder), folder, files, who="classifier", option="model")
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

"""What a remedy is, what it is given, and what comes back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..detectors import Detector, Recipe, beside_default, configure, given, label
from ..errors import OptionError
from ..models import Model
from ..openset.classifier import OpenSetClassifier, fit

if TYPE_CHECKING:
    from .training.data import Outliers, Pool

MODES = ("head", "full")


@dataclass(frozen=True)
class Settings:
    """How to train; what does not belong to one remedy.

    mode: "head": the last layer only, on features computed once; "full": all weights.
    epochs, batch_size: passes over the known images, and how many of them per step. learning_rate: None for the mode's
    own; it falls to 0 along half a cosine. ratio: outliers per known image in each batch. balanced: each class as often
    as any other. augment: "none", "flip", "shift" or "flip+shift", of known images and outliers (full mode).
    freeze_norm: batch normalisation stays as it is. patience: stop after so many epochs without a lower validation
    loss, and keep the best weights; None: never. folder: for checkpoints, from which an interrupted training goes on;
    save_every: steps between them, None for one an epoch. device: where to train, None for where the classifier is.
    half: compute in bfloat16 while training (weights stay float32): None where the device is made for it, True on a CPU
    too, False nowhere.
    """

    mode: str = "full"
    epochs: int = 2
    batch_size: int = 128
    learning_rate: float | None = None
    ratio: float = 0.5
    balanced: bool = False
    augment: str = "flip+shift"
    freeze_norm: bool = True
    patience: int | None = None
    seed: int = 0
    folder: Path | None = None
    save_every: int | None = None
    device: str | None = None
    half: bool | None = None
    progress: bool = True


@dataclass(frozen=True)
class Task:
    """What a remedy works on. opened: the user's classifier, which stays as it is; names [c] of its classes.

    known: training images with labels; validation: known images that are not trained on; outliers: None without.
    """

    opened: Model
    known: Pool
    validation: Pool
    outliers: Outliers | None
    names: tuple[str, ...]
    settings: Settings
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        return self.opened.offers.classes


@dataclass(frozen=True)
class Outcome:
    """What a remedy made of a task. model: a new model of the same framework, None when it is the user's own.

    none_classes: how many of its last outputs are no class. detector: a name, a recipe or a fitted detector instead of
    the remedy's own, if it was made on the way. history: one mapping an epoch. at: gives the model with weights so far
    (0 to 1) on the way from those it had to those it learnt, which ends the use of the one before; None when there is
    no such model.
    """

    model: Any = None
    none_classes: int = 0
    detector: Any = None
    history: tuple[Mapping[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    at: Callable[[float], Any] | None = None


class Remedy(ABC):
    """A way to retrain the classifier. Subclasses are final, frozen dataclasses: their fields are their options.

    name: in the table. outliers: "required", "optional" or "none". modes: those it knows, the usual one first.
    keeps: the modes in which the classifier stays as it is, and only a scorer beside it is trained. detector: the
    scorer that belongs to it, a name of `knownot.detectors()`. paper, summary: for the table.
    """

    name: ClassVar[str]
    outliers: ClassVar[str] = "none"
    modes: ClassVar[tuple[str, ...]] = ("full",)
    keeps: ClassVar[tuple[str, ...]] = ()
    detector: ClassVar[str] = "default"
    paper: ClassVar[str] = ""
    summary: ClassVar[str] = ""

    @abstractmethod
    def retrain(self, task: Task) -> Outcome:
        """Do it. Raises OptionError for options out of range, before anything is trained."""


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
        from .saved import save

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


def chosen_mode(remedy: type[Remedy], mode: str | None) -> str:
    """The mode asked for, or the remedy's usual one. Raises OptionError for one that it does not know."""
    if mode is None:
        return remedy.modes[0]
    if mode not in remedy.modes:
        why = " Its loss concerns the features, which the head mode leaves as they are." if mode == "head" else ""
        raise OptionError(f"mode={mode!r}: {remedy.name} knows {' and '.join(repr(m) for m in remedy.modes)}." + why)
    return mode

"""What a remedy is, what it is given, and what comes back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import OptionError
from ..models import Model

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
    save_every: steps between them, None for one an epoch. memory: about what training may take, as "4GB" or in bytes,
    None for 2 GB: a step's images go through the network in as many parts as that needs, and the step stays the same.
    device: where to train, None for where the classifier is.
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
    memory: str | float | None = None
    device: str | None = None
    half: bool | None = None
    progress: bool = True

    @property
    def rate(self) -> float:
        """The learning rate asked for, or the usual one: small where all weights move."""
        usual = {"full": 1e-4, "head": 1e-2}[self.mode]
        return usual if self.learning_rate is None else self.learning_rate


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
        return self.opened.capabilities.classes


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


def chosen_mode(remedy: type[Remedy], mode: str | None) -> str:
    """The mode asked for, or the remedy's usual one. Raises OptionError for one that it does not know."""
    if mode is None:
        return remedy.modes[0]
    if mode not in remedy.modes:
        why = " Its loss concerns the features, which the head mode leaves as they are." if mode == "head" else ""
        raise OptionError(f"mode={mode!r}: {remedy.name} knows {' and '.join(repr(m) for m in remedy.modes)}." + why)
    return mode

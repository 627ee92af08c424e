"""The training loop that all frameworks share: epochs, validation, early stopping, checkpoints, going on.

What a step trains on, and its random numbers, follow from the step's number; what has been learnt is the trainer's
state. So a training that was interrupted at any step and goes on from its last checkpoint takes the same steps as one
that was not.
"""

from __future__ import annotations

import io
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ActivationsError, OptionError
from ...progress import bar
from ..base import Settings

Arrays = Mapping[str, np.ndarray]  # of one batch: "x", "targets", and weights of rows
CHECKPOINT = "checkpoint.npz"
RISE = 0.1
NOT_THE_SAME = ("folder", "save_every", "progress", "device")  # settings that may differ when a training goes on


@dataclass(frozen=True)
class Outputs:
    """What a network computed for a batch, as tensors of its framework, float32. extra: logits of heads of the
    remedy's; own, memory: see `tuned.Job`.

    weight [d, c], bias [c]: the head; features None where the framework cannot show them.
    """

    logits: Any  # [n, c], none-classes included
    features: Any  # [n, d]
    weight: Any
    bias: Any
    extra: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    memory: Mapping[str, Any] = field(default_factory=dict)


Loss = Callable[[Any, Outputs, Mapping[str, Any]], Any]  # (namespace, outputs, batch as tensors) -> []
Remember = Callable[[Any, Outputs, Mapping[str, Any]], Mapping[str, Any]]  # the same -> what `memory` is from then on


class Steps(Sequence[Arrays]):
    """Batches that are made when they are asked for, so that none is held longer than it is needed."""

    def __init__(self, batch_of: Callable[[int], Arrays], count: int) -> None:
        self._batch_of, self._count = batch_of, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: Any) -> Any:
        if not 0 <= i < self._count:
            raise IndexError(i)
        return self._batch_of(i)


class Trainer(ABC):
    """A network in training, with its optimiser: a copy of the user's, or a small one beside it. notes: how it is
    trained, for people. parts: in how many parts a step goes through it; peak: bytes that this takes, about (0: not
    known). checkpoint: the file in the folder that an interrupted training goes on from."""

    checkpoint: str = CHECKPOINT
    notes: tuple[str, ...] = ()
    parts: int = 1
    peak: int = 0

    @abstractmethod
    def run(self, steps: range, batch_of: Callable[[int], Arrays], done: Callable[[float], None]) -> None:
        """Take these steps, telling `done` the loss of each."""

    @abstractmethod
    def losses(self, batches: Sequence[Arrays]) -> list[float]:
        """Of each batch, in inference."""

    @abstractmethod
    def dumped(self) -> bytes:
        """Weights and the optimiser's state, all that `restore` needs. No pickled code."""

    @abstractmethod
    def restore(self, state: bytes) -> None: ...

    @abstractmethod
    def finished(self) -> Any:
        """The new model: of the user's kind, in inference, with nothing of the training left on it."""


class Tuner(Trainer):
    """A trainer of the classifier's weights alone."""

    @abstractmethod
    def weights(self) -> list[np.ndarray]:
        """All that training moves, copied."""

    @abstractmethod
    def assign(self, weights: Sequence[np.ndarray]) -> None:
        """Put them in the place of those that it has, in the order of `weights`."""

    def own(self) -> Mapping[str, np.ndarray]:
        """The remedy's own parameters as they are."""
        return {}


def part_way(start: Sequence[np.ndarray], end: Sequence[np.ndarray], share: float) -> list[np.ndarray]:
    """Weights at `share` of the straight way from one network to another: Wortsman et al., Robust Fine-tuning of
    Zero-shot Models, CVPR 2022 (arXiv:2109.01903), equation 1. Exactly `start` at 0 and `end` at 1."""
    return [np.asarray((1 - share) * a + share * b, dtype=b.dtype) for a, b in zip(start, end, strict=True)]


@dataclass
class _Progress:
    step: int = 0
    loss: float = 0.0  # summed over the steps of this epoch
    history: list[dict[str, float]] = field(default_factory=list)
    best: float = math.inf
    worse: int = 0
    stopped: bool = False


def train(
    trainer: Trainer,
    batch_of: Callable[[int], Arrays],
    steps: int,
    validation: Sequence[Arrays],
    settings: Settings,
    identity: str,
) -> tuple[Mapping[str, float], ...]:
    """Train for `settings.epochs` epochs of `steps` steps; the history, one mapping an epoch.

    batch_of: the batch of a step, counted over all epochs. validation: batches whose mean loss is followed.
    identity: of everything that decides the outcome; a checkpoint of another one is refused with OptionError.
    Raises ActivationsError when the loss is no longer finite.
    """
    file = None if settings.folder is None else settings.folder / trainer.checkpoint
    said = json.dumps(
        {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in NOT_THE_SAME} | {"of": identity}
    )
    at, best = _resume(trainer, file, said)
    total = settings.epochs * steps
    every = settings.save_every or steps

    def done(loss: float) -> None:
        if not math.isfinite(loss):
            raise ActivationsError(
                f"The loss is {loss} at step {at.step + 1} of {total}. Give a smaller learning_rate."
            )
        at.step, at.loss = at.step + 1, at.loss + loss
        advance(1)

    with bar("train", total, settings.progress) as advance:
        advance(at.step)
        while at.step < total and not at.stopped:
            ends = (at.step // steps + 1) * steps, (at.step // every + 1) * every if file else total
            trainer.run(range(at.step, min(total, *ends)), batch_of, done)
            if at.step % steps == 0:
                best = _epoch_ends(trainer, at, steps, validation, settings, best)
            if file and (at.step % every == 0 or at.step % steps == 0):
                _save(file, trainer, at, best, said)
    if best:
        trainer.restore(best)
    return tuple(at.history)


def rate(step: int, steps: int) -> float:
    """The share of the learning rate at a step: it rises over the first tenth of all, then falls to 0 along half a
    cosine. Adam's first steps are as long as its later ones but know little of the gradient, hence the rise."""
    return min(1.0, (step + 1) / max(1.0, RISE * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _epoch_ends(
    trainer: Trainer, at: _Progress, steps: int, validation: Sequence[Arrays], settings: Settings, best: bytes
) -> bytes:
    """Note the epoch; the best state so far, empty where it is not kept."""
    line = {"epoch": float(at.step // steps), "loss": at.loss / steps}
    if validation:
        line["validation_loss"] = float(np.mean(trainer.losses(validation)))
    at.history.append(line)
    at.loss = 0.0
    if settings.patience is None or not validation:
        return b""
    if line["validation_loss"] < at.best:
        at.best, at.worse = line["validation_loss"], 0
        return trainer.dumped()
    at.worse += 1
    at.stopped = at.worse >= settings.patience
    return best


def _save(file: Path, trainer: Trainer, at: _Progress, best: bytes, said: str) -> None:
    """At once, so that what is there is whole whenever the training is interrupted."""
    file.parent.mkdir(parents=True, exist_ok=True)
    held = io.BytesIO()
    state, kept = (np.frombuffer(x, np.uint8) for x in (trainer.dumped(), best))
    progress = {**vars(at), "best": None if math.isinf(at.best) else at.best}
    np.savez(held, state=state, best=kept, progress=np.array(json.dumps(progress)), said=np.array(said))
    draft = file.with_suffix(".new")
    draft.write_bytes(held.getvalue())
    os.replace(draft, file)


def _resume(trainer: Trainer, file: Path | None, said: str) -> tuple[_Progress, bytes]:
    if file is None or not file.is_file():
        return _Progress(), b""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as held:
            state, best, progress, own = (held[name] for name in ("state", "best", "progress", "said"))
        found = json.loads(str(progress))
        at = _Progress(**{**found, "best": math.inf if found["best"] is None else found["best"]})
    except Exception as error:  # zip, zlib and NumPy have dozens for bytes that are damaged
        raise OptionError(
            f"{file} is no checkpoint, or damaged: {error!r}. Delete it, or give another folder=."
        ) from error
    if str(own) != said:
        raise OptionError(
            f"{file} is of another training (other images, options or classifier), which cannot go on with these. "
            "Delete it, or give another folder=."
        )
    trainer.restore(state.tobytes())
    return at, best.tobytes()

"""A discriminator against a generator, on what the classifier computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...arguments import flag
from ...errors import ImagesError
from ...measure import auroc
from ..base import Outcome, Remedy, Settings, Task
from ..training.activations import look, scale_of
from ..training.loop import Arrays, Trainer, train
from ..training.mlp import Adam, Epochs, Layers, binary, dump, restored
from .none_head import SAME, as_detector, asked_places, checked, checkpoint_of, digest, spread

NOISE, SLOPE, BETAS, RATE = 64, 0.2, (0.5, 0.999), 2e-4
HELD = 0.2  # of the outliers, for the choice of the epoch
FEWEST = 10


@dataclass(frozen=True)
class OpenGAN(Remedy):
    r"""Kong & Ramanan, OpenGAN: Open-Set Recognition via Open Data Generation, ICCV 2021 (arXiv:2104.02939).

        D: min  mean over known of -log(1 - D(x)) + mean over outliers and generated ones of -log D(x)
        G: min  mean over z ~ N(0, I) of -log(1 - D(G(z)))                  score(x) = log-odds of D

    On features, as there, and on earlier stages. The discriminator of a GAN gets worse when the generator wins, so the
    epoch is chosen: by the AUROC on validation images against a fifth of the outliers, which are not trained on. The
    paper found that decisive. Layers are linear with leaky rectifiers, without its batch normalisation, so that a score
    does not depend on a batch.

    learn: train on outliers too, not on generated ones alone. hidden: of the discriminator; the generator has its
    mirror image. places: what is read, None for features and all earlier stages.
    """

    learn: bool = True
    hidden: int | Sequence[int] = (256, 64)
    places: str | Sequence[str] | None = None

    name = "opengan"
    outliers = "required"
    modes = ("head",)
    keeps = ("head",)
    paper = "Kong & Ramanan 2021, arXiv:2104.02939; on stages: here"
    summary = (
        "a discriminator against a generator of features and stages, epoch chosen by validation; the classifier stays"
    )

    def retrain(self, task: Task) -> Outcome:
        hidden = checked(self.hidden, 0)
        flag("learn", self.learn)
        places = asked_places(self.places, task.opened)
        seen = look(task, places)
        known, unknown, validation = (seen.rows(which, places) for which in ("known", "outliers", "validation"))
        mean, std = scale_of(known)
        known, unknown, validation = (((x - mean) / std).astype(np.float32) for x in (known, unknown, validation))
        chosen, rest = held_out(unknown, task.settings.seed)
        if min(len(chosen), len(rest)) < FEWEST:
            raise ImagesError(f"{len(unknown)} outliers are too few: a fifth, {FEWEST} at least, choose the epoch.")
        game = Game(known, rest if self.learn else rest[:0], hidden, task.settings)
        net, history = game.play(validation, chosen, places)
        best = int(np.argmax([line["auroc"] for line in history]))
        note = f"Epoch {best + 1} of {len(history)} was chosen, by AUROC {history[best]['auroc']:.4f} on validation."
        return Outcome(detector=as_detector(net, mean, std, places), history=tuple(history), notes=(SAME, note))


def held_out(rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(a fifth, the rest) of rows; equal rows are on one side."""
    distinct, back = np.unique(rows, axis=0, return_inverse=True)
    side = np.random.default_rng([seed, 31]).permutation(len(distinct)) < max(1, round(HELD * len(distinct)))
    mine = side[back.reshape(-1)]
    return rows[mine], rows[~mine]


class Game(Trainer):
    """The training of both on known and unknown rows [n, d]."""

    def __init__(self, known: np.ndarray, unknown: np.ndarray, hidden: tuple[int, ...], settings: Settings) -> None:
        self.known, self.unknown, self.settings = known, unknown, settings
        d = known.shape[1]
        rng = np.random.default_rng([settings.seed, 32])
        self.discriminator = Layers.drawn([d, *hidden, 1], rng, SLOPE)
        self.generator = Layers.drawn([NOISE, *hidden[::-1], d], rng, SLOPE)
        self.batch = min(settings.batch_size, len(known))
        self.rate = settings.learning_rate or RATE
        self.adams = [Adam(net.arrays, betas=BETAS) for net in (self.discriminator, self.generator)]

    def play(
        self, validation: np.ndarray, chosen: np.ndarray, places: Sequence[str]
    ) -> tuple[Layers, list[dict[str, float]]]:
        """(the discriminator of the best epoch, history)."""
        sizes = [w.shape for w in self.discriminator.weights]
        parts = [digest(x) for x in (self.known, self.unknown, validation, chosen)]
        key = f"{sizes};{self.batch};{self.rate};{list(places)};{parts}"
        self.checkpoint = checkpoint_of("opengan", key, self.settings)
        steps = len(self.known) // self.batch
        always = replace(self.settings, patience=self.settings.epochs)  # the best epoch is kept, and none left out
        judged = [{"validation": validation, "chosen": chosen}]
        lines = train(self, Epochs(self.draw, steps), steps, judged, always, key)
        history = [{"loss": line["loss"], "auroc": 1 - line["validation_loss"]} for line in lines]
        return self.discriminator, history

    def draw(self, epoch: int) -> Callable[[int], Arrays]:
        rng = np.random.default_rng([self.settings.seed, epoch, 33])
        size = self.batch
        steps = len(self.known) // size
        order = rng.permutation(len(self.known))
        others = spread(len(self.unknown), steps * size, rng) if len(self.unknown) else np.empty(0, np.int64)
        noise = rng.standard_normal((steps, 2, size, NOISE)).astype(np.float32)  # of both halves of each step

        def batch_of(i: int) -> Arrays:
            rows = slice(i * size, (i + 1) * size)
            return {"known": self.known[order[rows]], "unknown": self.unknown[others[rows]], "noise": noise[i]}

        return batch_of

    def run(self, steps: range, batch_of: Callable[[int], Arrays], done: Callable[[float], None]) -> None:
        for step in steps:
            batch = batch_of(step)
            done(self.step(batch["known"], batch["unknown"], batch["noise"]))

    def step(self, known: np.ndarray, unknown: np.ndarray, noise: np.ndarray) -> float:
        """One step of the discriminator, one of the generator; the discriminator's loss."""
        fake = self.generator.run(noise[0])[-1]
        rows = np.concatenate([known, unknown, fake])
        values = self.discriminator.run(rows)
        loss, d = binary(values[-1], np.arange(len(rows)) >= len(known))
        self.adams[0].step(self.discriminator.arrays, self.discriminator.back(values, d)[0], self.rate)
        made = self.generator.run(noise[1])
        values = self.discriminator.run(made[-1])
        _, d = binary(values[-1], np.zeros(len(made[-1]), bool))  # the generator wants them to pass for known
        _, d = self.discriminator.back(values, d)
        self.adams[1].step(self.generator.arrays, self.generator.back(made, d)[0], self.rate)
        return loss

    def losses(self, batches: Sequence[Arrays]) -> list[float]:
        """What the AUROC between validation images and outliers lacks to 1."""
        return [1 - auroc(self.scores(batch["validation"]), self.scores(batch["chosen"])) for batch in batches]

    def scores(self, rows: np.ndarray) -> np.ndarray:
        out: np.ndarray = self.discriminator.run(rows)[-1][:, 0]
        return out

    def _nets(self) -> dict[str, tuple[Layers, Adam]]:
        return {
            "discriminator": (self.discriminator, self.adams[0]),
            "generator": (self.generator, self.adams[1]),
        }

    def dumped(self) -> bytes:
        return dump(self._nets())

    def restore(self, state: bytes) -> None:
        self.discriminator, self.generator = restored(state, self._nets())

    def finished(self) -> Layers:
        return self.discriminator

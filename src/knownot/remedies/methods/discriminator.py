"""A discriminator against a generator, on what the classifier computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...arguments import flag
from ...errors import ImagesError
from ...measure import auroc
from ...progress import Advance, bar
from ..base import Outcome, Remedy, Task
from ..training.activations import look, scale_of
from ..training.mlp import Adam, Checkpoint, Layers, binary, restored, state_of
from .none_head import SAME, as_detector, asked_places, checked, digest, spread

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
        game = Game(
            known=known,
            unknown=rest if self.learn else rest[:0],
            validation=validation,
            chosen=chosen,
            hidden=hidden,
            task=task,
        )
        net, history = game.played(places)
        best = int(np.argmax([line["auroc"] for line in history]))
        note = f"Epoch {best + 1} of {len(history)} was chosen, by AUROC {history[best]['auroc']:.4f} on validation."
        return Outcome(detector=as_detector(net, mean, std, places), history=tuple(history), notes=(SAME, note))


def held_out(rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(a fifth, the rest) of rows; equal rows are on one side."""
    distinct, back = np.unique(rows, axis=0, return_inverse=True)
    side = np.random.default_rng([seed, 31]).permutation(len(distinct)) < max(1, round(HELD * len(distinct)))
    mine = side[back.reshape(-1)]
    return rows[mine], rows[~mine]


class Game:
    """The training of both, epoch by epoch. known, unknown: to train on; validation, chosen: to choose the epoch by."""

    def __init__(
        self,
        known: np.ndarray,
        unknown: np.ndarray,
        validation: np.ndarray,
        chosen: np.ndarray,
        hidden: tuple[int, ...],
        task: Task,
    ) -> None:
        self.known, self.unknown, self.validation, self.chosen, self.task = known, unknown, validation, chosen, task
        d, seed = known.shape[1], task.settings.seed
        rng = np.random.default_rng([seed, 32])
        self.discriminator = Layers.drawn([d, *hidden, 1], rng, SLOPE)
        self.generator = Layers.drawn([NOISE, *hidden[::-1], d], rng, SLOPE)
        self.batch = min(task.settings.batch_size, len(known))
        self.rate = task.settings.learning_rate or RATE
        self.adams = [Adam(net.arrays, betas=BETAS) for net in (self.discriminator, self.generator)]

    def played(self, places: Sequence[str]) -> tuple[Layers, list[dict[str, float]]]:
        """(the discriminator of the best epoch, history)."""
        settings, sizes = self.task.settings, [w.shape for w in self.discriminator.weights]
        parts = [digest(x) for x in (self.known, self.unknown, self.validation, self.chosen)]
        key = f"{sizes};{settings.seed};{settings.epochs};{self.batch};{self.rate};{list(places)};{parts}"
        checkpoint = Checkpoint(settings.folder, "opengan", key)
        state = checkpoint.load()
        history = [{"loss": float(a), "auroc": float(b)} for a, b in state["history"]] if state else []
        best = self.discriminator.with_arrays([a.copy() for a in self.discriminator.arrays])
        if state:
            self.discriminator = restored("discriminator", state, self.discriminator, self.adams[0])
            self.generator = restored("generator", state, self.generator, self.adams[1])
            best = best.with_arrays([state[f"best/{i}"] for i in range(len(best.arrays))])
        steps = len(self.known) // self.batch
        with bar("train opengan", (settings.epochs - len(history)) * steps * self.batch, settings.progress) as advance:
            for epoch in range(len(history), settings.epochs):
                loss = float(np.mean([self.step(*drawn) for drawn in self.drawn(epoch, steps, advance)]))
                line = {"loss": loss, "auroc": auroc(self.scores(self.validation), self.scores(self.chosen))}
                if line["auroc"] > max((h["auroc"] for h in history), default=-1.0):
                    best = self.discriminator.with_arrays([a.copy() for a in self.discriminator.arrays])
                history.append(line)
                arrays = state_of("discriminator", self.discriminator, self.adams[0]) | state_of(
                    "generator", self.generator, self.adams[1]
                )
                arrays |= {f"best/{i}": a for i, a in enumerate(best.arrays)}
                checkpoint.save({**arrays, "history": np.array([[h["loss"], h["auroc"]] for h in history])})
        return best, history

    def drawn(self, epoch: int, steps: int, advance: Advance) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(known rows, outlier rows, noise of both halves of a step), step by step."""
        rng = np.random.default_rng([self.task.settings.seed, epoch, 33])
        order = rng.permutation(len(self.known))
        others = spread(len(self.unknown), steps * self.batch, rng) if len(self.unknown) else np.empty(0, np.int64)
        for i in range(0, steps * self.batch, self.batch):
            noise = rng.standard_normal((2, self.batch, NOISE)).astype(np.float32)
            yield self.known[order[i : i + self.batch]], self.unknown[others[i : i + self.batch]], noise
            advance(self.batch)

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

    def scores(self, rows: np.ndarray) -> np.ndarray:
        out: np.ndarray = self.discriminator.run(rows)[-1][:, 0]
        return out

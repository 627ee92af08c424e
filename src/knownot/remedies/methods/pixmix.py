from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...arguments import number
from ...errors import OptionError
from ...outliers import kinds_named, make
from ..base import Task
from ..training.batches import Plan, augment_batch
from ..training.fine_tuning import FineTuning
from ..training.loop import Arrays, Outputs
from ..training.losses import cross_entropy

CHANCE = 0.5  # of mixing with a texture rather than with the image itself, of summing rather than multiplying


@dataclass(frozen=True)
class PixMix(FineTuning):
    r"""Hendrycks et al., PixMix: Dreamlike Pictures Comprehensively Improve Safety Measures, CVPR 2022
    (arXiv:2112.05135), with made textures in the place of its collection of fractals.

        loss = CE(mixed known, their class)

    An image is mixed up to `rounds` times with a texture or with itself, augmented again, by a sum or a product with
    random shares. textures: kinds of `knownot.outliers`, as in "made:KINDS". share: of the images that are mixed; the
    others keep the accuracy on plain ones. beta: larger keeps more of the image.
    """

    textures: str = "fractal,dead-leaves,stripes"
    rounds: int = 4
    beta: float = 3.0
    share: float = 0.5

    name = "pixmix"
    paper = "Hendrycks et al. 2022, arXiv:2112.05135"
    summary = "known images mixed with made textures"

    def checked(self, task: Task) -> None:
        kinds_named(self.textures)
        number("rounds", self.rounds, 1, 100, whole=True)
        number("beta", self.beta, 0.01, 1000)
        number("share", self.share, 0, 1)
        if task.known.way is None:
            raise OptionError("pixmix mixes pixels: give raw images (uint8), not the classifier's own input.")

    def batch(self, task: Task, plan: Plan, step: int) -> Arrays:
        known, _, labels = plan.images(step)
        rng = plan.rng(step, 22)
        chosen = np.flatnonzero(rng.random(len(known)) < self.share)
        if len(chosen):
            known = known.copy()
            known[chosen] = self.mixed(known[chosen], rng)
        targets = np.eye(task.classes, dtype=np.float32)[labels]
        return {"x": task.known.inputs(known), "targets": targets, "known": np.ones(len(known), np.float32)}

    def mixed(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [n, h, w, 3] -> the same, mixed."""
        kinds = kinds_named(self.textures)
        x = images / 255.0
        x = np.where(
            (rng.random(len(x)) < CHANCE)[:, None, None, None], augment_batch(images, "flip+shift", rng) / 255.0, x
        )
        for i in range(self.rounds):
            on = rng.random(len(x)) < (1 if i == 0 else 1 - 1 / (self.rounds + 1))
            kind = kinds[int(rng.integers(len(kinds)))]
            texture = make(kind, len(x), like=images, seed=int(rng.integers(2**31)))
            with_texture = (rng.random(len(x)) < CHANCE)[:, None, None, None]
            other = np.where(with_texture, texture, augment_batch(images, "flip+shift", rng)) / 255.0
            a, b = rng.beta(self.beta, 1, (len(x), 1, 1, 1)), rng.beta(1, self.beta, (len(x), 1, 1, 1))
            summed = (2 * x - 1) * a + (2 * other - 1) * b
            product = (2 * x) ** a * (2 * np.maximum(other, 1e-3)) ** b
            sums = (rng.random(len(x)) < CHANCE)[:, None, None, None]
            new = np.clip(np.where(sums, (summed + 1) / 2, product / 2), 0, 1)
            x = np.where(on[:, None, None, None], new, x)
        return np.asarray(np.rint(255 * x), np.uint8)

    def loss(self, xp: Any, out: Outputs, batch: Mapping[str, Any]) -> Any:
        return cross_entropy(xp, out.logits, batch["targets"], batch["known"])

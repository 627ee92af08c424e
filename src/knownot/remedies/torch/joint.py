"""The joint training of `joint.Joint` in PyTorch."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate, softplus

from ...models import Model
from ..training import adversary as against
from ..training.adversary import Against, doublings, pixel_range
from ..training.data import Pool
from ..training.fine_tuning import Job
from ..training.loop import Arrays, rate
from ..training.losses import cross_entropy, from_uniform, namespace
from ..training.mlp import Layers
from .training import ModuleTrainer


def joint_trainer(
    opened: Model,
    job: Job,
    pool: Pool,
    scale: tuple[np.ndarray, np.ndarray],
    beta: float,
    hidden: Sequence[int],
) -> JointTrainer:
    """See `frameworks.Trains`. scale: (mean, std) [d] of known features."""
    return JointTrainer(opened=opened, job=job, pool=pool, scale=scale, beta=beta, hidden=hidden)


class Generator(nn.Module):
    """Noise [n, NOISE] to images as the classifier takes them: layers that double the size, pixels in [0, 1] by a
    sigmoid, and the classifier's own preprocessing of them."""

    low: torch.Tensor
    span: torch.Tensor

    def __init__(self, pool: Pool, channels: int, layout: str) -> None:
        super().__init__()
        self.size, self.layout = (int(pool.x.shape[1]), int(pool.x.shape[2])), layout
        k, parts = against.CHANNELS, []
        for _ in range(doublings(*self.size)):
            parts += [nn.Upsample(scale_factor=2), nn.Conv2d(k, k, 3, padding=1)]
            parts += [nn.GroupNorm(against.GROUPS, k, against.NORM_EPSILON), nn.LeakyReLU(against.SLOPE)]
        self.first = nn.Linear(against.NOISE, k * against.FIRST**2)
        self.body = nn.Sequential(*parts, nn.Conv2d(k, channels, 3, padding=1), nn.Sigmoid())
        low, span = pixel_range(pool, channels)
        self.register_buffer("low", torch.as_tensor(low, dtype=torch.float32)[None, :, None, None])
        self.register_buffer("span", torch.as_tensor(span, dtype=torch.float32)[None, :, None, None])

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        made = self.body(self.first(z).reshape(len(z), -1, against.FIRST, against.FIRST))
        x = self.low + self.span * interpolate(made, self.size, mode="bilinear", align_corners=False)
        return x if self.layout == "NCHW" else x.permute(0, 2, 3, 1)


class JointTrainer(Against):
    """A copy of the user's module in training, and its two adversaries. scale: (mean, std) [d] of known features."""

    def __init__(
        self,
        opened: Model,
        job: Job,
        pool: Pool,
        scale: tuple[np.ndarray, np.ndarray],
        beta: float,
        hidden: Sequence[int],
    ) -> None:
        self.inner, self.job, self.beta = ModuleTrainer(opened, job), job, beta
        self.notes = self.inner.notes
        device = self.inner.device
        sizes = [job.weight.shape[1], *hidden, 1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.settings.seed + 1)
            discriminator: list[nn.Module] = []
            for a, b in itertools.pairwise(sizes):
                discriminator += [nn.Linear(a, b), nn.LeakyReLU(against.SLOPE)]
            generator = Generator(pool, opened.input.channels or pool.x.shape[-1], opened.input.layout)
            both = {"discriminator": nn.Sequential(*discriminator[:-1]), "generator": generator}
        self.adversaries = nn.ModuleDict(both).to(device)
        self.optimisers = {
            n: torch.optim.Adam(m.parameters(), lr=against.RATE, betas=against.BETAS) for n, m in both.items()
        }
        self.mean, self.std = (torch.as_tensor(v, dtype=torch.float32, device=device) for v in scale)

    def run(self, steps: range, batch_of: Callable[[int], Arrays], done: Callable[[float], None]) -> None:
        inner = self.inner
        devices = [inner.device] if inner.device.type == "cuda" else []
        for step in steps:
            batch = inner._moved(batch_of(step))
            share = rate(step, self.job.steps)
            for optimiser, top in ((inner.optimiser, self.job.learning_rate), *((o, against.RATE) for o in self._both)):
                for group in optimiser.param_groups:
                    group["lr"] = top * share
            with torch.random.fork_rng(devices=devices), torch.enable_grad():
                torch.manual_seed((self.job.settings.seed << 31) + step)
                noise = torch.randn(2, len(batch["x"]), against.NOISE).to(inner.device)
                loss = self._classifier_and_discriminator_step(batch, noise[0])
                self._generator_step(noise[1])
            done(float(loss.detach()))

    def _classifier_and_discriminator_step(self, batch: dict[str, torch.Tensor], noise: torch.Tensor) -> torch.Tensor:
        n, generator, discriminator = len(batch["x"]), self.adversaries["generator"], self.adversaries["discriminator"]
        with torch.no_grad():
            made = generator(noise)
        out = self.inner.outputs(torch.cat([batch["x"], made]), True)
        known = cross_entropy(namespace("torch"), out.logits[:n], batch["targets"], batch["known"])
        loss: torch.Tensor = known + self.beta * from_uniform(namespace("torch"), out.logits[n:])
        self.inner.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.inner.optimiser.step()
        odds = discriminator(self._scaled(out.features.detach()))[:, 0]  # of being made
        self.optimisers["discriminator"].zero_grad(set_to_none=True)
        (softplus(odds[:n]).mean() / 2 + softplus(-odds[n:]).mean() / 2).backward()
        self.optimisers["discriminator"].step()
        return loss

    def _generator_step(self, noise: torch.Tensor) -> None:
        generator, discriminator = self.adversaries["generator"], self.adversaries["discriminator"]
        out = self.inner.outputs(generator(noise), True)
        loss = softplus(discriminator(self._scaled(out.features))[:, 0]).mean() + self.beta * from_uniform(
            namespace("torch"), out.logits
        )
        own = list(generator.parameters())
        for parameter, gradient in zip(own, torch.autograd.grad(loss, own), strict=True):  # of nothing else
            parameter.grad = gradient
        self.optimisers["generator"].step()

    def _scaled(self, features: torch.Tensor) -> torch.Tensor:
        return (features - self.mean) / self.std

    @property
    def _both(self) -> list[torch.optim.Optimizer]:
        return list(self.optimisers.values())

    def dumped(self) -> bytes:
        held = io.BytesIO()
        state = {
            "classifier": torch.frombuffer(bytearray(self.inner.dumped()), dtype=torch.uint8),
            "adversaries": self.adversaries.state_dict(),
            "optimisers": {name: o.state_dict() for name, o in self.optimisers.items()},
        }
        torch.save(state, held)
        return held.getvalue()

    def restore(self, state: bytes) -> None:
        found = torch.load(io.BytesIO(state), map_location=self.inner.device, weights_only=True)
        self.inner.restore(found["classifier"].cpu().numpy().tobytes())
        self.adversaries.load_state_dict(found["adversaries"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(found["optimisers"][name])

    def discriminator_layers(self) -> Layers:
        linear = [m for m in self.adversaries["discriminator"].modules() if isinstance(m, nn.Linear)]
        weights = tuple(m.weight.detach().cpu().numpy().T.copy() for m in linear)
        return Layers(weights, tuple(m.bias.detach().cpu().numpy().copy() for m in linear), against.SLOPE)

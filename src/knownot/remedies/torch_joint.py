"""The joint training of `joint.Joint` in PyTorch."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate, softplus

from ..models import Model
from .data import Pool
from .layers import Layers
from .loop import Arrays, Trainer, rate
from .losses import cross_entropy, namespace, uniform_cross_entropy
from .torch_training import ModuleTrainer
from .tuned import Job

NOISE, CHANNELS, SLOPE = 64, 64, 0.2
RATE, BETAS = 2e-4, (0.5, 0.999)


class Maker(nn.Module):
    """Noise [n, NOISE] to images as the classifier takes them: layers that double the size, pixels in [0, 1] by a
    sigmoid, and the classifier's own preprocessing of them."""

    low: torch.Tensor
    span: torch.Tensor

    def __init__(self, pool: Pool, channels: int, layout: str) -> None:
        super().__init__()
        self.size, self.layout = (int(pool.x.shape[1]), int(pool.x.shape[2])), layout
        side, parts = 4, []
        while side < max(self.size):
            parts += [nn.Upsample(scale_factor=2), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)]
            parts += [nn.GroupNorm(8, CHANNELS), nn.LeakyReLU(SLOPE)]
            side *= 2
        self.first = nn.Linear(NOISE, CHANNELS * 16)
        self.body = nn.Sequential(*parts, nn.Conv2d(CHANNELS, channels, 3, padding=1), nn.Sigmoid())
        low, span = _range(pool, channels)
        self.register_buffer("low", torch.as_tensor(low, dtype=torch.float32)[None, :, None, None])
        self.register_buffer("span", torch.as_tensor(span, dtype=torch.float32)[None, :, None, None])

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        made = self.body(self.first(z).reshape(len(z), CHANNELS, 4, 4))
        x = self.low + self.span * interpolate(made, self.size, mode="bilinear", align_corners=False)
        return x if self.layout == "NCHW" else x.permute(0, 2, 3, 1)


def _range(pool: Pool, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """(the input that a black pixel is, what white is more) [k] each."""
    if pool.way is None:
        axes = (0, 1, 2)
        some = pool.x[:1024]
        return some.min(axis=axes), some.max(axis=axes) - some.min(axis=axes)
    mean, std = (np.broadcast_to(np.asarray(v, np.float64), channels) for v in (pool.way.mean, pool.way.std))
    return -mean / std, 255 * pool.way.scale / std


class JointTrainer(Trainer):
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
        device = self.inner.device
        sizes = [job.weight.shape[1], *hidden, 1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.settings.seed + 1)
            judge: list[nn.Module] = []
            for a, b in itertools.pairwise(sizes):
                judge += [nn.Linear(a, b), nn.LeakyReLU(SLOPE)]
            maker = Maker(pool, opened.input.channels or pool.x.shape[-1], opened.input.layout)
            both = {"judge": nn.Sequential(*judge[:-1]), "maker": maker}
        self.adversaries = nn.ModuleDict(both).to(device)
        self.optimisers = {n: torch.optim.Adam(m.parameters(), lr=RATE, betas=BETAS) for n, m in both.items()}
        self.mean, self.std = (torch.as_tensor(v, dtype=torch.float32, device=device) for v in scale)

    def run(self, steps: range, batch_of: Callable[[int], Arrays], done: Callable[[float], None]) -> None:
        inner = self.inner
        devices = [inner.device] if inner.device.type == "cuda" else []
        for step in steps:
            batch = inner._moved(batch_of(step))
            share = rate(step, self.job.steps)
            for optimiser, top in ((inner.optimiser, self.job.learning_rate), *((o, RATE) for o in self._both)):
                for group in optimiser.param_groups:
                    group["lr"] = top * share
            with torch.random.fork_rng(devices=devices), torch.enable_grad():
                torch.manual_seed((self.job.settings.seed << 31) + step)
                noise = torch.randn(2, len(batch["x"]), NOISE).to(inner.device)
                loss = self._classifier_and_judge(batch, noise[0])
                self._maker(noise[1])
            done(float(loss.detach()))

    def _classifier_and_judge(self, batch: dict[str, torch.Tensor], noise: torch.Tensor) -> torch.Tensor:
        n, maker, judge = len(batch["x"]), self.adversaries["maker"], self.adversaries["judge"]
        with torch.no_grad():
            made = maker(noise)
        out = self.inner.outputs(torch.cat([batch["x"], made]), True)
        known = cross_entropy(namespace("torch"), out.logits[:n], batch["targets"], batch["known"])
        loss: torch.Tensor = known + self.beta * from_uniform(out.logits[n:])
        self.inner.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.inner.optimiser.step()
        odds = judge(self._scaled(out.features.detach()))[:, 0]  # of being made
        self.optimisers["judge"].zero_grad(set_to_none=True)
        (softplus(odds[:n]).mean() / 2 + softplus(-odds[n:]).mean() / 2).backward()
        self.optimisers["judge"].step()
        return loss

    def _maker(self, noise: torch.Tensor) -> None:
        maker, judge = self.adversaries["maker"], self.adversaries["judge"]
        out = self.inner.outputs(maker(noise), True)
        loss = softplus(judge(self._scaled(out.features))[:, 0]).mean() + self.beta * from_uniform(out.logits)
        own = list(maker.parameters())
        for parameter, gradient in zip(own, torch.autograd.grad(loss, own), strict=True):  # of nothing else
            parameter.grad = gradient
        self.optimisers["maker"].step()

    def _scaled(self, features: torch.Tensor) -> torch.Tensor:
        return (features - self.mean) / self.std

    @property
    def _both(self) -> list[torch.optim.Optimizer]:
        return list(self.optimisers.values())

    def losses(self, batches: Sequence[Arrays]) -> list[float]:
        return self.inner.losses(batches)

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

    def finished(self) -> nn.Module:
        return self.inner.finished()

    def judge(self) -> Layers:
        """The discriminator, in NumPy."""
        linear = [m for m in self.adversaries["judge"].modules() if isinstance(m, nn.Linear)]
        weights = tuple(m.weight.detach().cpu().numpy().T.copy() for m in linear)
        return Layers(weights, tuple(m.bias.detach().cpu().numpy().copy() for m in linear), SLOPE)


def from_uniform(logits: torch.Tensor) -> torch.Tensor:
    """KL(U || softmax(logits)), the mean over rows; 0 where all classes are alike."""
    mean: torch.Tensor = uniform_cross_entropy(namespace("torch"), logits, torch.ones_like(logits[:, 0]))
    return mean - float(np.log(logits.shape[1]))

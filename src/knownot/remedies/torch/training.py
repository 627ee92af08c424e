"""Training torch modules: a copy of the user's, step by step."""

from __future__ import annotations

import io
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...models import Model
from ..training.fine_tuning import Job
from ..training.loop import Arrays, Outputs, Tuner, rate
from ..training.losses import namespace
from ..training.memory import Cost, joined, split
from ..training.mixed_precision import HEAD, mixed
from .surgery import copied, tap

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)  # those with running statistics


def trainer(opened: Model, job: Job) -> ModuleTrainer:
    """Of all weights of a copy of the user's module, with the job's head."""
    return ModuleTrainer(opened, job)


def head_trainer(job: Job) -> HeadTrainer:
    """Of a linear layer on features."""
    return HeadTrainer(job)


def with_head(opened: Model, weight: np.ndarray, bias: np.ndarray) -> nn.Module:
    """A copy of the user's module with this head."""
    return copied(opened, weight, bias)[0]


def also_saved(model: nn.Module, folder: Path) -> None:
    """The state dict, for whoever has the module's code."""
    from safetensors.torch import save_file

    state = {name: x.detach().cpu().contiguous().clone() for name, x in model.state_dict().items()}
    save_file(state, folder / "state_dict.safetensors")


class _Stepping(Tuner):
    """An optimiser over weights, one step after another. holder: whose state dict is all that is trained."""

    job: Job
    device: torch.device
    holder: nn.Module
    optimiser: torch.optim.Optimizer
    memory: nn.Module

    @abstractmethod
    def outputs(self, x: torch.Tensor, training: bool) -> Outputs:
        """Of a batch."""

    def run(self, steps: range, batch_of: Callable[[int], Arrays], done: Callable[[float], None]) -> None:
        devices = [self.device] if self.device.type == "cuda" else []
        for step in steps:
            batch = batch_of(step)
            for group in self.optimiser.param_groups:
                group["lr"] = self.job.learning_rate * rate(step, self.job.steps)
            with torch.random.fork_rng(devices=devices), torch.enable_grad():
                torch.manual_seed((self.job.settings.seed << 31) + step)  # dropout follows from the step's number
                self.optimiser.zero_grad(set_to_none=True)
                loss, new = self._gradients(batch)
                self.optimiser.step()
            for name, x in new.items():
                self.memory.get_buffer(name).copy_(x)
            done(loss)

    def losses(self, batches: Sequence[Arrays]) -> list[float]:
        with torch.no_grad():
            return [sum(float(self._loss(part, False)[0]) for part in self._split(batch)) for batch in batches]

    def dumped(self) -> bytes:
        held = io.BytesIO()
        torch.save({"weights": self.holder.state_dict(), "optimiser": self.optimiser.state_dict()}, held)
        return held.getvalue()

    def restore(self, state: bytes) -> None:
        found = torch.load(io.BytesIO(state), map_location=self.device, weights_only=True)
        self.holder.load_state_dict(found["weights"])
        self.optimiser.load_state_dict(found["optimiser"])

    def weights(self) -> list[np.ndarray]:
        return [x.detach().cpu().float().numpy().copy() for x in self._floats()]

    def assign(self, weights: Sequence[np.ndarray]) -> None:
        with torch.no_grad():
            for x, new in zip(self._floats(), weights, strict=True):
                x.copy_(torch.from_numpy(new))

    def _floats(self) -> list[torch.Tensor]:
        return [x for x in self.holder.state_dict().values() if x.is_floating_point()]

    def _split(self, batch: Arrays) -> list[dict[str, np.ndarray]]:
        """In parts as large as those of a step of the training, whatever its own size."""
        rows = max(1, -(-self.job.rows // self.parts))
        return split(batch, -(-len(batch["x"]) // rows) if self.parts > 1 else 1, self.job.whole)

    def _gradients(self, batch: Arrays) -> tuple[float, Mapping[str, torch.Tensor]]:
        """(the loss, what is remembered) of a step; its gradients are added to those of the weights."""
        total, seen = 0.0, []
        for part in self._split(batch):
            loss, out = self._loss(part, training=True)
            loss.backward()
            total += float(loss.detach())
            if self.job.memory:
                seen.append(out.features.detach())
        if not self.job.memory:
            return total, {}
        with torch.no_grad():
            whole = replace(out, features=torch.cat(seen), logits=None)
            rest = self._moved({name: x for name, x in batch.items() if name != "x"})
            return total, self.job.remember(namespace("torch"), whole, rest)

    def _loss(self, part: Arrays, training: bool) -> tuple[Any, Outputs]:
        batch = self._moved(part)
        out = self.outputs(batch["x"], training)
        return self.job.loss(namespace("torch"), out, joined(batch)), out

    def _moved(self, batch: Arrays) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(np.array(x, np.float32, order="C")).to(self.device) for name, x in batch.items()}


class HeadTrainer(_Stepping):
    """Of the last layer, on features; `finished` gives (weight [m, d], bias [m])."""

    def __init__(self, job: Job) -> None:
        self.job, self.device = job, torch.device(job.settings.device or "cpu")
        self.notes = (HEAD,) if job.settings.half else ()
        self.linear = nn.Linear(job.weight.shape[1], job.weight.shape[0])
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(job.weight))
            self.linear.bias.copy_(torch.from_numpy(job.bias))
        self.linear = self.holder = self.linear.to(self.device)
        self.optimiser = torch.optim.Adam(self.holder.parameters(), lr=job.learning_rate)

    def outputs(self, x: torch.Tensor, training: bool) -> Outputs:
        return Outputs(self.linear(x), x, self.linear.weight.T, self.linear.bias)

    def finished(self) -> tuple[np.ndarray, np.ndarray]:
        return self.linear.weight.detach().cpu().numpy(), self.linear.bias.detach().cpu().numpy()


class ModuleTrainer(_Stepping):
    """Of all weights of a copy of the user's module; `finished` gives the copy."""

    def __init__(self, opened: Model, job: Job) -> None:
        network: Any = opened.network  # type: ignore[attr-defined]
        self.job, self._home, self._dtype = job, network.device, network.dtype
        self.device = torch.device(job.settings.device) if job.settings.device else network.device
        module, name = copied(opened, job.weight, job.bias)
        self._flags = {p: p.requires_grad for p in module.parameters()}
        self._head, self._tap = module.get_submodule(name), tap(module, name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.settings.seed)
            d = job.weight.shape[1]
            extra = nn.ModuleDict({key: nn.Linear(d, m) for key, m in job.extra.items()})
        self._module, self._extra, self.memory = module, extra, nn.Module()
        self._own = nn.ParameterDict({key: nn.Parameter(_float32(x)) for key, x in job.own.items()})
        for key, x in job.memory.items():
            self.memory.register_buffer(key, _float32(x))
        parts = {"classifier": module, "extra": extra, "own": self._own, "memory": self.memory}
        self.holder = nn.ModuleDict(parts).to(self.device)
        self._half, self.notes = mixed(job.settings.half, made_for_bfloat16(self.device))
        frozen = {p for m in module.modules() if isinstance(m, NORMS) for p in m.parameters()}
        frozen = frozen if job.settings.freeze_norm else set()
        trained = []
        for p in self.holder.parameters():
            p.requires_grad_(p.is_floating_point() and p not in frozen)
            trained += [p] if p.requires_grad else []
        self.optimiser = torch.optim.Adam(trained, lr=job.learning_rate)
        if job.rows:
            cost = self._cost()
            self.parts = cost.parts(job.rows, job.settings.memory)
            self.peak = cost.of(job.rows, -(-job.rows // self.parts))

    def _cost(self) -> Cost:
        """Of what autograd keeps of two images, in inference so that no running statistics move."""
        own = {p.untyped_storage().data_ptr() for p in self.holder.parameters()}
        kept: dict[int, int] = {}

        def keep(x: torch.Tensor) -> torch.Tensor:
            where = x.untyped_storage()
            if where.data_ptr() not in own:
                kept[where.data_ptr()] = where.nbytes()
            return x

        x = torch.zeros((2, *self.job.shape), device=self.device)
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            out = self.outputs(x, training=False)
            del out
        weights = sum(p.nbytes for p in self.holder.parameters() if p.requires_grad)
        return Cost(sum(kept.values()) // 2, 4 * math.prod(self.job.shape), weights)

    def outputs(self, x: torch.Tensor, training: bool) -> Outputs:
        for module in self.holder.modules():
            module.training = training and not (self.job.settings.freeze_norm and isinstance(module, NORMS))
        kind = self.device.type
        with torch.autocast(kind, dtype=torch.bfloat16) if self._half else nullcontext():
            features, logits = self._tap.run(x.to(self._dtype))
        features, logits = features.float(), logits.float()
        weight, bias = (getattr(self._head, name).float() for name in ("weight", "bias"))
        if self._half:  # of eight bits otherwise
            logits = features @ weight.T + bias
        extra = {name: layer(features) for name, layer in self._extra.items()}
        return Outputs(
            logits=logits,
            features=features,
            weight=weight.T,
            bias=bias,
            extra=extra,
            own=dict(self._own),
            memory=dict(self.memory.named_buffers()),
        )

    def own(self) -> dict[str, np.ndarray]:
        return {name: x.detach().cpu().numpy().copy() for name, x in self._own.items()}

    def finished(self) -> nn.Module:
        for one in self._module.modules():
            one.training = False
        for parameter, flag in self._flags.items():
            parameter.requires_grad_(flag)
            parameter.grad = None
        return self._module.to(self._home)


def made_for_bfloat16(device: torch.device) -> bool | None:
    """See `half.mixed`."""
    if device.type == "cpu":
        return None
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return False


def _float32(x: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.asarray(x), dtype=torch.float32)

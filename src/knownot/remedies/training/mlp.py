"""Small networks on activations, trained in plain NumPy: no framework is needed, whatever the classifier is of.

Same numbers for the same seed on the same machine. Arrays are float32, or float64 where the gradients are tested.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .loop import Arrays, Trainer

Loss = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]  # (outputs [n, o], target [n]) -> value, gradient


@dataclass(frozen=True)
class Layers:
    """Linear layers with leaky rectifiers between them. weights: [in, out] each; slope: of the negative side."""

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    slope: float = 0.0

    @classmethod
    def drawn(
        cls, sizes: Sequence[int], rng: np.random.Generator, slope: float = 0.0, dtype: Any = np.float32
    ) -> Layers:
        """He et al. 2015: variance 2 / in for what is rectified; the last layer starts at a tenth of that, near 0."""
        weights = []
        for i, (a, b) in enumerate(itertools.pairwise(sizes)):
            scale = np.sqrt(2 / a) * (0.1 if i == len(sizes) - 2 else 1.0)
            weights.append((rng.standard_normal((a, b)) * scale).astype(dtype))
        return cls(tuple(weights), tuple(np.zeros(b, dtype) for b in sizes[1:]), slope)

    def run(self, x: np.ndarray) -> list[np.ndarray]:
        """[x, what each rectified layer gives, …, the outputs]."""
        values = [x]
        last = len(self.weights) - 1
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ w + b
            x = x if i == last else np.where(x > 0, x, x.dtype.type(self.slope) * x)
            values.append(x)
        return values

    def back(self, values: list[np.ndarray], d: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """(gradients in the order of `arrays`, gradient of x) from that of the outputs, [n, o]."""
        found: list[np.ndarray] = []
        for i in reversed(range(len(self.weights))):
            if i < len(self.weights) - 1:
                d = np.where(values[i + 1] > 0, d, d.dtype.type(self.slope) * d)
            found += [d.sum(axis=0), values[i].T @ d]
            d = d @ self.weights[i].T
        return found[::-1], d

    @property
    def arrays(self) -> list[np.ndarray]:
        """w_1, b_1, w_2, b_2, …"""
        return [a for pair in zip(self.weights, self.biases, strict=True) for a in pair]

    def with_arrays(self, arrays: Sequence[np.ndarray]) -> Layers:
        return Layers(tuple(arrays[0::2]), tuple(arrays[1::2]), self.slope)


class Adam:
    """Kingma & Ba 2015, with decoupled weight decay (Loshchilov & Hutter 2019). Changes the arrays in place."""

    def __init__(self, arrays: Sequence[np.ndarray], *, decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999)):
        self.first = [np.zeros_like(a) for a in arrays]
        self.second = [np.zeros_like(a) for a in arrays]
        self.count, self._decay, self._betas = 0, decay, betas

    def step(self, arrays: Sequence[np.ndarray], gradients: Iterable[np.ndarray], rate: float) -> None:
        self.count += 1
        a, b = self._betas
        scale, root = rate / (1 - a**self.count), np.sqrt(1 - b**self.count)
        for x, g, m, v in zip(arrays, gradients, self.first, self.second, strict=True):
            m += (1 - a) * (g - m)
            v += (1 - b) * (g * g - v)
            if self._decay and x.ndim > 1:
                x *= 1 - rate * self._decay
            x -= scale * m / (np.sqrt(v) / root + 1e-8)


# Losses: the mean over rows, known and unknown ones counting one half each where there are both


def binary(z: np.ndarray, unknown: np.ndarray) -> tuple[float, np.ndarray]:
    """Cross-entropy of the log-odds z [n, 1] of being unknown; unknown [n] bool. Both sorts weigh the same."""
    odds, sign = z[:, 0], np.where(unknown, 1.0, -1.0).astype(z.dtype)
    weight = _halves(unknown, z.dtype)
    value = float((weight * _softplus(-sign * odds)).sum())
    return value, (-sign * weight * _sigmoid(-sign * odds))[:, None]


def classes(z: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Cross-entropy of c + 1 logits z [n, c + 1], the last for none; labels [n], c for unknown images."""
    weight = _halves(labels == z.shape[1] - 1, z.dtype)
    top = z.max(axis=1, keepdims=True)
    p = np.exp(z - top)
    total = p.sum(axis=1, keepdims=True)
    rows = np.arange(len(z))
    value = float((weight * (np.log(total[:, 0]) + top[:, 0] - z[rows, labels])).sum())
    p /= total
    p[rows, labels] -= 1
    return value, p * weight[:, None]


def _halves(unknown: np.ndarray, dtype: Any) -> np.ndarray:
    """[n] weights that sum to one, half of it for either sort."""
    n, m = int((~unknown).sum()), int(unknown.sum())
    share = 0.5 if n and m else 1.0
    return np.where(unknown, share / max(m, 1), share / max(n, 1)).astype(dtype)


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def decay_rate(rate: float, step: int, steps: int) -> float:
    """The learning rate of a step: along half a cosine to 0."""
    return rate * (1 + np.cos(np.pi * step / max(steps, 1))) / 2


def dump(nets: Mapping[str, tuple[Layers, Adam]]) -> bytes:
    """The state of small networks and their optimisers, by name, as an archive of arrays."""
    named: dict[str, np.ndarray] = {}
    for who, (layers, adam) in nets.items():
        for kind, arrays in (("w", layers.arrays), ("m", adam.first), ("v", adam.second)):
            named |= {f"{who}/{kind}{i}": a for i, a in enumerate(arrays)}
        named[f"{who}/count"] = np.array(adam.count)
    held = io.BytesIO()
    np.savez(held, **named)  # type: ignore[arg-type]
    return held.getvalue()


def restored(state: bytes, nets: Mapping[str, tuple[Layers, Adam]]) -> list[Layers]:
    """The layers of a state of `dump`, in the order of `nets`; the optimisers are set to it in place."""
    found = []
    with np.load(io.BytesIO(state), allow_pickle=False) as held:
        for who, (layers, adam) in nets.items():
            weights, adam.first, adam.second = (
                [held[f"{who}/{kind}{i}"] for i in range(len(layers.arrays))] for kind in "wmv"
            )
            adam.count = int(held[f"{who}/count"])
            found.append(layers.with_arrays(weights))
    return found


class Epochs:
    """Batches by the step's number, of epochs of `steps` steps: draw(epoch) gives a function from the step within it to
    its batch, so what is drawn at random for an epoch is drawn once."""

    def __init__(self, draw: Callable[[int], Callable[[int], Arrays]], steps: int) -> None:
        self._draw, self._steps = draw, steps
        self._epoch, self._batch_of = -1, draw

    def __call__(self, step: int) -> Arrays:
        epoch, i = divmod(step, self._steps)
        if epoch != self._epoch:
            self._epoch, self._batch_of = epoch, self._draw(epoch)  # type: ignore[assignment]
        return self._batch_of(i)  # type: ignore[return-value]


class LayersTrainer(Trainer):
    """One small network. rate: of learning, at the beginning of `steps` steps; decay: of the weights. Batches are "x"
    [n, d] and "targets" [n], whatever `loss` reads."""

    def __init__(self, layers: Layers, loss: Loss, steps: int, *, rate: float, decay: float = 1e-4) -> None:
        self.net = layers.with_arrays([a.copy() for a in layers.arrays])
        self.adam = Adam(self.net.arrays, decay=decay)
        self._loss, self._steps, self._rate = loss, steps, rate

    def run(self, steps: range, batch_of: Callable[[int], Arrays], done: Callable[[float], None]) -> None:
        for step in steps:
            batch = batch_of(step)
            values = self.net.run(batch["x"])
            value, d = self._loss(values[-1], batch["targets"])
            gradients, _ = self.net.back(values, d.astype(values[-1].dtype, copy=False))
            self.adam.step(self.net.arrays, gradients, decay_rate(self._rate, step, self._steps))
            done(value)

    def losses(self, batches: Sequence[Arrays]) -> list[float]:
        return [self._loss(self.net.run(batch["x"])[-1], batch["targets"])[0] for batch in batches]

    def dumped(self) -> bytes:
        return dump({"net": (self.net, self.adam)})

    def restore(self, state: bytes) -> None:
        (self.net,) = restored(state, {"net": (self.net, self.adam)})

    def finished(self) -> Layers:
        return self.net

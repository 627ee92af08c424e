"""Small networks on activations, trained in plain NumPy: no framework is needed, whatever the classifier is of.

Same numbers for the same seed on the same machine. Arrays are float32, or float64 where the gradients are tested.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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


def falling(rate: float, step: int, steps: int) -> float:
    """The learning rate of a step: along half a cosine to 0."""
    return rate * (1 + np.cos(np.pi * step / max(steps, 1))) / 2


class Checkpoint:
    """The state of a training after its latest whole epoch, in a folder; does nothing without one.

    Steps follow from seed and epoch, so going on from there gives what an uninterrupted training gives. `key` names
    what is trained: a state of something else is left alone.
    """

    def __init__(self, folder: Path | None, name: str, key: str) -> None:
        self._file = None if folder is None else folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz"

    def load(self) -> Mapping[str, np.ndarray]:
        """Arrays by name, none when there is no state that can be read."""
        if self._file is None or not self._file.is_file():
            return {}
        try:
            with self._file.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except Exception:  # zip, zlib and NumPy have dozens for bytes that are damaged
            return {}

    def save(self, arrays: Mapping[str, np.ndarray]) -> None:
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_suffix(".new.npz")
        np.savez(draft, **arrays)  # type: ignore[arg-type]
        draft.replace(self._file)


def state_of(who: str, layers: Layers, adam: Adam) -> dict[str, np.ndarray]:
    """Arrays from which `restored` goes on."""
    named = {f"{who}/w{i}": a for i, a in enumerate(layers.arrays)}
    named |= {f"{who}/m{i}": a for i, a in enumerate(adam.first)} | {
        f"{who}/v{i}": a for i, a in enumerate(adam.second)
    }
    return named | {f"{who}/count": np.array(adam.count)}


def restored(who: str, state: Mapping[str, np.ndarray], layers: Layers, adam: Adam) -> Layers:
    """The layers of a state; `adam` is set to it in place."""
    n = len(layers.arrays)
    adam.first = [state[f"{who}/m{i}"] for i in range(n)]
    adam.second = [state[f"{who}/v{i}"] for i in range(n)]
    adam.count = int(state[f"{who}/count"])
    return layers.with_arrays([state[f"{who}/w{i}"] for i in range(n)])


@dataclass(frozen=True)
class Schedule:
    """epochs of `steps` steps each; rate: of learning, at the beginning; decay: of the weights."""

    epochs: int
    steps: int
    rate: float
    decay: float = 1e-4


def trained(
    layers: Layers,
    draw: Callable[[int], Iterable[tuple[np.ndarray, np.ndarray]]],
    loss: Loss,
    schedule: Schedule,
    *,
    checkpoint: Checkpoint | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> tuple[Layers, list[dict[str, float]]]:
    """(trained layers, one line of history per epoch). draw(epoch): (x [n, d], target [n]) of its `steps` steps."""
    net = layers.with_arrays([a.copy() for a in layers.arrays])
    adam = Adam(net.arrays, decay=schedule.decay)
    state = checkpoint.load() if checkpoint else {}
    history: list[dict[str, float]] = [{"loss": float(x)} for x in state.get("losses", ())]
    if state:
        net = restored("net", state, net, adam)
    for epoch in range(len(history), schedule.epochs):
        total, count = 0.0, 0
        for x, target in draw(epoch):
            values = net.run(x)
            value, d = loss(values[-1], target)
            gradients, _ = net.back(values, d.astype(x.dtype, copy=False))
            adam.step(net.arrays, gradients, falling(schedule.rate, adam.count, schedule.epochs * schedule.steps))
            total, count = total + value, count + 1
            advance(len(x))
        history.append({"loss": total / max(count, 1)})
        if checkpoint:
            losses = np.array([line["loss"] for line in history])
            checkpoint.save({**state_of("net", net, adam), "losses": losses})
    return net, history

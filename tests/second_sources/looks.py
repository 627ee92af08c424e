"""References of detectors that read maps or look at changed images, and of combinations."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable

import numpy as np
import torch
from scipy import special

from knownot.arrays import Activations
from knownot.detectors.methods.gram import SMALLEST, GramRows

from .distances import inverse, within
from .sight import Array, Sight


def gram_rows(maps: Array, powers: int) -> Array:
    """[n, powers k], image by image: G_p = (F^p F^pT)^(1/p), summed over its rows."""
    out = []
    for f in maps.reshape(*maps.shape[:2], -1):
        grams = [np.einsum("is,js->ij", f**p, f**p) for p in range(1, powers + 1)]
        out.append(np.concatenate([(np.sign(g) * np.abs(g) ** (1 / p)).sum(axis=1) for p, g in enumerate(grams, 1)]))
    return np.array(out)


def gram(s: Sight, powers: int = 5) -> Array:
    score, known, mine = np.zeros(len(s.f)), s.z.argmax(axis=1), s.l.argmax(axis=1)
    for layer in s.maps:
        # which images are held out is told by the bytes of the code's own rows; their values are computed anew
        told = GramRows(layer, powers).of(Activations(s.z, s.x, {}, {layer: s.maps[layer]}))
        held = np.array([zlib.crc32(row.tobytes()) % 10 == 0 for row in told])
        x, f = gram_rows(s.maps[layer], powers), gram_rows(s.f_maps[layer], powers)
        whole = x[~held].min(axis=0), x[~held].max(axis=0)
        bounds = {k: (x[~held & (known == k)].min(0), x[~held & (known == k)].max(0)) for k in set(known[~held])}
        floor = SMALLEST * np.mean([np.maximum(abs(low), abs(high)) for low, high in bounds.values()])

        def delta(row: Array, k: int, whole=whole, bounds=bounds, floor=floor) -> float:
            low, high = bounds.get(k, whole)
            below, above = np.maximum(low - row, 0), np.maximum(row - high, 0)
            return float((below / np.maximum(abs(low), floor) + above / np.maximum(abs(high), floor)).sum())

        usual = np.mean([delta(x[i], known[i]) for i in np.flatnonzero(held)])
        score += np.array([delta(row, k) for row, k in zip(f, mine, strict=True)]) / usual
    return score


def rankfeat(s: Sight) -> Array:
    out = []
    for f in s.f_maps[list(s.f_maps)[-1]]:
        u, size, vt = np.linalg.svd(f.reshape(len(f), -1), full_matrices=False)
        rest = f.reshape(len(f), -1) - size[0] * np.outer(u[:, 0], vt[0])
        out.append(-special.logsumexp(s.head(rest.mean(axis=1))))
    return np.array(out)


def slope(s: Sight, x: Array, of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Array:
    """The gradient, like x, of `of(features, logits)` [n] with respect to the inputs, in float64."""
    found = []
    for i in range(0, len(x), 25):
        given = torch.tensor(x[i : i + 25], dtype=torch.float64, requires_grad=True)
        of(*s.network(given)).sum().backward()
        found.append(given.grad.numpy())
    return np.concatenate(found)


def at(s: Sight, x: Array) -> tuple[Array, Array]:
    with torch.no_grad():
        parts = [s.network(torch.tensor(x[i : i + 25], dtype=torch.float64)) for i in range(0, len(x), 25)]
    f, z = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return f, z


def odin(s: Sight, temperature: float = 1000.0, eps: float = 0.0014) -> Array:
    x = s.inputs["queries"]

    def surest(f: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        z = z / temperature
        top = z.max(dim=1, keepdim=True)
        others = z.masked_fill(z >= top.values, -torch.inf)
        return -torch.logsumexp(others - top.values, dim=1)  # a monotone function of p_max that does not saturate

    _, z = at(s, x + eps * np.sign(slope(s, x, surest)))
    z = z / temperature - z.max(axis=1, keepdims=True) / temperature
    return np.log1p(np.expm1(z).mean(axis=1))


def mahalanobis_odin(s: Sight, eps: float = 0.0014) -> Array:
    means, covariance = within(s.x, s.y)
    precision = inverse(covariance)
    m, p = torch.tensor(means), torch.tensor(precision)

    def distance(f: torch.Tensor, z: object = None) -> torch.Tensor:
        gap = f[:, None] - m
        return torch.einsum("ncd,de,nce->nc", gap, p, gap).min(dim=1).values

    x = s.inputs["queries"]
    f, _ = at(s, x - eps * np.sign(slope(s, x, distance)))
    return distance(torch.tensor(f)).numpy()


def adascale(s: Sight, size: float = 0.113) -> Array:
    """Algorithm 1 of the paper, image by image; k1 is the shift's share, k2 the correction's."""

    def shift(x: Array) -> Array:
        g = slope(s, x, lambda f, z: z.max(dim=1).values).reshape(len(x), -1)
        changed = x.reshape(len(x), -1).astype(np.float64).copy()
        for row, slopes in zip(changed, g, strict=True):
            few = np.argsort(np.abs(slopes), kind="stable")[: max(1, int(0.05 * len(slopes)))]
            row[few] += size * np.sign(slopes[few])
        out = []
        for f, h in zip(at(s, x)[0], at(s, changed.reshape(x.shape))[0], strict=True):
            top = np.argsort(-f, kind="stable")
            first, second = (top[: max(1, int(k * len(f)))] for k in (0.01, 0.05))
            out.append(10 * np.abs(f - h)[first].sum() + np.maximum(h, 0)[second].sum())
        return np.array(out)

    known, mine, out = shift(s.inputs["train"]), shift(s.inputs["queries"]), []
    for q, f in zip(mine, s.f, strict=True):
        p = 75 + (1 - (known <= q * (1 + 1e-6)).mean()) * 10
        positive = np.maximum(f, 0)
        top = np.sort(positive)[::-1][: max(1, len(f) - round(len(f) * p / 100))]
        out.append(-special.logsumexp(s.head(f * np.exp(positive.sum() / top.sum()))))
    return np.array(out)


def mc_dropout(s: Sight, count: int = 10, seed: int = 0) -> Array:
    p = np.mean(
        [special.softmax(s.network.dropped(s.inputs["queries"], seed * 1_000_003 + i), axis=1) for i in range(count)],
        axis=0,
    )
    return -special.xlogy(p, p).sum(axis=1)


def combined(s: Sight) -> Array:
    """Of the default's members, each by its own reference: the sum of -log p, distances of one place sharing a vote;
    beyond the largest reference p falls exponentially, by the mean excess of the largest tenth. References are larger
    by 2^-14 of themselves (of their median at least): what rounding may add to the score of the same image."""
    total = np.zeros(len(s.f))
    d = s.detector
    names = [d.names[i] for i in d.start] if d.chooses else list(d.members)
    stages = [name for name in names if name.startswith("mahalanobis++ ")]
    for name in names:
        new, mine = s.member(name)
        sizes = sorted(abs(float(x)) for x in new)
        median = (sizes[(len(sizes) - 1) // 2] + sizes[len(sizes) // 2]) / 2
        new = np.array([float(x) + max(abs(float(x)), median) / 16384 for x in new])
        share = 1 / len(stages) if name in stages else 0.5 if name in ("knn", "mahalanobis++") else 1
        down = sorted(map(float, new), reverse=True)
        top = max(5, len(down) // 10)
        mean_excess = sum(x - down[top] for x in down[:top]) / top
        for i, x in enumerate(map(float, mine)):
            total[i] -= share * math.log((1 + (new >= x - 1e-9 * abs(x)).sum()) / (len(new) + 1))
            total[i] += share * max(x - down[0], 0) / mean_excess
    return total

"""References of what features and the head decide together, shapers among it."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import linalg, special, stats
from scipy.ndimage import uniform_filter1d
from scipy.spatial.distance import cdist

from .sight import Array, Sight


def fdbd(s: Sight) -> Array:
    mean, out = s.x.mean(axis=0), []
    for f, z in zip(s.f, s.l, strict=True):
        c = int(z.argmax())
        gaps = [(z[c] - z[k]) / np.linalg.norm(s.weight[c] - s.weight[k]) for k in range(len(z)) if k != c]
        out.append(-np.mean(gaps) / np.linalg.norm(f - mean))
    return np.array(out)


def nnguide(s: Sight, k: int = 10) -> Array:
    bank = np.unique(s.x, axis=0)
    energy = special.logsumexp(s.head(bank), axis=1)
    origin = min(0.0, energy.min())
    products = np.sort((1 - cdist(s.f, bank, "cosine")) * (energy - origin), axis=1)
    return -(special.logsumexp(s.l, axis=1) - origin) * products[:, -k:].mean(axis=1)


def head_gradient(s: Sight, loss: str) -> tuple[list[Array], list[Array]]:
    """Of the last layer's weights and bias, by automatic differentiation, for each image by itself."""
    weights, biases = [], []
    for f in s.f:
        weight, bias = (torch.tensor(x, requires_grad=True) for x in (s.weight, s.bias))
        z = weight @ torch.tensor(f) + bias
        log_p = torch.log_softmax(z, dim=0)
        # binary cross-entropy to ones is -log p; torch's own bounds its gradient where p is below 1e-12
        (-log_p.mean() if loss == "uniform" else -log_p.sum()).backward()
        weights.append(weight.grad.numpy())
        biases.append(bias.grad.numpy())
    return weights, biases


def gradnorm(s: Sight) -> Array:
    return np.array([-np.abs(w).sum() for w in head_gradient(s, "uniform")[0]])


def grad_uncertainty(s: Sight) -> Array:
    return np.array([-(w**2).sum() - (b**2).sum() for w, b in zip(*head_gradient(s, "ones"), strict=True)])


def nci(s: Sight) -> Array:
    mean = s.x.mean(axis=0)
    w = s.weight[s.l.argmax(axis=1)]
    return -((s.f - mean) * w).sum(axis=1) / np.linalg.norm(s.f - mean, axis=1) - 1e-4 * np.abs(s.f).sum(axis=1)


def pulls(s: Sight, f: Array) -> Array:
    z = torch.tensor(f, requires_grad=True)
    p = torch.softmax(z @ torch.tensor(s.weight).T + torch.tensor(s.bias), dim=1)
    u = 1 / p.shape[1]
    (u * torch.log(u / p)).sum().backward()
    return (z * z.grad).detach().numpy()


def nac(s: Sight, bins: int = 50) -> Array:
    known, asked = pulls(s, np.unique(s.x, axis=0)), pulls(s, s.f)
    alpha = 10 / math.sqrt((known**2).mean())
    known, asked = (special.expit(alpha * x) for x in (known, asked))
    centres, out = (np.arange(bins) + 0.5) / bins, np.zeros(len(asked))
    for j in range(known.shape[1]):
        hats = np.array([np.interp(known[:, j], centres, row) for row in np.eye(bins)])  # [bins, m]
        covered = np.minimum(hats.mean(axis=1) / 0.01, 1)
        out -= np.interp(asked[:, j], centres, covered)
    return out / known.shape[1]


def hats(rows: Array, low: float, high: float, bins: int) -> Array:
    """[n, bins], the share of each row's values at each centre; one between two counts for both, in part."""
    place = (rows - low) / (high - low) * (bins - 1)
    left = np.floor(place).astype(int)
    out = np.zeros((len(rows), bins + 2))
    n = np.broadcast_to(np.arange(len(rows))[:, None], left.shape)
    for at, weight in ((left, 1 - (place - left)), (left + 1, place - left)):
        inside = (at >= 0) & (at < bins)
        np.add.at(out, (n[inside], at[inside]), weight[inside])
    return out[:, :bins] / rows.shape[1]


def divergence(rows: Array, known: Array, bins: int, window: int, least: float) -> Array:
    low, high = known.min(), known.max()
    p, out = hats(known, low, high, bins).mean(axis=0) + least, []
    for row in hats(rows, low, high, bins):
        q = uniform_filter1d(row, window, mode="nearest", origin=-1 if window % 2 == 0 else 0) + least
        out.append(stats.entropy(p, q) + stats.entropy(q, p))
    return np.array(out)


def weiper(s: Sight) -> Array:
    c = s.classes
    noise = np.random.default_rng(0).normal(size=(min(100, 2000 // c), *s.weight.shape))
    size = np.linalg.norm(s.weight, axis=1)[:, None]
    heads = [s.weight + 1.8 * size * n / np.linalg.norm(n, axis=1)[:, None] for n in noise]
    # WeiPer takes the first thousand rows of the sample, in the order of their hashes: as many as there are here
    known = np.unique(s.x, axis=0)
    assert len(known) <= 1000
    surest = np.mean([special.softmax(s.f @ h.T + s.bias, axis=1).max(axis=1) for h in heads], axis=0)
    f, x = (np.concatenate([a @ h.T + s.bias for h in heads], axis=1) for a in (s.f, known))
    return divergence(s.f, known, 100, 4, 0.01) + 2.5 * divergence(f, x, 100, 15, 0.025) - 0.1 * surest


def core(s: Sight) -> Array:
    def terms(f: Array, z: Array) -> Array:
        c = z.argmax(axis=1)
        rest = [a - linalg.lstsq(s.weight[k][:, None], a)[0] @ s.weight[k][None] for a, k in zip(f, c, strict=True)]
        cosines = [r @ means[k] / np.linalg.norm(r) / np.linalg.norm(means[k]) for r, k in zip(rest, c, strict=True)]
        return np.stack([special.logsumexp(z, axis=1), np.array(cosines)])

    means = []
    for k in range(s.classes):
        mean = s.x[s.y == k].mean(axis=0)
        means.append(mean - (mean @ s.weight[k]) / (s.weight[k] @ s.weight[k]) * s.weight[k])
    known = np.unique(s.x, axis=0)
    usual, mine = terms(known, s.head(known)), terms(s.f, s.l)
    return -((mine - usual.mean(axis=1)[:, None]) / usual.std(axis=1)[:, None]).sum(axis=0)


def kept(f: Array, percentile: float) -> int:
    return max(1, len(f) - round(len(f) * percentile / 100))


def ratio(f: Array, percentile: float) -> float:
    positive = np.maximum(f, 0)
    top = np.sort(positive)[-kept(f, percentile) :].sum()
    return positive.sum() / top if top > 0 else 1.0


def actsub(s: Sight, k: int = 10, power: float = 2.0, percentile: float = 95.0) -> Array:
    known = np.unique(s.x, axis=0)
    basis = s.detector.decisive, s.detector.insignificant
    whole = np.concatenate(basis, axis=1)
    # right singular vectors: orthonormal, and W takes them to orthogonal images of falling length
    np.testing.assert_allclose(whole.T @ whole, np.eye(len(whole)), atol=1e-9)
    values = linalg.svdvals(s.weight)
    gram = (s.weight @ whole).T @ (s.weight @ whole)
    np.testing.assert_allclose(gram[: len(values), : len(values)], np.diag(values**2), atol=1e-8 * values[0] ** 2)
    gaps = [abs(np.mean(np.linalg.norm(known @ whole[:, :j], axis=1) - np.linalg.norm(known @ whole[:, j:], axis=1)))
            for j in range(1, len(whole))]  # fmt: skip
    assert basis[0].shape[1] == 1 + int(np.argmin(gaps))
    decisive = basis[0] @ basis[0].T

    def energy(f: Array) -> Array:
        parts = f @ decisive
        return np.array([special.logsumexp(s.head(p * math.exp(ratio(p, percentile)))) for p in parts])

    origin = min(0.0, energy(known).min())
    cosines = np.sort(1 - cdist(s.f @ basis[1], known @ basis[1], "cosine"), axis=1)[:, -k:].mean(axis=1)
    return -(energy(s.f) - origin) * (-np.log(np.maximum(1 - np.maximum(cosines, 0), 1e-6))) ** power


# Shapers, under the energy


def energies(s: Sight, rows: object) -> Array:
    return -special.logsumexp(s.head(np.asarray(rows)), axis=1)


def react(s: Sight) -> Array:
    return energies(s, np.minimum(s.f, s.detector.shaper.threshold))


def vra(s: Sight) -> Array:
    low, high = s.detector.shaper.low, s.detector.shaper.high
    return energies(s, np.where(s.f < low, 0, np.minimum(s.f, high)))


def ash(s: Sight, kind: str, percentile: float) -> Array:
    rows = []
    for f in s.f:
        bar = np.sort(f)[-kept(f, percentile)]
        stays = (f >= bar) & ((f > 0) | (kind != "b"))
        row = np.where(stays, f, 0.0)
        if kind == "s":
            row = row * (math.exp(f.sum() / row.sum()) if row.sum() > 0 else 1)
        if kind == "b":
            row = stays * (f[f > 0].sum() / max(stays.sum(), 1))
        rows.append(row)
    return energies(s, rows)


def scale(s: Sight) -> Array:
    return energies(s, [f * math.exp(ratio(f, 85)) for f in s.f])


def lts(s: Sight) -> Array:
    return np.array([-special.logsumexp(z * ratio(f, 95) ** 2) for f, z in zip(s.f, s.l, strict=True)])


def dice(s: Sight) -> Array:
    contribution = s.weight * s.x.mean(axis=0)
    masked = np.where(contribution > np.percentile(contribution, 90), s.weight, 0)
    return -special.logsumexp(s.f @ masked.T + s.bias, axis=1)


def optfs(s: Sight, intervals: int = 100) -> Array:
    rows = np.unique(s.x, axis=0)
    edges = np.linspace(np.quantile(rows, 0.001), np.quantile(rows, 0.999), intervals + 1)

    def interval(x: Array) -> Array:  # intervals: outside
        at = np.minimum(np.searchsorted(edges, x, side="right") - 1, intervals - 1)
        return np.where((x >= edges[0]) & (x <= edges[-1]), at, intervals)

    theta = np.zeros(intervals + 1)
    np.add.at(theta, interval(rows), s.weight[s.head(rows).argmax(axis=1)] * rows)
    theta[intervals] = 0
    theta *= math.sqrt(intervals) / np.linalg.norm(theta)
    return -np.max(s.head(theta[interval(s.f)] * s.f), axis=1)


def ras(s: Sight) -> Array:
    usual = [math.fsum(values) / len(s.x) for values in zip(*(sorted(row) for row in s.x.tolist()), strict=True)]
    rows = []
    for f in s.f.tolist():
        row = [0.0] * len(f)
        for value, place in zip(usual, sorted(range(len(f)), key=f.__getitem__), strict=True):  # equal ones in order
            row[place] = value
        rows.append(row)
    return energies(s, rows)

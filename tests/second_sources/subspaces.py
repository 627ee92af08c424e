"""References of principal and residual subspaces."""

from __future__ import annotations

import math

import numpy as np
from scipy import linalg, special
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from .distances import within
from .sight import Array, Sight, unit


def beyond(s: Sight) -> tuple[Array, Array]:
    """ViM's origin, and the principal directions about it beyond half of the rank [d - dim, d]."""
    origin = -linalg.lstsq(s.weight, s.bias, cond=1e-6)[0]
    _, size, directions = linalg.svd(s.x - origin)
    rank = int((size**2 > 1e-10 * size[0] ** 2).sum())
    return origin, directions[min(256, rank // 2) :]


def residual(s: Sight) -> Array:
    origin, rest = beyond(s)
    return np.array([np.linalg.norm(rest @ (f - origin)) for f in s.f])


def vim(s: Sight) -> Array:
    origin, rest = beyond(s)
    lengths = [np.linalg.norm(rest @ (x - origin)) for x in s.x]
    return abs(s.z.max(axis=1).mean()) / np.mean(lengths) * residual(s) - special.logsumexp(s.l, axis=1)


def error(x: Array, f: Array, variance: float) -> Array:
    model = PCA(n_components=variance, svd_solver="full").fit(x)
    return np.linalg.norm(f - model.inverse_transform(model.transform(f)), axis=1)


def pca(s: Sight) -> Array:
    return error(s.x, s.f, 0.9)


def cop(s: Sight) -> Array:
    return error(unit(s.x), unit(s.f), 0.85)


def corp(s: Sight) -> Array:
    rng, d = np.random.default_rng(0), s.x.shape[1]
    m = min(4 * d, 2048)
    w = rng.normal(size=(d, m)) * math.sqrt(2 * 2.0)
    b = rng.uniform(0, 2 * math.pi, size=m)
    x, f = (np.cos(unit(a) @ w + b) * math.sqrt(2 / m) for a in (s.x, s.f))
    return error(x, f, 0.8)


def neco(s: Sight) -> Array:
    moves = s.x.std(axis=0) > 1e-9 * np.abs(s.x).max()
    scaler = StandardScaler().fit(s.x[:, moves])
    x, f = scaler.transform(s.x[:, moves]), scaler.transform(s.f[:, moves])
    kept = PCA(svd_solver="full").fit(x).transform(f)[:, : s.classes - 1]
    return -np.linalg.norm(kept, axis=1) / np.linalg.norm(f, axis=1)


def pnml(s: Sight) -> Array:
    z, f = unit(s.x), unit(s.f)
    values, directions = linalg.eigh(z.T @ z)
    inverse = directions / np.maximum(values, 1e-10 * values[-1]) @ directions.T
    q = np.einsum("nd,de,ne->n", f, inverse, f)[:, None]
    log_p = special.log_softmax(s.l, axis=1)
    others = [special.logsumexp(np.delete(s.l, k, axis=1), axis=1) for k in range(s.classes)]
    log_rest = np.stack(others, axis=1) - special.logsumexp(s.l, axis=1)[:, None]
    # 1 / (1 + p^(g - 1) (1 - p)), as a log-sigmoid, whose sum has to be had to more digits than float64 gives near 1
    share = special.expit(-(log_p * (q / (1 + q) - 1) + log_rest))
    own = np.exp(log_p)
    return np.log1p((share - own).sum(axis=1))


def wdiscood(s: Sight) -> Array:
    x, f = unit(s.x), unit(s.f)
    means, covariance = within(x, s.y)
    values, directions = linalg.eigh(covariance)
    kept = values > 1e-10 * values[-1]
    whiten = directions[:, kept] / np.sqrt(values[kept])
    means, f, middle = means @ whiten, f @ whiten, x.mean(axis=0) @ whiten
    _, g = linalg.eigh((means - middle).T @ (means - middle))
    g = g[:, ::-1][:, : np.linalg.matrix_rank(means - middle, tol=1e-6 * np.linalg.norm(means - middle, 2))]
    outside = np.eye(len(g)) - g @ g.T
    return cdist(f @ g, means @ g).min(axis=1) + np.linalg.norm((f - middle) @ outside, axis=1)

"""References of distances and densities in feature space."""

from __future__ import annotations

import math

import numpy as np
from scipy import linalg, special, stats
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from .sight import Array, Sight, unit


def within(x: Array, y: Array) -> tuple[Array, Array]:
    """Class means, and the covariance about them divided by the number of images."""
    means = np.stack([x[y == k].mean(axis=0) for k in sorted(set(y))])
    centred = np.concatenate([x[y == k] - means[i] for i, k in enumerate(sorted(set(y)))])
    return means, centred.T @ centred / len(x)


def inverse(covariance: Array, cut: float = 1e-10) -> Array:
    return linalg.pinvh(covariance, rtol=cut)


def squared(x: Array, y: Array, f: Array) -> Array:
    """Squared distances to each class mean, [n, classes]."""
    means, covariance = within(x, y)
    precision = inverse(covariance)
    return np.stack([np.einsum("nd,de,ne->n", f - m, precision, f - m) for m in means], axis=1)


def mahalanobis(s: Sight) -> Array:
    return squared(s.x, s.y, s.f).min(axis=1)


def mahalanobis_pp(s: Sight) -> Array:
    return squared(unit(s.x), s.y, unit(s.f)).min(axis=1)


def relative(s: Sight) -> Array:
    return (squared(s.x, s.y, s.f) - squared(s.x, 0 * s.y, s.f)).min(axis=1)


def relative_pp(s: Sight) -> Array:
    x, f = unit(s.x), unit(s.f)
    return (squared(x, s.y, f) - squared(x, 0 * s.y, f)).min(axis=1)


def ssd(s: Sight) -> Array:
    return squared(unit(s.x), 0 * s.y, unit(s.f))[:, 0]


def left_out(x: Array, y: Array) -> Array:
    """The squared distance of each known image to its nearest class, means and covariance fitted anew without it."""
    means, covariance = within(x, y)
    own, m = np.searchsorted(sorted(set(y)), y), len(x)
    size = np.bincount(own)[own]
    centred = x - means[own]
    less = (size / (size - 1))[:, None, None] * centred[:, :, None] * centred[:, None, :]
    precision = np.linalg.pinv((m * covariance - less) / (m - 1), rcond=1e-10, hermitian=True)
    found = []
    for i in range(m):
        at = means.copy()
        at[own[i]] = np.delete(x[own == own[i]], np.flatnonzero(np.flatnonzero(own == own[i]) == i), 0).mean(axis=0)
        found.append(min(g @ precision[i] @ g for g in x[i] - at))
    return np.array(found)


def layers(s: Sight, normed: bool = False, every: int = 1) -> Array:
    total = np.zeros(len(s.f))
    pairs = [*((s.stages[name], s.f_stages[name]) for name in s.stages), (s.x, s.f)]
    for x, f in pairs:
        x, f = (unit(a) if normed else a for a in (x, f))
        low, usual, high = np.quantile(left_out(x, s.y), [0.16, 0.5, 0.84])
        total += (squared(x, s.y, f).min(axis=1) - usual) / ((high - low) / 2)
    return total


def layers_pp(s: Sight) -> Array:
    return layers(s, True)


def gmm(s: Sight) -> Array:
    x, f = unit(s.x), unit(s.f)
    values, directions = linalg.eigh(within(x, s.y)[1])
    inside = directions[:, values > 1e-10 * values[-1]]  # elsewhere there is rounding noise
    x, f, d = x @ inside, f @ inside, inside.shape[1]
    tied, logs = within(x, s.y)[1], []
    for k in sorted(set(s.y)):
        own = x[s.y == k]
        covariance = (len(own) * np.cov(own.T, bias=True) + d * tied) / (len(own) + d)
        density = stats.multivariate_normal(own.mean(axis=0), covariance)
        logs.append(math.log(len(own) / len(x)) + density.logpdf(f))
    return -special.logsumexp(logs, axis=0)


def knn(s: Sight, k: int = 10) -> Array:
    return np.sort(cdist(unit(s.f), unit(np.unique(s.x, axis=0))), axis=1)[:, k - 1]


def kde(s: Sight) -> Array:
    bank = unit(np.unique(s.x, axis=0))
    r, d = bank.shape
    h = math.sqrt(np.trace(np.cov(bank.T, bias=True)) / d) * r ** (-1 / (d + 4))
    return math.log(r) - special.logsumexp(-(cdist(unit(s.f), bank) ** 2) / (2 * h * h), axis=1)


def ctm(s: Sight) -> Array:
    means = np.stack([s.x[s.y == k].mean(axis=0) for k in sorted(set(s.y))])
    return cdist(s.f, means, "cosine").min(axis=1) - 1


def she(s: Sight) -> Array:
    winner = s.z.argmax(axis=1)
    patterns = np.stack([s.x[(s.y == k) & (winner == k)].mean(axis=0) for k in range(s.classes)])
    return -np.einsum("nd,nd->n", s.f, patterns[s.l.argmax(axis=1)])


def relation(s: Sight) -> Array:
    rows = np.unique(np.concatenate([s.x, s.z], axis=1), axis=0)
    x, z = rows[:, : s.x.shape[1]], rows[:, s.x.shape[1] :]
    k = np.maximum(1 - cdist(s.f, x, "cosine"), 0) * (special.softmax(s.l, axis=1) @ special.softmax(z, axis=1).T)
    return -np.where(k > 0.03, k, 0).mean(axis=1)


def flow(s: Sight) -> Array:
    """The fitted maps applied anew: each slope a broken line through its knots, integrated piece by piece."""
    d = s.detector
    t = (unit(s.f) - d.center) @ d.whiten
    m = d.rotations.shape[1]
    t, rest = t[:, :m], t[:, m:]
    score = (rest**2).sum(axis=1) / 2 + d.whiten.shape[1] / 2 * math.log(2 * math.pi)
    # the map to principal axes scales each by one over its standard deviation
    score -= np.log(np.linalg.norm(d.whiten, axis=0)).sum()
    for i, rotation in enumerate(d.rotations):
        t = t @ rotation
        out = np.empty_like(t)
        for j in range(m):
            knots, (first, last) = d.knots[i, j], d.ends[i, j]
            steps = np.diff(knots)
            slopes = first + np.concatenate([[0], np.cumsum(np.cumsum(d.bends[i, j])[:-1] * steps)])
            np.testing.assert_allclose(slopes[-1], last, rtol=1e-6)
            heights = np.concatenate([[0], np.cumsum((slopes[1:] + slopes[:-1]) / 2 * steps)])
            inner = np.clip(t[:, j], knots[0], knots[-1])
            at = np.interp(inner, knots, slopes)
            piece = np.clip(np.searchsorted(knots, inner, side="right") - 1, 0, len(knots) - 2)
            value = heights[piece] + (slopes[piece] + at) / 2 * (inner - knots[piece])
            value = value + np.where(t[:, j] < knots[0], first, last) * (t[:, j] - inner)
            out[:, j] = value - d.shift[i, j]
            score -= np.log(at)
        t = out
    return score + (t**2).sum(axis=1) / 2


def dknn(s: Sight, k: int = 10) -> Array:
    pca = PCA(svd_solver="full").fit(unit(s.x))
    rank = int(np.sum(pca.explained_variance_ > 1e-10 * pca.explained_variance_[0]))
    dim = max(1, min(s.classes - 1, rank // 2))
    bank, f = (pca.transform(unit(rows))[:, :rank] for rows in (np.unique(s.x, axis=0), s.f))
    total = np.zeros(len(f))
    for part in (slice(0, dim), slice(dim, rank)):
        among = cdist(bank[:, part], bank[:, part])
        np.fill_diagonal(among, np.inf)
        usual = np.sort(among, axis=1)[:, k - 1]
        mine = np.sort(cdist(f[:, part], bank[:, part]), axis=1)[:, k - 1]
        total += (mine - usual.mean()) / usual.std()
    return total

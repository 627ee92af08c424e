"""References of what logits alone decide."""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize, special, stats

from .sight import Array, Sight


def log_rest(l: Array) -> Array:  # noqa: E741
    """log (1 - p) of every class, from the other classes' logits."""
    others = np.stack([special.logsumexp(np.delete(l, k, axis=1), axis=1) for k in range(l.shape[1])], axis=1)
    return others - special.logsumexp(l, axis=1)[:, None]


def msp(s: Sight) -> Array:
    return np.exp(log_rest(s.l)[np.arange(len(s.l)), s.l.argmax(axis=1)])


def maxlogit(s: Sight) -> Array:
    return np.array([-max(row) for row in s.l])


def energy(s: Sight) -> Array:
    return -special.logsumexp(s.l, axis=1)


def entropy(s: Sight) -> Array:
    log_p = special.log_softmax(s.l, axis=1)
    return -np.sum(np.where(log_p > -700, np.exp(log_p) * log_p, 0), axis=1)


def gen(s: Sight) -> Array:
    terms = np.exp(0.1 * (special.log_softmax(s.l, axis=1) + log_rest(s.l)))
    order = np.argsort(-s.l, axis=1)[:, :100]
    return np.take_along_axis(terms, order, axis=1).sum(axis=1)


def doctor(s: Sight) -> Array:
    return np.exp(special.log_softmax(s.l, axis=1) + log_rest(s.l)).sum(axis=1)


def kl_matching(s: Sight) -> Array:
    p, winner = special.softmax(s.z, axis=1), s.z.argmax(axis=1)
    means = [p[winner == k].mean(axis=0) for k in sorted(set(winner))]
    return np.array([min(stats.entropy(q, m) for m in means) for q in special.softmax(s.l, axis=1)])


def temperature_msp(s: Sight) -> Array:
    if (s.z.argmax(axis=1) == s.y).all():
        return msp(s)
    truth = s.z[np.arange(len(s.z)), s.y]

    def slope(beta: float) -> float:  # of the negative log-likelihood in 1 / T
        return float(np.mean((special.softmax(beta * s.z, axis=1) * s.z).sum(axis=1) - truth))

    beta = optimize.brentq(slope, 1e-2, 1e2, xtol=1e-14)
    cooled = s.l * beta
    return np.exp(log_rest(cooled)[np.arange(len(cooled)), cooled.argmax(axis=1)])


def openmax(s: Sight, tail: int = 20, alpha: int = 3) -> Array:
    right = s.z.argmax(axis=1) == s.y
    means, models = [], []
    for k in range(s.classes):
        own = s.z[right & (s.y == k)]
        means.append(own.mean(axis=0))
        far = np.sort([math.dist(x, means[k]) for x in own])[-tail:]
        far = far - far[0] + 1
        log = np.log(far)
        shape = optimize.brentq(lambda a: (far**a @ log) / (far**a).sum() - 1 / a - log.mean(), 1e-3, 100, xtol=1e-13)  # noqa: B023
        models.append(
            (shape, np.mean(far**shape) ** (1 / shape), np.sort([math.dist(x, means[k]) for x in own])[-tail:][0] - 1)
        )
    scores = []
    for x in s.l:
        weight = np.zeros(len(x))
        for rank, k in enumerate(np.argsort(-x)[:alpha]):
            shape, scale, shift = models[k]
            weight[k] = (alpha - rank) / alpha * stats.weibull_min.cdf(math.dist(x, means[k]) - shift, shape, 0, scale)
        scores.append(special.softmax([x @ weight, *(x * (1 - weight))])[0])
    return np.array(scores)


def none_class(s: Sight) -> Array:
    return special.logsumexp(s.none, axis=1) - special.logsumexp(s.l, axis=1)

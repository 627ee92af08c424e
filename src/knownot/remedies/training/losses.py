r"""The losses, one implementation each: on torch tensors through array_api_compat.torch, on Keras tensors through
keras.ops (`namespace`), and on NumPy arrays.

Rows of a batch are known images and outliers together; a weight [n] says which rows a term is about (0 or 1, or any
share), and each term is the mean over ITS rows only. Averaging over the whole batch, as a peer does, makes the strength
of a term depend on how many rows of the other kind happen to be there. Targets are distributions [n, c], so that
labels, mixed labels and "none of these" are one thing.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any

from ...errors import OptionError

Tensor = Any
TINY = 1e-12
NAMESPACES = {"torch": "array_api_compat.torch", "keras": "keras.ops", "numpy": "array_api_compat.numpy"}


def namespace(framework: str) -> Any:
    """What the functions below take as `xp`."""
    return importlib.import_module(NAMESPACES[framework])


@dataclass(frozen=True)
class Part:
    """Weights of some rows of a step, of [m], and the total [1] of all its rows: parts' means add up to the step's."""

    of: Tensor
    total: Tensor


def mean_over(xp: Any, values: Tensor, weight: Tensor | Part) -> Tensor:  # [n], [n] -> []
    """The weighted mean, 0 when no row has any weight; of a part, its share of the mean over all rows."""
    if isinstance(weight, Part):
        total, weight = xp.sum(weight.total), weight.of
    else:
        total = xp.sum(weight)
    return xp.sum(values * weight) / xp.where(total > 0, total, xp.ones_like(total))


def logsumexp(xp: Any, x: Tensor) -> Tensor:  # [n, c] -> [n]
    top = xp.max(x, axis=-1, keepdims=True)
    return xp.squeeze(top, axis=-1) + xp.log(xp.sum(xp.exp(x - top), axis=-1))


def cross_entropy(xp: Any, logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """- sum_k t_k log p_k, the mean over the rows of `weight`. targets [n, c] are distributions.

    With none-classes c counts them too, and an outlier's target is (one of) them.
    """
    return mean_over(xp, logsumexp(xp, logits) - xp.sum(targets * logits, axis=-1), weight)


def uniform_cross_entropy(xp: Any, logits: Tensor, weight: Tensor) -> Tensor:
    r"""Hendrycks, Mazeika & Dietterich, Deep Anomaly Detection with Outlier Exposure, ICLR 2019 (arXiv:1812.04606), and
    the unknown rows of the entropic open-set loss, Dhamija, Günther & Boult, NeurIPS 2018 (arXiv:1811.04110), eq. 2:

        - (1/c) sum_k log p_k = log sum_k exp(l_k) - mean_k l_k,  the mean over the outlier rows
    """
    return mean_over(xp, logsumexp(xp, logits) - xp.mean(logits, axis=-1), weight)


def from_uniform(xp: Any, logits: Tensor) -> Tensor:  # [n, c] -> []
    r"""Lee et al., Training Confidence-calibrated Classifiers, ICLR 2018 (arXiv:1711.09325), eq. 1:

    KL(U || p) = - (1/c) sum_k log p_k - log c,  0 where all classes are alike
    """
    return uniform_cross_entropy(xp, logits, xp.ones_like(logits[:, 0])) - math.log(logits.shape[1])


def energy_margin(xp: Any, logits: Tensor, known: Tensor, outlier: Tensor, *, m_in: float, m_out: float) -> Tensor:
    r"""Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020 (arXiv:2010.03759), eq. 8, 9:

        mean over known of max(0, E - m_in)^2 + mean over outliers of max(0, m_out - E)^2,  E = -log sum_k exp(l_k)

    Known images are to have low energy, so m_in < m_out. Raises OptionError otherwise.
    """
    if not m_in < m_out:
        raise OptionError(
            f"m_in={m_in:g}, m_out={m_out:g}: known images are to have the lower energy, so m_in < m_out."
        )
    energy = -logsumexp(xp, logits)
    return mean_over(xp, _relu(xp, energy - m_in) ** 2, known) + mean_over(xp, _relu(xp, m_out - energy) ** 2, outlier)


def objectosphere(xp: Any, features: Tensor, known: Tensor, outlier: Tensor, *, xi: float) -> Tensor:
    r"""Dhamija, Günther & Boult, Reducing Network Agnostophobia, NeurIPS 2018 (arXiv:1811.04110), eq. 3, the part that
    is added to the entropic open-set loss:

        mean over known of max(0, xi - ||f||)^2 + mean over outliers of ||f||^2
    """
    squared = xp.sum(features**2, axis=-1)
    length = xp.sqrt(squared + TINY)  # its slope at 0 would be infinite
    return mean_over(xp, _relu(xp, xi - length) ** 2, known) + mean_over(xp, squared, outlier)


def virtual_energy(
    xp: Any,
    known: Tensor,
    virtual: Tensor,
    rows: Tensor,
    *,
    log_w: Tensor,
    log_a: Tensor,
    b: Tensor,
    share: Tensor | float = 1.0,
) -> Tensor:
    r"""Du, Wang, Cai & Li, VOS, ICLR 2022 (arXiv:2202.01197), eq. 4, 5, for logits known [n, c] and virtual [m, c]:

        mean over v of -log s(E(v)) + mean over known of -log(1 - s(E(x))),  E = -log sum_k w_k exp(l_k),
        s(E) = sigmoid(a E + b)

    rows [n]: the weight of the known rows; share: of the second term, where a part of the step is computed. w and a are
    positive, being exponentials: authors and peers take relu(w), which can take every class away and leaves log 0, and
    a of any sign, with which the energy of known images may rise.
    """
    odds, strange = (-xp.exp(log_a) * logsumexp(xp, x + log_w) + b for x in (known, virtual))
    return mean_over(xp, softplus(xp, odds), rows) + share * xp.mean(softplus(xp, -strange))


def softplus(xp: Any, x: Tensor) -> Tensor:
    return xp.logaddexp(x, xp.zeros_like(x))


def rooted(xp: Any, covariance: Tensor, ridge: float) -> Tensor:  # [d, d] -> [d, d]
    """R with R R^T the covariance and a ridge, a share of the mean variance."""
    eye = xp.tril(xp.triu(xp.ones_like(covariance)))
    return xp.linalg.cholesky(covariance + eye * (ridge * xp.sum(covariance * eye) / covariance.shape[0] + TINY))


def logit_norm(xp: Any, logits: Tensor, targets: Tensor, weight: Tensor, *, tau: float) -> Tensor:
    r"""Wei et al., Mitigating Neural Network Overconfidence with Logit Normalization, ICML 2022 (arXiv:2205.09310),
    eq. 7: the cross-entropy of l / (tau ||l||). See `least_logit_norm` for what tau may be.
    """
    return cross_entropy(xp, unit(xp, logits) / tau, targets, weight)


def least_logit_norm(classes: int, tau: float) -> float:
    """The lowest value that `logit_norm` can take (Wei et al., proposition 3): far from 0, nothing can be learnt.

    A vector of length 1 has its largest logit at most sqrt(c / (c - 1)) above the others, if these are equal.
    """
    return math.log1p((classes - 1) * math.exp(-math.sqrt(classes / (classes - 1)) / tau))


def feature_norm(
    xp: Any, features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, rows: Tensor, *, tau: float
) -> Tensor:
    r"""Regmi et al., T2FNorm, CVPR workshops 2024 (arXiv:2305.17797): the cross-entropy of W (f / (tau ||f||)) + b.

    features [n, d], weight [d, c], bias [c]; rows [n]: the weight of the rows.
    """
    return cross_entropy(xp, xp.matmul(unit(xp, features) / tau, weight) + bias, targets, rows)


def unit(xp: Any, x: Tensor) -> Tensor:  # [n, d] -> [n, d]
    """Divided by its length; where that is 0, 0."""
    return x / xp.sqrt(xp.sum(x**2, axis=-1, keepdims=True) + TINY)


def _relu(xp: Any, x: Tensor) -> Tensor:
    return xp.where(x > 0, x, xp.zeros_like(x))

"""The few formulas that detectors share, in the array API standard and nothing else."""

from __future__ import annotations

from array_api_compat import array_namespace

from ..arrays import Array, softmax

__all__ = ["logsumexp", "norm", "softmax"]


def logsumexp(x: Array) -> Array:  # [n, c] -> [n]
    xp = array_namespace(x)
    top = xp.max(x, axis=-1, keepdims=True)
    return xp.squeeze(top, axis=-1) + xp.log(xp.sum(xp.exp(x - top), axis=-1))


def norm(x: Array) -> Array:  # [n, d] -> [n]
    xp = array_namespace(x)
    return xp.sqrt(xp.sum(x * x, axis=-1))

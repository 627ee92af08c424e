"""Derivatives of a detector's score with respect to activations, by whoever can take them.

A detector's formula runs on the arrays of torch and JAX as it stands, so these differentiate it.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import Activations
from ..detectors import Detector
from ..detectors.base import to_namespace
from ..errors import MissingExtraError

Slopes = Callable[[Activations, np.ndarray, tuple[str, ...]], dict[str, np.ndarray]]


def slopes_of(detector: Detector) -> Slopes:
    """A function (activations, weight [n, m], paths) -> {path: [n, d] float32}: for each image the derivative of

        sum over members i of weight[i] member_scores[i]

    Paths on which nothing depends are left out. Raises MissingExtraError where neither torch nor JAX is installed.
    """
    for package, way in (("torch", _torch), ("jax", _jax)):  # torch first: it compiles nothing
        if importlib.util.find_spec(package) is not None:
            return way(detector)
    raise MissingExtraError(
        "To differentiate a detector torch or jax is needed; neither is installed. Install one (pip install torch), or "
        "attack without gradients: method='evolution'."
    )


def _torch(detector: Detector) -> Slopes:
    import array_api_compat.torch as xp
    import torch

    there = to_namespace(detector, xp, torch.float32)

    def slopes(activations: Activations, weight: np.ndarray, paths: tuple[str, ...]) -> dict[str, np.ndarray]:
        with torch.inference_mode(False), torch.enable_grad():
            tensors = {name: torch.from_numpy(np.array(x)) for name, x in activations.named().items()}
            wanted = {name: tensors[name].requires_grad_() for name in paths if name in tensors}
            member_scores = there.member_scores(Activations.of(tensors))
            if not member_scores.requires_grad:
                return {}
            total = (member_scores * torch.from_numpy(np.asarray(weight, np.float32))).sum()
            found = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
        return _finite({n: g.numpy() for n, g in zip(wanted, found, strict=True) if g is not None})

    return slopes


def _jax(detector: Detector) -> Slopes:
    import jax
    import jax.numpy as xp

    with warnings.catch_warnings():  # integers of 64 bits become those of 32
        warnings.simplefilter("ignore", UserWarning)
        there = to_namespace(detector, xp, xp.float32)

    def total(wanted: dict[str, Any], arrays: dict[str, Any], weight: Any) -> Any:
        return xp.sum(there.member_scores(Activations.of(arrays | wanted)) * weight)

    slope = jax.jit(jax.grad(total))

    def slopes(activations: Activations, weight: np.ndarray, paths: tuple[str, ...]) -> dict[str, np.ndarray]:
        arrays = {name: xp.asarray(x) for name, x in activations.named().items()}
        found = slope({n: arrays[n] for n in paths if n in arrays}, arrays, xp.asarray(weight, xp.float32))
        return {n: g for n, g in _finite({n: np.asarray(g) for n, g in found.items()}).items() if g.any()}

    return slopes


def _finite(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A derivative that is not finite (of a root at zero) points nowhere."""
    return {name: np.where(np.isfinite(g), g, 0).astype(np.float32) for name, g in found.items()}

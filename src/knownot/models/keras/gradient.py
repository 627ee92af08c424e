"""Gradients with respect to the images on each backend, and dropout at work; no layer, flag or seed is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ...errors import ModelError
from .backend import in_name_scope, rounded, to_numpy

Compute = Callable[[Any], dict[str, Any]]
Pull = Callable[[np.ndarray, list[np.ndarray]], np.ndarray]


def puller(compute: Compute, names: Sequence[str], variables: Callable[[], list[Any]]) -> Pull:
    """A function (x, one array like each of compute(x)[names]) -> the gradient of the sum of their products, like x."""
    backend = {"torch": _torch, "jax": _jax, "tensorflow": _tensorflow}[keras.backend.backend()]
    pull = backend(lambda x: [compute(x)[name] for name in names], variables)

    def checked(x: np.ndarray, pulls: list[np.ndarray]) -> np.ndarray:
        found = pull(x, pulls)
        if found is None:
            raise ModelError("No gradient of the classifier's output reaches its input: an operation cuts it off.")
        return np.asarray(to_numpy(found), dtype=np.float32)

    return checked


def _torch(heads: Callable[[Any], list[Any]], variables: Callable[[], list[Any]]) -> Callable[..., Any]:
    import torch

    def pull(x: np.ndarray, pulls: list[np.ndarray]) -> Any:
        with torch.inference_mode(False), torch.enable_grad():
            images = ops.convert_to_tensor(np.array(x)).detach().requires_grad_()
            found = heads(images)
            if not all(h.requires_grad for h in found):
                return None
            given = [ops.convert_to_tensor(np.array(v)).to(h) for v, h in zip(pulls, found, strict=True)]
            (gradient,) = torch.autograd.grad(found, [images], given, allow_unused=True)
        return gradient

    return pull


def _jax(heads: Callable[[Any], list[Any]], variables: Callable[[], list[Any]]) -> Callable[..., Any]:
    import jax

    def pure(values: list[Any], x: Any, pulls: list[Any]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables(), values, strict=True))):
            found, back = jax.vjp(heads, x)
            return back([v.astype(h.dtype) for v, h in zip(pulls, found, strict=True)])[0]

    jitted = jax.jit(pure)

    def pull(x: np.ndarray, pulls: list[np.ndarray]) -> Any:
        n = len(x)
        pad = [(0, rounded(n) - n)]  # as `backend.compiled`, so that few sizes are compiled

        def padded(a: np.ndarray) -> np.ndarray:
            return np.pad(np.asarray(a, np.float32), pad + [(0, 0)] * (a.ndim - 1))

        return jitted([v.value for v in variables()], padded(x), [padded(v) for v in pulls])[:n]

    return pull


def _tensorflow(heads: Callable[[Any], list[Any]], variables: Callable[[], list[Any]]) -> Callable[..., Any]:
    import tensorflow as tf

    @tf.function(autograph=False, reduce_retracing=True)
    def pull(x: Any, pulls: list[Any]) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            found = in_name_scope(heads)(x)
        given = [tf.cast(v, h.dtype) for v, h in zip(pulls, found, strict=True)]
        return tape.gradient(found, x, output_gradients=given)

    return lambda x, pulls: pull(tf.constant(x, tf.float32), [tf.constant(v, tf.float32) for v in pulls])


def drops(op: Any) -> bool:
    """Whether a layer is a dropout that can be put to work: of elements, or of whole channels."""
    return isinstance(op, keras.layers.Dropout) and 0 < op.rate < 1


def drop_units(seed: int) -> Callable[[Any, tuple[Any, ...]], Any]:
    """What `walk.run` puts in the place of layers: dropout by a mask that is the same for all images of a batch, so an
    image's scores depend neither on its batch nor on its place there."""
    rng = np.random.default_rng([seed, 5])

    def instead(op: Any, args: tuple[Any, ...]) -> Any:
        if not drops(op):
            return None
        x = args[0]
        keep = rng.random(_mask(op, tuple(x.shape))) >= op.rate
        return x * ops.cast(ops.convert_to_tensor((keep / (1 - op.rate)).astype(np.float32)), x.dtype)

    return instead


def _mask(op: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    if type(op).__name__.startswith("Spatial"):
        last = getattr(op, "data_format", "channels_last") != "channels_first"
        middle = (1,) * (len(shape) - 2)
        return (1, *middle, shape[-1]) if last else (1, shape[1], *middle)
    given = op.noise_shape or (None,) * len(shape)
    return (1, *(have if want is None else want for want, have in zip(given[1:], shape[1:], strict=True)))

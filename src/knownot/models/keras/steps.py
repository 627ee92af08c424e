"""Steps of a training that `fit` cannot take, of several losses with an optimiser each, compiled by every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

# (a function of nothing -> (loss [], whatever else it computed), variables) -> (loss, that, a gradient per variable)
Slopes = Callable[[Callable[[], tuple[Any, Any]], Sequence[Any]], tuple[Any, Any, list[Any]]]
Step = Callable[[Slopes, dict[str, Any]], Any]
AMPERE = (8, 0)  # the first compute capability of NVIDIA's with bfloat16


def stepper(step: Step, variables: Sequence[Any]) -> Callable[[Mapping[str, np.ndarray]], float]:
    """A function of arrays that does what `step` does with them as tensors, and gives the number that it gives.

    step: gets `slopes` and the tensors; what it assigns to `variables`, by itself or by optimisers, stays assigned.
    variables: all that it reads or changes.
    """
    backend = {"torch": _torch, "jax": _jax, "tensorflow": _tensorflow}[keras.backend.backend()]
    return backend(step, list(variables))


def _torch(step: Step, variables: list[Any]) -> Callable[[Mapping[str, np.ndarray]], float]:
    import torch

    def slopes(loss: Callable[[], tuple[Any, Any]], trained: Sequence[Any]) -> tuple[Any, Any, list[Any]]:
        with torch.enable_grad():
            value, more = loss()
            own = [v.value for v in trained]
            found = torch.autograd.grad(value, own, allow_unused=True)
        more = keras.tree.map_structure(lambda x: x.detach(), more)
        return value.detach(), more, [torch.zeros_like(w) if g is None else g for w, g in zip(own, found, strict=True)]

    def run(arrays: Mapping[str, np.ndarray]) -> float:
        with torch.no_grad():
            return float(step(slopes, {name: ops.convert_to_tensor(np.array(x)) for name, x in arrays.items()}))

    return run


def _jax(step: Step, variables: list[Any]) -> Callable[[Mapping[str, np.ndarray]], float]:
    import jax

    def slopes(loss: Callable[[], tuple[Any, Any]], trained: Sequence[Any]) -> tuple[Any, Any, list[Any]]:
        mine = {id(v) for v in trained}
        rest = [v for v in variables if id(v) not in mine]
        held = [v.value for v in rest]

        def pure(values: list[Any]) -> tuple[Any, Any]:
            mapping = [*zip(trained, values, strict=True), *zip(rest, held, strict=True)]
            with keras.StatelessScope(state_mapping=mapping) as scope:
                value, more = loss()
            return value, (more, [scope.get_current_value(v) for v in rest])

        (value, (more, after)), found = jax.value_and_grad(pure, has_aux=True)([v.value for v in trained])
        for variable, x in zip(rest, after, strict=True):
            variable.assign(x)
        return value, more, found

    def pure(state: list[Any], arrays: dict[str, Any]) -> tuple[Any, list[Any]]:
        with keras.StatelessScope(state_mapping=list(zip(variables, state, strict=True))) as scope:
            value = step(slopes, arrays)
        return value, [scope.get_current_value(v) for v in variables]

    jitted = jax.jit(pure)

    def run(arrays: Mapping[str, np.ndarray]) -> float:
        value, state = jitted([v.value for v in variables], {name: np.asarray(x) for name, x in arrays.items()})
        for variable, x in zip(variables, state, strict=True):
            variable.assign(x)
        return float(value)

    return run


def _tensorflow(step: Step, variables: list[Any]) -> Callable[[Mapping[str, np.ndarray]], float]:
    import tensorflow as tf

    def slopes(loss: Callable[[], tuple[Any, Any]], trained: Sequence[Any]) -> tuple[Any, Any, list[Any]]:
        own = [v.value for v in trained]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(own)
            value, more = loss()
        return value, more, tape.gradient(value, own, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    @tf.function(autograph=False)
    def compiled(arrays: dict[str, Any]) -> Any:
        return step(slopes, arrays)

    return lambda arrays: float(compiled({name: tf.constant(x) for name, x in arrays.items()}))


def made_for_bfloat16() -> bool | None:
    """Whether the device that Keras computes on is made for bfloat16: GPUs of 2020 and later, TPUs. None for a CPU."""
    return {"torch": _of_torch, "jax": _of_jax, "tensorflow": _of_tensorflow}[keras.backend.backend()]()


def _of_torch() -> bool | None:
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False)) if torch.cuda.is_available() else None


def _of_jax() -> bool | None:
    import jax

    device = jax.devices()[0]
    if device.platform == "cpu":
        return None
    number = str(getattr(device, "compute_capability", "0"))
    return device.platform == "tpu" or tuple(int(part) for part in number.split(".")) >= AMPERE


def _of_tensorflow() -> bool | None:
    import tensorflow as tf

    if tf.config.list_logical_devices("TPU"):
        return True
    cards = tf.config.list_physical_devices("GPU")
    if not cards:
        return None
    return tuple(tf.config.experimental.get_device_details(cards[0]).get("compute_capability", (0, 0))) >= AMPERE

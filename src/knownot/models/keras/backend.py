"""Choose a backend for Keras when nobody has, and compile a function for the one that runs."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import MissingExtraError, missing_extra

BACKENDS = {"torch": "torch", "jax": "jax", "tensorflow": "tensorflow"}  # Keras' name: the package


def choose_backend() -> str:
    """Set KERAS_BACKEND to an installed backend if neither the user nor their keras.json has; a note, or "".

    Keras takes TensorFlow unless told otherwise, and fails when it is absent. What is imported already comes first.
    """
    if importlib.util.find_spec("keras") is None:
        raise missing_extra("keras", "keras", "A Keras classifier")
    if "keras" in sys.modules:
        return ""
    if asked := os.environ.get("KERAS_BACKEND"):
        if asked in BACKENDS and not _installed(asked):
            others = [b for b in BACKENDS if _installed(b)]
            cure = f" or set KERAS_BACKEND={others[0]}, which is" if others else ""
            raise MissingExtraError(
                f"KERAS_BACKEND is {asked}, and the package {BACKENDS[asked]} is not installed: install it "
                f"(pip install {BACKENDS[asked]}){cure}."
            )
        return ""
    if _installed(_configured()):
        return ""
    found = [b for b in BACKENDS if BACKENDS[b] in sys.modules] + [b for b in BACKENDS if _installed(b)]
    if not found:
        raise MissingExtraError(
            "Keras needs one of the packages torch, jax and tensorflow to compute with; none is installed. "
            "Install one, for instance: pip install torch"
        )
    os.environ["KERAS_BACKEND"] = found[0]
    return f"Keras computes with {found[0]}: no KERAS_BACKEND was set, and this one is installed."


def _installed(backend: str | None) -> bool:
    return backend is not None and importlib.util.find_spec(BACKENDS.get(backend, "") or "knownot.none") is not None


def _configured() -> str | None:
    """The backend named in the user's keras.json."""
    path = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "keras.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("backend")
    except (OSError, ValueError, AttributeError):
        return None


Run = Callable[[Any], Any]


def abstractly(function: Run, shape: tuple[int, ...]) -> Any:
    """`function` of one float32 array of this shape, as its backend traces it: shapes, and where it can, no numbers."""
    import keras

    backend = keras.backend.backend()
    kept: list[Any] = []

    def keep(x: Any) -> Any:
        kept.append(function(x))
        return x

    if backend == "jax":
        import jax

        with keras.StatelessScope():
            jax.eval_shape(keep, jax.ShapeDtypeStruct(shape, "float32"))
    elif backend == "tensorflow":
        import tensorflow as tf

        tf.function(in_name_scope(keep), autograph=False).get_concrete_function(tf.TensorSpec(shape, "float32"))
    else:
        import numpy as np

        eager(keep)(np.random.default_rng(0).random(shape, dtype=np.float32))
    return kept[0]


def in_name_scope(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` under a name of TensorFlow's: inside one a layer's own name may begin with "_", which none may at the
    root."""
    import tensorflow as tf

    def under(*given: Any) -> Any:
        with tf.name_scope("knownot"):
            return function(*given)

    return under


def eager(function: Run) -> Run:
    """`function` on a NumPy array, computed at once and without gradients."""
    import keras

    def run(x: Any) -> Any:
        tensor = keras.ops.convert_to_tensor(x)
        if keras.backend.backend() == "torch":
            import torch

            with torch.no_grad():
                return function(tensor)
        return function(tensor)

    return run


def compiled(function: Run, variables: Callable[[], list[Any]]) -> Run:
    """`function` compiled once per shape; `variables` are read anew at each call."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(in_name_scope(function), autograph=False, reduce_retracing=True)
    if backend != "jax":
        return eager(function)
    import jax

    def pure(values: list[Any], x: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables(), values, strict=True))):
            return function(x)

    jitted = jax.jit(pure)

    def run(x: Any) -> Any:
        n = x.shape[0]
        padded = keras.ops.pad(x, [(0, rounded(n) - n)] + [(0, 0)] * (x.ndim - 1)) if rounded(n) > n else x
        found = jitted([v.value for v in variables()], padded)
        return jax.tree_util.tree_map(lambda a: a[:n], found)

    return run


def to_numpy(x: Any) -> Any:
    """The backend's array or variable as NumPy, on the host, detached."""
    import keras

    if keras.backend.backend() != "torch":
        return keras.ops.convert_to_numpy(x)
    # Not through Keras, whose np.array(tensor) makes NumPy 2 warn.
    tensor = keras.ops.convert_to_tensor(x).detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def rounded(n: int) -> int:
    """The batch size compiled for n images: at most an eighth more, so few sizes are, and always the same for one n."""
    step = max(1, 1 << max(0, n.bit_length() - 4))
    return -(-n // step) * step

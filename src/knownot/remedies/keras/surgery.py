"""Copies of Keras classifiers with another head, and both ends of it at hand while they are trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from ...errors import ModelError
from ...models import Model
from ...models.keras.walk import is_graph


def copied(
    opened: Model, weight: np.ndarray, bias: np.ndarray, *, training: int | None = None, half: bool = False
) -> tuple[keras.Model, keras.layers.Dense]:
    """(a copy of the user's model with this head, weight [m, d] and bias [m]; the head).

    training: for a copy to be trained, the seed of its random layers, which otherwise draw from the backend's own
    random numbers; its head gives logits, even if the user's has its softmax in it. half: layers of float32 compute in
    bfloat16, with weights of float32; the head and what scales images do not.
    Raises ModelError for a subclassed model, or a head that is no Dense layer.
    """
    model: keras.Model = opened._model  # type: ignore[attr-defined]
    head = opened._op  # type: ignore[attr-defined]
    if not isinstance(head, keras.layers.Dense):
        raise ModelError(
            f"The classifier's last linear layer is a {type(head).__name__}; only a Dense layer can be given other "
            "outputs."
        )
    made: dict[str, Any] = {}

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if training is not None and config.get("seed", 0) is None:
            config["seed"] = training
        if half and layer is not head and _may_be_half(layer):
            config["dtype"] = "mixed_bfloat16"
        if layer is head:
            config |= {"units": len(bias), "use_bias": True}
            config |= {} if training is None else {"activation": "linear"}
            made["head"] = keras.layers.Dense.from_config(config)
            return made["head"]
        return layer.__class__.from_config(config)

    try:
        copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
        if not copy.built:
            copy.build(model.input_shape)
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise ModelError(
            f"This {type(model).__name__} cannot be copied layer by layer ({text}). Give a Functional or Sequential "
            "model: of a subclassed one, keras.Model(x, model.call(x)) with x = keras.Input(…) often is one."
        ) from error
    new = made["head"]
    old = [w for w in model.weights if w is not head.kernel and w is not head.bias]
    mine = [w for w in copy.weights if w is not new.kernel and w is not new.bias]
    if [tuple(w.shape) for w in old] != [tuple(w.shape) for w in mine]:
        raise ModelError("The copy of the classifier has other weights than the classifier. Please report this.")
    for source, target in zip(old, mine, strict=True):
        target.assign(source)
    new.kernel.assign(np.ascontiguousarray(weight.T))
    new.bias.assign(bias)
    return copy, new


EXACT = (keras.layers.InputLayer, keras.layers.Rescaling, keras.layers.Normalization)  # eight bits spoil pixels


def _may_be_half(layer: Any) -> bool:
    """Policies are told by their name: any other than float32 is the user's own choice."""
    return not isinstance(layer, EXACT) and getattr(layer.dtype_policy, "name", "") == "float32"


def tap_layer(copy: keras.Model, head: keras.layers.Dense) -> keras.Model:
    """A flat model over the same layers that gives (features [n, d], logits [n, m]), whatever models are nested."""
    seen: list[tuple[Any, Any]] = []

    def see(op: Any, args: tuple[Any, ...], out: Any) -> None:
        if op is head:
            seen.append((args[0], out))

    shape = tuple(copy.input_shape[1:])
    if len(shape) == 3:
        image = x = keras.Input(shape)
    else:  # grey images without an axis of channels
        image = keras.Input((*shape, 1))
        x = keras.ops.squeeze(image, -1)
    _through(copy, (x,), {}, see)
    if not seen:
        raise ModelError(f"The layer {head.name!r} is not called along the graph of the classifier.")
    return keras.Model(image, seen[-1])


def _through(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], see: Callable[..., None]) -> Any:
    """Call `op`, the layers of nested models one by one. A nested model that was called with training=False, as is
    usual in transfer learning, stays so."""
    if not is_graph(op):
        if "training" in kwargs and not getattr(op, "_call_has_training_arg", False):
            kwargs = {name: x for name, x in kwargs.items() if name != "training"}
        out = op(*args, **kwargs)
        see(op, args, out)
        return out
    forced = {"training": kwargs["training"]} if kwargs.get("training") is not None else {}

    def inner(child: Any) -> Callable[..., Any]:
        return lambda *a, **k: _through(child, a, {**k, **forced}, see)

    if isinstance(op, keras.Sequential):
        (x,) = args
        for layer in op.layers:
            x = inner(layer)(x)
        return x
    given = keras.tree.pack_sequence_as(op._inputs_struct, [args[0]])  # old files have a list of inputs
    outputs = op._run_through_graph(op._standardize_inputs(given), operation_fn=inner)
    return outputs[0] if isinstance(outputs, list | tuple) and len(outputs) == 1 else outputs

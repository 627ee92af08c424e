"""Copies of Keras classifiers with another head, and both ends of it at hand while they are trained."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ..errors import ModelError
from ..models import Model


def copied(
    opened: Model, weight: np.ndarray, bias: np.ndarray, *, linear: bool
) -> tuple[keras.Model, keras.layers.Dense]:
    """(a copy of the user's model with this head, weight [m, d] and bias [m]; the head).

    linear: the head gives logits, even if the user's has its softmax in it.
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
        if layer is head:
            config |= {"units": len(bias), "use_bias": True, **({"activation": "linear"} if linear else {})}
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


def tapped(copy: keras.Model, head: keras.layers.Dense) -> keras.Model:
    """A model over the same layers that gives (features [n, d], logits [n, m]). Raises ModelError for a head inside a
    nested model."""
    try:
        return keras.Model(copy.inputs, [head.input, head.output])
    except (ValueError, AttributeError) as error:
        raise ModelError(
            f"The last linear layer {head.name!r} lies inside a nested model, so what it reads cannot be had in "
            "training. Give a model whose last layers are its own, or mode='head'."
        ) from error

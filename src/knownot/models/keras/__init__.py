"""The adapter for Keras 3: `keras.Model` objects, .keras files, and the .h5 files of tf.keras 2."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import ModelError
from ..base import Model
from .backend import choose_backend

__all__ = ["opened"]


def opened(
    thing: Any,
    *,
    head: str | None = None,
    stages: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    embedding: bool = False,
) -> Model:
    """See `models.open_model`. thing: a `keras.Model`, or the path of a .keras or .h5 file.
    embedding: the output as it is stands for the logits, whatever computes it.

    Raises ModelError when it is no softmax classifier of images or cannot be read, OptionError for a layer that
    does not exist, ActivationsError when its weights give NaN, MissingExtraError without Keras or a backend.
    """
    is_file = isinstance(thing, str | os.PathLike)
    if not is_file and any(base.__module__.startswith("tf_keras") for base in type(thing).__mro__):
        raise ModelError(
            "This is a model of tf_keras, the old Keras 2. Save it with model.save('model.h5') and give that file."
        )
    notes: tuple[str, ...] = ()
    if is_file:
        note = choose_backend()
        notes += (note,) if note else ()
    from .adapter import KerasModel  # only now: importing Keras fixes its backend

    if not is_file:
        import keras

        if not isinstance(thing, keras.Model):
            raise ModelError(
                f"A {type(thing).__name__} is no classifier. Give a keras.Model; a single layer can be wrapped in a "
                "keras.Sequential."
            )
        return KerasModel(thing, head=head, stages=stages, size=size, embedding=embedding)
    from .files import load

    path = Path(thing)
    model, more = load(path)
    return KerasModel(model, path=path, head=head, stages=stages, size=size, notes=notes + more, embedding=embedding)

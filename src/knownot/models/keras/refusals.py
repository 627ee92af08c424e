"""What is not opened of a Keras file, and why, in words that say what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras

from ...errors import ModelError

LAMBDA = (
    "{name} has a Lambda layer{which}: Python code stored in the file. knownot never runs code from a file. Open the "
    "model yourself (keras.saving.load_model(path, safe_mode=False), if you trust it) and give the object, or "
    "replace the Lambda by a Rescaling layer or a registered layer class and save again."
)


def checked(path: Path, model: Any) -> keras.Model:
    if not isinstance(model, keras.Model):
        raise ModelError(f"{path.name} holds a {type(model).__name__}, not a model.")
    return model


def translate_error(path: Path, error: BaseException) -> ModelError:
    """Keras' exception as a ModelError that says what to do."""
    text = str(error)
    if "lambda" in text.lower():
        return ModelError(LAMBDA.format(name=path.name, which=""))
    found = re.search(r"Unrecognized keyword arguments.*", text)
    lines = [found[0]] if found else [line.strip() for line in text.splitlines() if line.strip()]
    first = (lines or [repr(error)])[0]
    first = first if len(first) < 300 else first[:300] + " …"
    if re.search(r"[Cc]ould not locate|Unknown (layer|object)|is not registered", text):
        return ModelError(
            f"{path.name} uses a class that Keras does not know: {first} Import the module that defines and registers "
            "it (@keras.saving.register_keras_serializable()) first, or open the model yourself and give the object."
        )
    return ModelError(
        f"Keras {keras.__version__} cannot open {path.name}: {first} Open it where it was made and save it again with "
        "model.save('model.keras'), or give the model object."
    )

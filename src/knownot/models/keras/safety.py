"""What a Keras file may name: layers and functions of Keras that compute, and what the user has registered.

Keras' own safe mode refuses pickled lambdas. It does not stop a file from naming a layer that reads another file, a
function of Keras that fetches one, or a module that is imported for its class. Here each name is looked up before Keras
reads the description, and nothing is imported for it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import h5py
import keras
from keras.src import api_export

from ...errors import ModelError

MORE = {
    "TFSMLayer": "reads a SavedModel from a path and runs it",
    "TorchModuleWrapper": "unpickles a torch module, which runs code",
    "JaxLayer": "runs a function that is stored in it",
    "FlaxLayer": "runs a function that is stored in it",
}
READERS = ("StringLookup", "IntegerLookup", "TextVectorization", "IndexLookup")  # by path, or the words themselves
PATHS = ("vocabulary", "idf_weights", "filepath", "path", "file", "filename")
FUNCTIONS = (keras.activations, keras.initializers, keras.regularizers, keras.constraints)
KINDS = (
    keras.Layer, keras.Operation, keras.initializers.Initializer, keras.regularizers.Regularizer,
    keras.constraints.Constraint, keras.dtype_policies.DTypePolicy, keras.InputSpec, keras.quantizers.Quantizer,
)  # fmt: skip
OURS = {"Functional", "Model", "Sequential"}
CURE = "Open the model yourself, if you trust where it is from, and give the object."


def check_description(config: Any, name: str) -> None:
    """Raises ModelError for a class or function that does more than compute, or that nobody has registered here."""
    for part in _objects(config):
        kind, module = str(part["class_name"]), part.get("module")
        registered = str(part.get("registered_name") or kind)
        own = keras.saving.get_registered_object(registered) or keras.saving.get_registered_object(kind)
        if own is not None and (isinstance(own, type) or kind == "function"):
            continue  # the user's own code, which this process has run already
        if kind in MORE:
            raise ModelError(f"{name} has a {kind}, which {MORE[kind]}. Such a file is not opened. {CURE}")
        inner = part.get("config")
        options = inner if isinstance(inner, dict) else {}
        paths = [options[key] for key in PATHS if isinstance(options.get(key), str)]
        if kind in READERS and paths:
            raise ModelError(
                f"{name} has a {kind} that reads the file {paths[0]!r}. A model file names no other file. {CURE}"
            )
        if kind == "function":
            _check_function(str(inner), module, name)
        elif not (kind.startswith("__") and kind.endswith("__")):
            _check_class(kind, module, name)


def _objects(part: Any) -> Iterator[dict[str, Any]]:
    """Every description of an object in a configuration."""
    waiting = [part]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if "class_name" in one and "config" in one:
                yield one
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one


def _check_function(called: str, module: Any, name: str) -> None:
    known = any(callable(getattr(home, called, None)) for home in FUNCTIONS) and not called.startswith("_")
    if not known or not (module in (None, "builtins") or str(module).split(".")[0] == "keras"):
        raise ModelError(
            f"{name} names the function {called!r} of {module!r}, which is no activation, initializer, regularizer or "
            f"constraint of Keras. Import the module that registers it first, or open the model yourself. {CURE}"
        )


def _check_class(kind: str, module: Any, name: str) -> None:
    if kind in OURS and (module is None or str(module).split(".")[0] == "keras"):
        return
    if module is None:  # as Keras 2 wrote it
        homes: tuple[Any, ...] = (keras.layers, *FUNCTIONS, keras.dtype_policies, keras.quantizers)
        found = next((getattr(home, kind) for home in homes if hasattr(home, kind)), None)
    else:
        found = api_export.get_symbol_from_name(f"{module}.{kind}")
        found = found or getattr(sys.modules.get(str(module)), kind, None)  # never imported for this
    if not (isinstance(found, type) and issubclass(found, KINDS)):
        raise ModelError(
            f"{name} uses a class that Keras does not know: {kind!r} of {module!r}. Import the module that defines and "
            "registers it (@keras.saving.register_keras_serializable()) first, or open the model yourself and give the "
            "object."
        )


def check_links(file: h5py.Group, name: str) -> None:
    """Raises ModelError for an HDF5 file that takes something from another file: an external link, external storage or
    a virtual dataset; or for a damaged one."""
    try:
        _check_links(file, name)
    except ModelError:
        raise
    except Exception as error:  # h5py raises nearly anything
        raise ModelError(f"{name} is a damaged or truncated HDF5 file: {error}. Copy or save it again.") from error


def _check_links(file: h5py.Group, name: str) -> None:
    waiting, seen = [file], set()
    while waiting:
        group = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            continue
        seen.add(address)
        for key in group:
            link = group.get(key, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise ModelError(_elsewhere(name, key, link.filename))
            if isinstance(link, h5py.SoftLink):
                continue  # of this file; what it points to is met by its own name
            thing = group[key]
            if isinstance(thing, h5py.Group):
                waiting.append(thing)
            elif isinstance(thing, h5py.Dataset):
                sources = [source[0] for source in thing.external or ()]
                sources += [source.file_name for source in thing.virtual_sources()] if thing.is_virtual else []
                if sources:
                    raise ModelError(_elsewhere(name, key, str(sources[0])))


def _elsewhere(name: str, key: str, other: str) -> str:
    return (
        f"{name} takes {key!r} from another file, {other!r}. A model file names no other file, and such a one is not "
        "opened. Save the model again with model.save('model.keras')."
    )

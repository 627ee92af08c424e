"""Open the .h5 files of tf.keras 2, those included that Keras 3 refuses because of arguments it no longer has.

The model's JSON is mended on a copy in memory; the weights are then loaded by topology, in the order of the layers.
"""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
from keras.src.legacy.saving import legacy_h5_format  # the public load_model takes no file that was mended in memory

from ...errors import ModelError
from .refusals import LAMBDA, checked, translate_error
from .safety import check_description, check_links
from .tf_ops import translate_op

Json = dict[str, Any]

# Arguments that layers of Keras 2 wrote and Keras 3 no longer takes, with the values that changed nothing.
OBSOLETE: dict[str, tuple[Any, ...]] = {
    "batch_input_shape": (),  # handled: becomes an InputLayer
    "groups": (1,),  # DepthwiseConv2D
    "time_major": (False,),  # recurrent layers
    "ragged": (False, True),
    "fused": (None, True, False),  # BatchNormalization: how, not what
    "renorm": (False,),
    "renorm_clipping": (None, {}),
    "renorm_momentum": (0.99,),
    "virtual_batch_size": (None,),
    "adjustment": (None,),
    "implementation": (0, 1, 2),
    "input_dtype": (None, "float32"),
    "dynamic": (False,),
    "experimental_autocast": (True,),
    "layout_map": (None,),
}
RENAMED = {
    "Model": "Functional",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
}


def load(path: Path) -> tuple[keras.Model, tuple[str, ...]]:
    """The model in an HDF5 file and notes on what was mended. The file is not written to."""
    image = path.read_bytes()
    try:
        file = h5py.File(io.BytesIO(image), "r+")
    except (OSError, KeyError) as error:
        raise ModelError(f"{path.name} is a damaged or truncated HDF5 file: {error}. Copy or save it again.") from error
    with file:
        check_links(file, path.name)
        config, notes = _mend_config(path, file)
        check_description(config, path.name)
        try:
            file.attrs["model_config"] = json.dumps(config).encode()
            scope = {} if _version(file) >= 3 else {"hard_sigmoid": _hard_sigmoid_2}
            model = legacy_h5_format.load_model_from_hdf5(file, custom_objects=scope, compile=False)
        except ModelError:
            raise
        except Exception as error:
            raise translate_error(path, error) from error
    return checked(path, model), notes


def _version(file: h5py.File) -> int:
    version = file.attrs.get("keras_version", "2")
    text = version.decode() if isinstance(version, bytes) else str(version)
    return int(text[0]) if text[:1].isdigit() else 2


def _hard_sigmoid_2(x: Any) -> Any:
    """Keras 2's hard sigmoid; that of Keras 3 has another slope, and would silently give other numbers."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


def _mend_config(path: Path, file: h5py.File) -> tuple[Json, tuple[str, ...]]:
    raw = file.attrs.get("model_config")
    if raw is None:
        raise ModelError(
            f"{path.name} holds weights only (model.save_weights), not the model. Build the model, call "
            f"model.load_weights({path.name!r}), and give the object; or save the whole with model.save('model.keras')."
        )
    if "model_weights" not in file:
        raise ModelError(f"{path.name} has a model without weights, so nothing that was trained. Save it again.")
    try:
        config = json.loads(raw)
        found = list(_layers(config))
    except (ValueError, TypeError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise ModelError(f"The model's description in {path.name} cannot be read: {error!r}. Save it again.") from error
    names = [layer["config"].get("name", "") for layer in found if layer["class_name"] == "Lambda"]
    if names or _has_code(config):
        raise ModelError(LAMBDA.format(name=path.name, which=f" ({', '.join(map(repr, names))})" if names else ""))
    dropped: set[str] = set()
    try:
        config = _mend(config, dropped)
    except (KeyError, IndexError, TypeError) as error:
        raise ModelError(f"The model's description in {path.name} is not as Keras writes it: {error!r}.") from error
    if not dropped:
        return config, ()
    return config, (f"Opened a file of Keras 2, leaving out what Keras 3 no longer has: {', '.join(sorted(dropped))}.",)


def _has_code(part: Any) -> bool:
    """Whether there is a Lambda or a serialised function anywhere, as an activation for instance."""
    if isinstance(part, dict):
        return part.get("class_name") in ("Lambda", "__lambda__") or any(map(_has_code, part.values()))
    return isinstance(part, list) and any(map(_has_code, part))


def _children(layer: Json) -> list[Json]:
    config = layer.get("config", {})
    inner = config if isinstance(config, list) else config.get("layers", [])
    wrapped = [] if isinstance(config, list) else [config.get(key) for key in ("layer", "forward_layer")]
    return [*inner, *(w for w in wrapped if isinstance(w, dict) and "class_name" in w)]


def _layers(layer: Json) -> Iterator[Json]:
    """This layer and all inside it. A config that is a list (a Sequential of Keras 1) becomes a dict."""
    if isinstance(layer["config"], list):
        layer["config"] = {"name": "sequential", "layers": layer["config"]}
    yield layer
    for child in _children(layer):
        yield from _layers(child)


def _mend(layer: Json, dropped: set[str]) -> Json:
    config: Json = layer["config"]
    written: str = layer["class_name"]
    kind = RENAMED.get(written, written)
    layer["class_name"] = kind
    if kind in ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"):
        dropped.add(f"{kind} {config.get('function', config.get('name'))} (put as a layer)")
        return translate_op(layer)
    for key in ("layer", "forward_layer", "backward_layer"):
        if isinstance(config.get(key), dict) and "class_name" in config[key]:
            config[key] = _mend(config[key], dropped)
    if isinstance(config.get("dtype"), dict) and "module" not in config["dtype"]:
        config["dtype"] = config["dtype"].get("config", {}).get("name", "float32")
    if "layers" in config:
        if kind == "Sequential":
            config["layers"] = _with_input(config)
        config["layers"] = [_mend(child, dropped) for child in config["layers"]]
        for child in config["layers"]:
            _single(child["config"])
        if kind != "Sequential":
            _renumber(config)
        return layer
    if kind != "InputLayer":
        _drop(config, kind, dropped)
    else:
        config.pop("ragged", None)
    return layer


def _single(config: Json) -> None:
    """One input and one output of a nested model as such, not as lists of one: Keras 3 hands lists on as lists, which
    the next layer does not take (Teachable Machine's files)."""
    for key in ("input_layers", "output_layers"):
        ends = config.get(key)
        if isinstance(ends, list) and len(ends) == 1 and isinstance(ends[0], list):
            config[key] = ends[0]


def _with_input(config: Json) -> list[Json]:
    """The layers of a Sequential, its input shape on an InputLayer and not on its first layer."""
    layers: list[Json] = config["layers"]
    shape = None
    for layer in layers:
        if layer["class_name"] != "InputLayer" and "layers" not in layer["config"]:
            found = layer["config"].pop("batch_input_shape", None)
            shape = found if layer is layers[0] else shape
    if shape is None:
        return layers
    return [{"class_name": "InputLayer", "config": {"batch_shape": shape, "name": f"{config['name']}_input"}}, *layers]


def _renumber(config: Json) -> None:
    """Count the calls of nested models from 0, as Keras 3 does: in Keras 2 call 0 was the model's own building.

    Keras 3 takes one off by itself for a Functional model among the outputs, and only there.
    """
    nested = {layer["name"]: layer["class_name"] for layer in config["layers"] if "layers" in layer["config"]}
    nodes = [node for layer in config["layers"] for node in layer.get("inbound_nodes", []) if isinstance(node, list)]
    if not nodes:
        return  # written by Keras 3, whose nodes are dicts
    refs = [ref for node in nodes for ref in _references(node) if ref[0] in nested]
    outputs = [ref for ref in _references(config.get("output_layers", [])) if ref[0] in nested]
    for name, kind in nested.items():
        mine, ends = [r for r in refs if r[0] == name], [r for r in outputs if r[0] == name]
        first = min((r[1] for r in mine + ends), default=0)
        for ref in mine:
            ref[1] -= first
        for ref in ends:
            ref[1] -= first - (kind == "Functional")


def _references(node: Any) -> Iterator[list[Any]]:
    """Every [layer, call, output, …] in the inbound nodes of Keras 2."""
    if isinstance(node, list) and len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int):
        yield node
        node = node[3:]
    if isinstance(node, list | dict):
        for part in node.values() if isinstance(node, dict) else node:
            yield from _references(part)


def _drop(config: Json, kind: str, dropped: set[str]) -> None:
    """Take out arguments that the layer's class no longer has, where their value changed nothing."""
    if config.pop("batch_input_shape", None) is not None:
        dropped.add("batch_input_shape")
    made = getattr(keras.layers, kind, None)
    if made is None:
        return
    taken = set(inspect.signature(made.__init__).parameters)
    open_ended = "kwargs" in taken
    base = {"name", "trainable", "dtype", "activity_regularizer", "autocast", "input_shape", "input_dim"}
    for key in [k for k in config if k not in taken and not (open_ended and k in base)]:
        value = config[key]
        if kind in ("LeakyReLU",) and key == "alpha":
            continue
        if key not in OBSOLETE and value not in (None, False):
            continue  # Keras will say what it thinks of it
        if key in OBSOLETE and value not in OBSOLETE[key]:
            raise ModelError(
                f"Layer {config.get('name')!r} ({kind}) has {key}={value!r}, which Keras 3 can no longer compute. "
                "Convert the model where it was made: to ONNX, for instance (tf2onnx)."
            )
        del config[key]
        dropped.add(key)

"""TensorFlow operations in a Keras 2 file (`x / 127.5`, `tf.nn.relu(x)`), put as layers of Keras 3."""

from __future__ import annotations

from typing import Any

from ...errors import ModelError

Json = dict[str, Any]
ACTIVATIONS = {
    "nn.relu": "relu",
    "nn.relu6": "relu6",
    "nn.softmax": "softmax",
    "nn.sigmoid": "sigmoid",
    "math.sigmoid": "sigmoid",
    "nn.silu": "silu",
    "nn.swish": "silu",
    "nn.elu": "elu",
    "nn.gelu": "gelu",
    "math.tanh": "tanh",
    "nn.tanh": "tanh",
    "cast": "linear",
    "identity": "linear",
}
SUMS = {"__operators__.add": "Add", "math.add": "Add", "math.subtract": "Subtract", "math.multiply": "Multiply"}


def translate_op(layer: Json) -> Json:
    """A layer that computes the same. Raises ModelError for the operations that have none."""
    config = layer["config"]
    function = str(config.get("function", "")).removeprefix("tf.")
    nodes = layer.get("inbound_nodes", [])
    if layer["class_name"] == "TFOpLambda" and len(nodes) == 1:
        made = _translate(function, nodes[0])
        if made is not None:
            kind, arguments, inputs = made
            arguments["name"] = config["name"].replace("/", "_")
            return {"class_name": kind, "config": arguments, "name": layer["name"], "inbound_nodes": [inputs]}
    raise ModelError(
        f"The file has the TensorFlow operation {function or config.get('name')!r} (layer {config.get('name')!r}), "
        "which Keras 3 cannot open and knownot cannot put as a layer. Convert the model where it was made, say to "
        "ONNX (python -m tf2onnx.convert), and give that file."
    )


def _translate(function: str, node: list[Any]) -> tuple[str, Json, list[Any]] | None:
    """(class, arguments, inbound node) for one call [[layer, call, output, keywords]]."""
    call = node if node and isinstance(node[0], str) else node[0]
    if function == "concat":
        calls = [call] if node is call else node
        axis = calls[0][3].get("axis", calls[-1][3].get("axis", -1))
        return "Concatenate", {"axis": axis}, [[*c[:3], {}] for c in calls]
    x, keywords = call[:3], call[3] if len(call) > 3 else {}
    y, alone = keywords.get("y"), [[*x, {}]]
    number = float(y) if isinstance(y, int | float) else None
    if function in ACTIVATIONS:
        axis = keywords.get("axis")
        if (function == "nn.softmax" and axis not in (None, -1)) or keywords.get("dtype") not in (None, "float32"):
            return None
        return "Activation", {"activation": ACTIVATIONS[function]}, alone
    if function in ("math.truediv", "math.divide", "__operators__.truediv") and number:
        return "Rescaling", {"scale": 1 / number, "offset": 0.0}, alone
    if function in SUMS and number is not None:
        scale = number if function == "math.multiply" else 1.0
        offset = {"Add": number, "Subtract": -number}.get(SUMS[function], 0.0)
        return "Rescaling", {"scale": scale, "offset": offset}, alone
    if function in SUMS and isinstance(y, list) and y and isinstance(y[0], str):
        return SUMS[function], {}, [[*x, {}], [*y[:3], {}]]
    if function in ("math.reduce_mean", "reduce_mean") and keywords.get("axis") in ([1, 2], [-3, -2]):
        return "GlobalAveragePooling2D", {"keepdims": bool(keywords.get("keepdims"))}, alone
    if function == "image.resize" and isinstance(size := keywords.get("size"), list) and len(size) == 2:
        method = keywords.get("method", "bilinear")
        if method not in ("bilinear", "nearest") or keywords.get("antialias"):
            return None
        return "Resizing", {"height": size[0], "width": size[1], "interpolation": method}, alone
    return None

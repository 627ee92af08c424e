"""What goes into a classifier of torch: channels, height, width, batch size, and what it says of preprocessing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isqrt
from typing import Any

import torch
from torch import nn

from ...arguments import preprocess_fields
from ...arrays import InputSpec, Preprocess
from ...errors import ModelError
from .network import Network

SIZES = (224, 32, 28, 64, 96, 128, 160, 192, 240, 256, 299, 384)


def input_of(network: Network, size: tuple[int, int] | None) -> tuple[InputSpec, tuple[int, int]]:
    """The input, and the (height, width) to look at the classifier with where any size goes.

    size: as the user says it. Raises ModelError when no size that was tried runs.
    """
    if network.kind == "program":
        return _exported(network, size)
    channels = _channels(network)
    size = size or _declared(network.thing)
    if size is not None:
        for k in channels:
            if _error(network, k, *size) is None:
                return InputSpec(*size, k, "NCHW"), size
        raise _error(network, channels[0], *size)  # type: ignore[misc]
    first: tuple[int, int, int] | None = None
    failed: ModelError | None = None
    for k, h, w in _candidates(network, channels):
        if first and first[0] != k:
            continue
        error = _error(network, k, h, w)
        if error is None and first:
            return InputSpec(None, None, first[0], "NCHW"), first[1:]
        if error is None:
            first = (k, h, w)
        failed = failed or error
    if first is None:
        tried = ", ".join(str(s) for s in SIZES)
        raise ModelError(
            f"The classifier runs with none of the usual input sizes ({tried}; channels {channels}). Say its own with "
            f"size=(height, width). The first error was: {failed}"
        ) from failed
    return InputSpec(*first[1:], first[0], "NCHW"), first[1:]


def preprocess_of(thing: Any) -> Preprocess | None:
    """What a timm model says in its configuration; None where the model is silent."""
    cfg = _timm(thing)
    if not {"mean", "std", "input_size"} <= set(cfg):
        return None
    return Preprocess(**{**(preprocess_fields(cfg) or {}), "name": "the model's own configuration"})


def class_names_of(thing: Any, classes: int) -> tuple[str, ...] | None:
    """Of a Hugging Face configuration, unless they are its placeholders LABEL_0, LABEL_1 …"""
    table = getattr(getattr(thing, "config", None), "id2label", None)
    if not isinstance(table, Mapping) or len(table) != classes:
        return None
    names = [str(table.get(i, table.get(str(i), ""))) for i in range(classes)]
    placeholders = all(name == f"LABEL_{i}" for i, name in enumerate(names))
    return None if placeholders or not all(names) else tuple(names)


def _timm(thing: Any) -> dict[str, Any]:
    for attribute in ("pretrained_cfg", "default_cfg"):
        cfg: Any = getattr(thing, attribute, None)
        cfg = cfg.to_dict() if hasattr(cfg, "to_dict") else cfg
        if isinstance(cfg, Mapping) and len(cfg.get("input_size") or ()) == 3:
            return dict(cfg)
    return {}


def _declared(thing: Any) -> tuple[int, int] | None:
    said = getattr(getattr(thing, "config", None), "image_size", None)
    if isinstance(said, int):
        return said, said
    if isinstance(said, list | tuple) and len(said) == 2:
        return int(said[0]), int(said[1])
    cfg = _timm(thing)
    return (int(cfg["input_size"][1]), int(cfg["input_size"][2])) if cfg else None


def _channels(network: Network) -> list[int]:
    """How many channels the input can have: of the first convolution, if there is one."""
    said = getattr(getattr(network.thing, "config", None), "num_channels", None)
    if isinstance(said, int):
        return [said]
    for module in network.module.modules():
        if isinstance(module, nn.Conv2d) and not isinstance(module, nn.LazyConv2d):
            return [module.in_channels]
    first = next((p for p in network.module.parameters() if p.ndim == 4), None)
    return [int(first.shape[1])] if first is not None else [3, 1, 4]


def _candidates(network: Network, channels: list[int]) -> Iterator[tuple[int, int, int]]:
    """(channels, height, width); square images that a first linear layer would read come first."""
    first = next((p for p in network.module.parameters() if p.ndim >= 2), None)
    if first is not None and first.ndim == 2:
        for k in channels:
            side = isqrt(int(first.shape[1]) // k)
            if side and k * side * side == first.shape[1]:
                yield k, side, side
    for side in SIZES:
        for k in channels:
            yield k, side, side


def _error(network: Network, k: int, h: int, w: int) -> ModelError | None:
    """What the classifier says to two grey images of this size; None when it runs."""
    try:
        network(torch.full((2, k, h, w), 0.5, dtype=network.dtype, device=network.device))
    except ModelError as error:
        return error
    return None


def _exported(network: Network, size: tuple[int, int] | None) -> tuple[InputSpec, tuple[int, int]]:
    program = network.thing
    name = program.graph_signature.user_inputs[0]
    shape = next(node.meta["val"].shape for node in program.graph.nodes if node.name == name)
    if len(shape) != 4:
        raise ModelError(f"The exported program reads {len(shape)} axes, not images [n, k, h, w]: {tuple(shape)}.")
    n, k, h, w = (s if isinstance(s, int) else None for s in shape)
    layout = "NCHW"
    if k not in (None, 1, 3, 4) and w in (1, 3, 4):
        h, w, k, layout = k, h, w, "NHWC"
    if size is not None and any(have not in (None, want) for have, want in zip((h, w), size, strict=True)):
        raise ModelError(f"The exported program reads images of {h} x {w} pixels, not size={size}.")
    h, w = size or (h, w)
    look = size
    if look is None:
        example = program.example_inputs
        values = [*example[0], *example[1].values()] if example else []
        seen = tuple(values[0].shape) if values else (1, 3, 224, 224)
        look = (seen[2], seen[3]) if layout == "NCHW" else (seen[1], seen[2])
    return InputSpec(height=h, width=w, channels=k, layout=layout, batch=n), (h or look[0], w or look[1])

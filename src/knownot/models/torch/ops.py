"""The operations of torch by what they mean to a reader of classifiers.

Names are those of ATen without namespace, overload and the underscore of in-place variants: `aten::relu_` is "relu".
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ACTIVATION = words(
    "relu relu6 gelu silu hardswish hardtanh leaky_relu elu selu celu mish softplus prelu tanh sigmoid hardsigmoid "
    "clamp clamp_min clamp_max threshold log_sigmoid glu rrelu softsign"
)
LINEAR = frozenset({"linear", "addmm", "mm", "matmul"})
PRODUCT = words(
    "matmul bmm baddbmm einsum scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu "
    "_scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention "
    "_scaled_dot_product_attention_math"
)
BLOCK = frozenset({"_transformer_encoder_layer_fwd"})  # a whole transformer block in one operation
AVERAGE = frozenset({"mean", "avg_pool2d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d"})
POOL = AVERAGE | {"max_pool2d", "max_pool2d_with_indices", "adaptive_max_pool2d", "amax", "sum"}
SOFTMAX = frozenset({"softmax", "_softmax", "log_softmax", "_log_softmax"})
DROPOUT = frozenset({"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout"})
ARITHMETIC = frozenset({"add", "sub", "mul", "div", "cat"})
# The same numbers in another shape, type or place: nothing is computed.
FREE = DROPOUT | words(
    "view reshape _unsafe_view _reshape_alias flatten unflatten squeeze unsqueeze contiguous clone detach alias to "
    "_to_copy _to_dense to_dense float type_as lift_fresh expand view_as reshape_as view_copy identity"
)
SYNONYMS = {"concat": "cat", "concatenate": "cat", "true_divide": "div", "divide": "div", "multiply": "mul"}


def is_conv(name: str) -> bool:
    return "conv" in name and "backward" not in name


def is_norm(name: str) -> bool:
    return any(kind in name for kind in ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"))


@cache
def name_of(func: Any) -> str:
    """ "relu" for `aten::relu_.default`."""
    name = func._schema.name.rpartition("::")[2]
    name = name[:-1] if name.endswith("_") and not name.endswith("__") else name
    return SYNONYMS.get(name, name)


@cache
def makes_stages(name: str) -> bool:
    """Whether its output counts as what the network computes at a resolution: not pooling, padding or slicing."""
    return is_conv(name) or is_norm(name) or name in ACTIVATION | BLOCK | {"linear", "addmm", "add", "mul", "cat"}


@cache
def is_step(name: str) -> bool:
    """Whether it is one of the computing steps by whose order a forward pass is recognised.

    Views, padding and bookkeeping are none: their number may depend on the size of the batch.
    """
    return makes_stages(name) or name in LINEAR | PRODUCT | POOL | SOFTMAX | ARITHMETIC


@cache
def _parameters(func: Any) -> tuple[str, ...]:
    return tuple(a.name for a in func._schema.arguments)


def bound(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by their names in the schema; those left to their defaults are absent."""
    return dict(zip(_parameters(func), args, strict=False)) | kwargs


def tensors_in(values: Any) -> list[torch.Tensor]:
    """The tensors among values and in lists and tuples of them."""
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_in(value)
    return found

"""What the axes of a tensor mean, followed from operation to operation.

A layout is one letter per axis: N images, C channels, H W pixels, T tokens. "" where it is not known.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from . import ops

if TYPE_CHECKING:
    from .trace import Node

PERMUTING = frozenset({"permute", "transpose", "movedim", "swapaxes", "t", "numpy_T"})
RESHAPING = ops.words("view reshape _unsafe_view _reshape_alias flatten unflatten view_copy reshape_as view_as expand")


def layout_after(node: Node) -> str:
    """Layout of `node.out`, from those of its parents."""
    if not node.depends or node.out is None:
        return ""
    name, ndim = node.name, node.out.ndim
    before = next((p for p in node.sources if p.layout and len(p.layout) == ndim), None)
    layout = before.layout if before else ""
    if ops.is_conv(name):
        return {4: "NCHW", 3: "NCT"}.get(ndim, "")
    if ops.is_norm(name) and "layer_norm" not in name and "rms_norm" not in name:
        return {4: "NCHW", 3: "NCT"}.get(ndim, "")
    if name in ops.LINEAR and len(node.sources) == 1:  # on the last axis; a mixer's works on tokens
        return layout or {4: "NHWC", 3: "NTC"}.get(ndim, "")
    if name in ops.PRODUCT:  # attention: its axes are heads and tokens, and what is made of it is no map either
        return ""
    if name in PERMUTING:
        return _permute(node, layout)
    if name in RESHAPING:
        return _reshape(node)
    return layout


def _permute(node: Node, layout: str) -> str:
    """Found by what the operation did to the strides' owner: its arguments say it."""
    if not layout:
        return ""
    letters = list(layout)
    if node.name == "permute":
        return "".join(letters[d] for d in node.given["dims"])
    if node.name in ("transpose", "swapaxes"):
        a, b = (node.given[k] for k in (("dim0", "dim1") if node.name == "transpose" else ("axis0", "axis1")))
        if isinstance(a, int) and isinstance(b, int):
            letters[a], letters[b] = letters[b], letters[a]
            return "".join(letters)
    return ""


def _reshape(node: Node) -> str:
    """Pixels to tokens and back; any other change of shape loses the meaning."""
    source = node.sources[0]
    old, new = source.layout, node.shape
    if not old:
        return ""
    sizes = dict(zip(old, source.shape, strict=True))
    if new == source.shape:
        return old
    tokens = sizes.get("T", sizes.get("H", 0) * sizes.get("W", 0))
    if len(new) == 3 and len(old) == 4:
        if old == "NCHW" and new == (sizes["N"], sizes["C"], tokens):
            return "NCT"
        if old == "NHWC" and new == (sizes["N"], tokens, sizes["C"]):
            return "NTC"
    if len(new) == 4 and len(old) == 3:
        if old == "NCT" and new[:2] == (sizes["N"], sizes["C"]) and prod(new[2:]) == tokens:
            return "NCHW"
        if old == "NTC" and new[0] == sizes["N"] and new[3] == sizes["C"] and prod(new[1:3]) == tokens:
            return "NHWC"
    return ""

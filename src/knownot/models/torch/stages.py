"""The stages in a recorded pass, and their pooling."""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt

import torch

from ..stages import AXES, Candidate, choose_stages
from . import ops
from .trace import Node, Recorder


def find_stages(recorder: Recorder, n: int) -> list[Node]:
    """The steps whose outputs are the stages (`models.stages`), in the order of computation."""
    nodes = [node for node in recorder.steps if _is_candidate(node, n)]
    chosen = choose_stages([Candidate(node.layout, node.shape, _closes_block(node)) for node in nodes])
    return [nodes[i] for i in chosen]


def _is_candidate(node: Node, n: int) -> bool:
    return (
        ops.makes_stages(node.name)
        and node.depends
        and node.layout in AXES
        and node.out is not None
        and node.out.is_floating_point()
        and node.shape[0] == n
    )


def _closes_block(node: Node) -> bool:
    """A sum of two things computed from the images, over tokens; or a whole block in one operation."""
    if node.layout != "NTC":
        return False
    return node.name in ops.BLOCK or (node.name == "add" and len({id(p) for p in node.sources}) > 1)


def pooling(layout: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from maps to their per-channel mean and standard deviation over space, [n, 2k] float32.

    The same as `models.base.pooled`, in torch. Lengths, whose slope at 0 counts as 0, of one axis after the other:
    short sums keep the digits of float32, and `var_mean` takes four times as long on a processor.
    """
    axes = AXES[layout]

    def pool(maps: torch.Tensor) -> torch.Tensor:
        dense = (maps.to_dense() if maps.layout != torch.strided else maps).float()
        mean = dense.mean(dim=axes, keepdim=True)
        length = dense - mean
        for axis in reversed(axes):
            length = torch.linalg.vector_norm(length, dim=axis)
        std = length / sqrt(prod(dense.shape[axis] for axis in axes))
        return torch.cat([mean.flatten(1), std], dim=1)

    return pool


def channels_first(layout: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from maps to a copy of them, float32 [n, k, h, w]; of tokens [n, k, t, 1]."""

    def turn(maps: torch.Tensor) -> torch.Tensor:
        dense = maps.to_dense() if maps.layout != torch.strided else maps
        dense = dense.unsqueeze(2) if layout == "NTC" else dense
        dense = dense if layout == "NCHW" else dense.permute(0, 3, 1, 2)
        return dense.to(torch.float32, copy=True)  # a copy: the next layer may work in place

    return turn


def describe(node: Node, before: list[Node]) -> str:
    """The layer a stage was read from, for people: "layer1.2.bn2 > relu" where it has no weights of its own."""
    if node.layer:
        return node.layer
    near = next((p.layer for p in reversed(before) if p.layer), "")
    return f"{near} > {node.name}" if near else node.name

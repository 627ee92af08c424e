"""The logits or probabilities among whatever a classifier returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...errors import ModelError
from .trace import Recorder

Path = tuple[int | str, ...]  # how to get from the output to the tensor


def path_to_scores(output: Any, n: int, recorder: Recorder) -> Path:
    """Where the scores [n, c] are: `.logits`, ["logits"], or the first 2-D float tensor.

    Of several, one that goes into the computation of another is none: features given beside logits.
    Raises ModelError when there is none, or when it has one column.
    """
    named = _entry(output, "logits")
    if isinstance(named, torch.Tensor):
        candidates: list[tuple[Path, torch.Tensor]] = [(("logits",), named)]
    else:
        candidates = list(_tensors(output, ()))
    fitting = [(path, t) for path, t in candidates if _is_scores(t, n)]
    if not fitting:
        raise ModelError(_complaint(candidates, output, n))
    used = set()
    for _, tensor in fitting:
        node = recorder.node_of(tensor)
        used |= node.ancestors() if node else set()
    return next((path for path, t in fitting if recorder.node_of(t) not in used), fitting[0][0])


def follow(output: Any, path: Path) -> torch.Tensor:
    """The tensor at `path`. Raises ModelError when the output has another form now."""
    for part in path:
        output = _entry(output, part)
    if not isinstance(output, torch.Tensor):
        raise ModelError(f"The classifier's output has another form than when it was opened: nothing at {path}.")
    return output


def _entry(output: Any, part: int | str) -> Any:
    if isinstance(output, Mapping):
        return output.get(part)
    if isinstance(part, int):
        return output[part] if isinstance(output, list | tuple) and part < len(output) else None
    return getattr(output, part, None)


def _tensors(output: Any, path: Path) -> Any:
    if isinstance(output, torch.Tensor):
        yield path, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _tensors(value, (*path, key))
    elif isinstance(output, list | tuple):
        for index, value in enumerate(output):
            yield from _tensors(value, (*path, index))


def _is_scores(tensor: torch.Tensor, n: int) -> bool:
    shape = tuple(tensor.shape)
    flat = len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))
    return tensor.is_floating_point() and flat and shape[0] == n and shape[1] > 1


def _complaint(candidates: list[tuple[Path, torch.Tensor]], output: Any, n: int) -> str:
    shapes = ", ".join(f"{tuple(t.shape)} {t.dtype}".replace("torch.", "") for _, t in candidates[:5])
    given = f"tensors of shape {shapes}" if candidates else f"a {type(output).__name__} without tensors"
    text = (
        f"A classifier returns [n, c] floats, c > 1 scores for each of n images; for {n} images this one gave {given}."
    )
    if any(t.numel() == n for _, t in candidates):
        text += (
            " One score per image is a sigmoid or regression output. knownot needs one per class: for a yes/no "
            "classifier replace the last layer by nn.Linear(d, 2) whose weight rows are [0, w] and biases [0, b]."
        )
    elif any(t.ndim == 4 for _, t in candidates):
        text += " A map of scores (segmentation, detection) is no answer about an image; pool it, or give a classifier."
    elif any(t.ndim == 2 for _, t in candidates):
        text += " The first axis has to be the images'."
    return text

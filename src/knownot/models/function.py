"""Any Python function images -> probabilities as a classifier: what it shows is its output, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Activations, Capabilities, InputSpec
from ..errors import ModelError, OptionError, unknown_name
from .base import Model, probe

SMALLEST = float(np.finfo(np.float32).tiny)  # of the normal numbers; log of it is about -87.3
SUM_TOLERANCE = 1e-3


class FunctionModel(Model):
    """A function of a batch, float32 in the layout asked for, that returns [n, c] probabilities (or logits).

    From probabilities p the logits are log p, which the softmax turns back into p, but which are the classifier's own
    only up to a constant per image; so they are offered as "probabilities", not as "logits". p = 0 counts as the
    smallest normal float32.

    The fingerprint is of the function's qualified name and of its outputs on a fixed probe, rounded to 3 decimals:
    code and weights behind a function cannot be hashed. Two functions of one name that differ by less than that on the
    probe have the same one; and it may differ between machines when an output lies on the edge of rounding.
    """

    framework = "function"
    head = None

    def __init__(
        self, function: Callable[[np.ndarray], Any], spec: InputSpec, classes: int | None, outputs: str
    ) -> None:
        self._function, self._outputs = function, outputs
        self.input, self.stage_layers = spec, {}
        self.name = getattr(function, "__qualname__", type(function).__qualname__)
        kinds = frozenset({"probabilities"} if outputs == "probabilities" else {"probabilities", "logits"})
        self.capabilities = Capabilities(kinds, classes or 0)
        batch = probe(spec)
        first = self.forward(batch).logits
        if classes is None:
            self.capabilities = Capabilities(kinds, first.shape[1])
        if first.shape[1] < 2:
            raise ModelError(
                f"The function {self.name!r} gives one number per image; knownot needs at least two classes. "
                "For a yes-no classifier return [1 - p, p]."
            )
        self._check_steady(first, self.forward(batch[::-1]).logits[::-1])
        rounded = np.round(first.astype(np.float64), 3) + 0.0  # no negative zero
        self._fingerprint = hashlib.sha256(f"{self.name};{outputs};{rounded.tolist()}".encode()).hexdigest()

    def forward(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        try:
            given = np.asarray(self._function(batch.copy()))  # a copy: it may work in place
        except Exception as error:  # whatever the user's code raises
            raise ModelError(
                f"The function {self.name!r} failed on a float32 {self.input.layout} batch of shape {batch.shape}, or "
                f"returned no array: {type(error).__name__}: {error}. The options size=(height, width), channels= and "
                "layout= say what it is given. Let it return a NumPy array [n, c] (torch: x.detach().cpu().numpy())."
            ) from error
        self._check_outputs(given, len(batch))
        if self._outputs != "probabilities":
            return Activations(np.ascontiguousarray(given, dtype=np.float32))
        return Activations(np.log(np.maximum(given.astype(np.float64), SMALLEST)).astype(np.float32))

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def save(self, folder: Path) -> str:
        raise ModelError(
            f"The function {self.name!r} cannot be saved to a file. Save without it, "
            "osc.save(folder, include_model=False), and give it when loading: knownot.load(folder, model=function)."
        )

    def _check_outputs(self, given: np.ndarray, n: int) -> None:
        c = self.capabilities.classes
        if given.dtype.kind not in "fiub" or given.ndim != 2 or len(given) != n or (c and given.shape[1] != c):
            raise ModelError(
                f"The function {self.name!r} returned {given.dtype} of shape {given.shape} for {n} images; expected "
                f"numbers of shape ({n}, {c or 'classes'})."
            )
        if self._outputs != "probabilities":
            if self._outputs == "logits" and not c and _probable(given):
                raise ModelError(
                    f"outputs='logits', but what the function {self.name!r} returns looks like probabilities: no "
                    "negative number, and rows that sum to 1. Leave outputs= out."
                )
            return
        if not np.isfinite(given).all():
            row = int(np.argmin(np.isfinite(given).all(axis=1)))
            raise ModelError(f"The function {self.name!r} returned NaN or infinity for image {row} of the batch.")
        if not _probable(given):
            sums = given.sum(axis=1)
            raise ModelError(
                f"The function {self.name!r} should return probabilities, but its outputs lie between "
                f"{given.min():.4g} and {given.max():.4g} and rows sum to {sums.min():.4g} to {sums.max():.4g}, not 1. "
                "These look like logits or sigmoid outputs. If they are the scores before a softmax, say so: "
                "outputs='logits'; if classes do not exclude each other, this is no classifier that knownot can read."
            )

    def _check_steady(self, first: np.ndarray, again: np.ndarray) -> None:
        a, b = (np.exp(x.astype(np.float64)) if self._outputs == "probabilities" else x for x in (first, again))
        if np.isfinite(a).all() and not np.allclose(a, b, rtol=1e-3, atol=1e-3):
            raise ModelError(
                f"The function {self.name!r} gives the same image other outputs the second time, in another order "
                f"of the batch (by up to {float(np.abs(a - b).max()):.3g}). Is the network in "
                "training mode, or its input shuffled?"
            )


def _probable(given: np.ndarray) -> bool:
    rows = given.astype(np.float64)
    return bool((rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) <= SUM_TOLERANCE).all())


def opened(
    thing: Any,
    *,
    head: str | None = None,
    stages: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    classes: int | None = None,
    channels: int = 3,
    layout: str = "NHWC",
    outputs: str = "probabilities",
    embedding: bool = False,
    **options: Any,
) -> FunctionModel:
    """Open a function that takes a batch, float32, and returns [n, c] probabilities (or, outputs="logits", logits).

    size: (height, width) of the images it is given; without it they keep their own, and it is tried out on 224 x 224.
    channels, layout: of its input. classes: c, else found by trying it out.
    embedding: what it returns, [n, d], is an embedding and may be any finite numbers.

    Raises ModelError when what it returns on a random probe is not that; OptionError for options that do not apply.
    """
    for name in options:
        raise unknown_name("option of functions", name, ("size", "classes", "channels", "layout", "outputs"))
    if head is not None or stages:
        raise OptionError(
            "A function shows no layers, so head= and stages= do not apply. Open the model itself for those."
        )
    if layout not in ("NHWC", "NCHW"):
        raise OptionError(f"layout={layout!r}: expected 'NHWC' or 'NCHW'.")
    if outputs not in ("probabilities", "logits"):
        raise OptionError(f"outputs={outputs!r}: expected 'probabilities' or 'logits'.")
    outputs = "embedding" if embedding else outputs
    height, width = size or (None, None)
    return FunctionModel(thing, InputSpec(height, width, channels, layout), classes, outputs)

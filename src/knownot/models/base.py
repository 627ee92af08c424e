"""What every framework's adapter gives: a `Model`, opened for reading and never changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Activations, Array, Capabilities, Head, InputSpec, Preprocess, softmax
from ..errors import ModelError, UnsoundError, unknown_name
from ..renamed import OldAttribute

CURES = {  # what works, for what not every classifier shows
    "gradient": "Gradients are available for PyTorch classifiers (nn.Module, TorchScript, torch.export) and Keras "
    "ones, not for ONNX files and functions. Give the network that was exported, or choose a detector without them.",
    "dropout": "It is there in PyTorch and Keras classifiers that have dropout layers; exports leave "
    "them out: give the network that was trained, or choose another detector.",
    "onnx": "it is Python code, or kept in a form that no exporter reads. Give the network itself, or export it to "
    "ONNX with the tool of its framework, and fit on that file.",
    "none": "It is there in classifiers whose last outputs are classes of nothing, opened with none_classes=; "
    "knownot.remedies makes such ones.",
}


Call = Callable[[Any, Array], Mapping[str, Array]]  # see `Model.record`


class Model(ABC):
    """A classifier opened for reading. Its weights, mode, hooks and attributes stay as they were.

    framework: "onnx", "torch", "keras" or "function".
    head: the last linear layer, None when the classifier shows none.
    class_names: [c] names, when the file or object knows them.
    preprocess: what the classifier itself says of its preprocessing, None where it is silent.
    stage_layers: {stage name: the framework's name of the layer or operation it was read from}; all stages,
        the last included; `capabilities.stages` holds the earlier ones only, which detectors read.
    gradients: the paths of activations that `gradient` takes ("logits", "features", "stages/<name>").
    stretches: whether the loaders that usually feed it stretch photographs, as Keras' do, instead of cutting them.
    trainable: whether its weights are at hand, so that a remedy can train a copy of it.
    notes: what was found at opening, one sentence each, for people.
    opened_with: the options that `open_model` was given.
    """

    framework: str
    input: InputSpec
    capabilities: Capabilities
    head: Head | None
    class_names: tuple[str, ...] | None = None
    preprocess: Preprocess | None = None
    stage_layers: Mapping[str, str]
    gradients: tuple[str, ...] = ()
    stretches: bool = False
    trainable: bool = False
    notes: tuple[str, ...] = ()
    opened_with: Mapping[str, Any] = {}

    def activations(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        """What the classifier computes for its own input `batch`, [n, h, w, k] or [n, k, h, w] float32.

        The layout is told by the shape. Everything returned is float32 NumPy. One forward pass, with maps or without.
        maps: those of `capabilities.maps` that are wanted too, [n, k, h, w] whatever the framework's layout; tokens are
        [n, k, t, 1].
        Raises InputError for another shape, OptionError for an unknown map, ActivationsError for NaN or infinity.
        """
        batch = np.asarray(batch, dtype=np.float32)
        own = self.input.to_layout(batch)
        return (self.forward(own, self.known_maps(maps)) if maps else self.forward(own)).check()

    def known_maps(self, maps: Sequence[str]) -> tuple[str, ...]:
        """Each once, in the order of computation. Raises OptionError for one that is not offered."""
        for name in maps:
            if name not in self.capabilities.maps:
                raise unknown_name("map of this classifier", name, self.capabilities.maps)
        return tuple(name for name in self.capabilities.maps if name in maps)

    @abstractmethod
    def forward(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        """`activations` of a batch that is already in the classifier's layout, unchecked."""

    def submit(self, batch: np.ndarray) -> Callable[[], Activations]:
        """`forward` in two steps: the network is asked now, and what else is made of its answer is made when the
        result is called, which may be in another thread, while the network is asked for the next batch."""
        seen = self.forward(batch)
        return lambda: seen

    def gradient(self, batch: np.ndarray, toward: Mapping[str, np.ndarray]) -> np.ndarray:
        """The gradient with respect to `batch`, in the classifier's layout: for each image d/dx of

            sum over paths p of <toward[p], activations(x)[p]>

        toward: {"logits": [n, c], "features": [n, d], "stages/<name>": [n, 2k]}, any of `gradients`: the derivatives of
        whatever is to be changed with respect to these, so that its formula stays with whoever asks. A pass there and a
        pass back. Where the slope is infinite (the standard deviation of a constant map) it counts as zero.
        Raises UnsoundError where `capabilities` has no "gradient", OptionError for a path without one.
        """
        raise self._lacks("gradient")

    def known_gradients(self, toward: Mapping[str, np.ndarray]) -> None:
        """Raise UnsoundError or OptionError, see `gradient`, unless there is one of each path."""
        if not self.gradients:
            raise self._lacks("gradient")
        for path in toward:
            if path not in self.gradients:
                raise unknown_name("gradient of this classifier with respect to", path, self.gradients)

    def dropped(self, batch: np.ndarray, seed: int) -> np.ndarray:
        """Logits [n, c] of `batch`, in the classifier's layout, with the network's dropout layers at work.

        seed chooses what is dropped: the same for all images, whatever batch they come in. One pass.
        Raises UnsoundError where `capabilities` has no "dropout".
        """
        raise self._lacks("dropout")

    def confirm(self, batch: np.ndarray) -> None:  # noqa: B027 (nothing to do, unless an adapter has)
        """Raise ModelError if for real images `batch`, its own input, the logits are not what its own output says. What
        was checked at opening was checked on random images."""

    offers = OldAttribute("capabilities")

    def shows_or_raise(self, kind: str) -> None:
        if kind not in self.capabilities.outputs:
            raise self._lacks(kind)

    def _lacks(self, kind: str) -> UnsoundError:
        return UnsoundError(f"This {self.framework} classifier shows no {kind}. {CURES[kind]}")

    def as_onnx(self, folder: Path, size: tuple[int, int] | None = None) -> Model:
        """The same classifier with every network in it written as ONNX, into `folder`, and opened from there.

        size: (height, width) of its images, where it leaves that open.
        Raises ModelError when that cannot be had, with the cure.
        """
        raise ModelError(f"A {self.framework} classifier cannot be written as ONNX: {CURES['onnx']}")

    def record(self, x: Array, call: Call, maps: Sequence[str] = ()) -> Activations:
        """`forward` on an array that records a graph (`knownot.export`), of a model that `as_onnx` gave.

        call(graph, x): the outputs of an ONNX graph of one input, by name, recorded. Sizes but the first are known.
        """
        raise ModelError(f"The graph of a {self.framework} classifier is that of its `as_onnx`.")

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the weights that is the same after saving and opening again."""

    @abstractmethod
    def save(self, folder: Path) -> str:
        """Write the classifier into `folder` as a file that `open_model` opens; the file's name.

        Raises ModelError when the classifier cannot be written (a Python function).
        """


def verify_head(head: Head, batch: Activations, *, tolerance: float = 1e-3) -> None:
    """Raise ModelError, saying how far off it is, unless head(features) gives the classifier's own logits.

    tolerance: of the largest absolute difference, relative to the largest absolute logit (or 1).
    """
    again = np.asarray(head(batch.features), dtype=np.float64)
    logits = np.asarray(batch.logits, dtype=np.float64)
    if again.shape != logits.shape:
        raise ModelError(f"The head found gives outputs of shape {again.shape}, the classifier {logits.shape}.")
    worst = float(np.abs(again - logits).max())
    scale = max(1.0, float(np.abs(logits).max()))
    if not worst <= tolerance * scale:
        raise ModelError(
            f"The head found does not reproduce the classifier's logits: they differ by up to {worst:.3g} "
            f"(largest logit {scale:.3g}). Something is computed between this layer and the output. "
            "Name the layer with head='<layer name>'."
        )


def verify_output(logits: np.ndarray, own: np.ndarray, *, tolerance: float = 5e-3) -> None:
    """Raise ModelError unless the classifier's own output [n, c] is these logits, their softmax or its logarithm.

    Percentages, negative logarithms and a softmax of a softmax are none of these: the class and the confidence that are
    read off them would be others than the classifier's.
    """
    z, own = np.asarray(logits, np.float64), np.asarray(own, np.float64).reshape(len(own), -1)
    if own.shape != z.shape or not (np.isfinite(z).all() and np.isfinite(own).all()):
        return
    p = np.asarray(softmax(z))
    scale = max(1.0, float(np.abs(z).max()))
    sums = own.sum(axis=1)
    percent = bool((own >= 0).all() and own.max() > 1 and np.ptp(sums) <= 1e-3 * sums.mean() and own.shape[1] > 1)
    inverse = bool((own >= 0).all() and np.abs(np.exp(-own).sum(axis=1) - 1).max() < 1e-3)
    if np.abs(own - z).max() <= tolerance * scale and not (percent or inverse):
        return
    if np.abs(own - p).max() <= tolerance or np.abs(np.exp(np.minimum(own, 1.0)) - p).max() <= tolerance:
        return
    what = "rows that sum to one number, as percentages do" if percent else "negative logarithms" if inverse else ""
    what = what or "neither the logits of its last layer, nor their softmax (is a second softmax applied to the first?)"
    raise ModelError(
        f"The classifier's output is {what}, so what it says cannot be told from its logits. Give the classifier with "
        "its softmax or its logits as the output, without what comes after; or a function images -> probabilities."
    )


def probe(spec: InputSpec, n: int = 2, seed: int = 0) -> np.ndarray:
    """A fixed random batch in the classifier's layout and size, for looking at it once. float32 in [0, 1]."""
    h, w, k = spec.height or 224, spec.width or 224, spec.channels or 3
    shape = (n, h, w, k) if spec.layout == "NHWC" else (n, k, h, w)
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def pooled(maps: np.ndarray, layout: str) -> np.ndarray:
    """Per-channel mean and standard deviation over space, side by side, [n, 2k] float32.

    layout: "NCHW", "NHWC", or "NTC" for tokens [n, t, k].
    """
    axes = {"NCHW": (2, 3), "NHWC": (1, 2), "NTC": (1,)}[layout]
    return np.concatenate([maps.mean(axis=axes), maps.std(axis=axes)], axis=1).astype(np.float32, copy=False)

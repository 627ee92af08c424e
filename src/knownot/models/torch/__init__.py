"""PyTorch: nn.Module, TorchScript and torch.export classifiers, opened for reading.

One batch is traced at opening to find head and stages; after that each forward pass keeps these and nothing else,
and is compared, step by step, with the one that was traced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...arrays import Activations, Capabilities, Head, Preprocess
from ...errors import ActivationsError, ModelError
from ..base import Model, verify_head, verify_output
from . import files, inputs, outputs, saving
from .gradient import Differentiated, Dropping, drops, offered
from .head import Found, find
from .named import named_stages, watching
from .network import Network
from .stages import channels_first, describe, find_stages, pooling
from .trace import Node, Reader, Recorder, Take

__all__ = ["TorchModel", "opened"]

LOOK = 3  # images in the traced batch: a prime, so that no other axis is taken for it


def opened(
    thing: Any,
    *,
    head: str | None = None,
    stages: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    unsafe_pickle: bool = False,
    embedding: bool = False,
) -> TorchModel:
    """Open a torch nn.Module, a TorchScript module or file, or a torch.export program or file.

    unsafe_pickle: open a pickled nn.Module too, although that runs whatever code the file holds, and files with
        operators that are not on the list (`operators.py`).
    embedding: the output as it is stands for the logits, whatever computes it.
    Raises ModelError, with the reason and the cure, when it cannot be read or is no classifier.
    """
    file: Path | None = None
    said: Mapping[str, Any] = {}
    note = ""
    if isinstance(thing, str | os.PathLike):
        file = Path(thing)
        thing, said, note = files.read(file, unsafe_pickle=unsafe_pickle)
        if not isinstance(thing, torch.jit.ScriptModule | torch.export.ExportedProgram):
            file = None  # a pickle is never handed on
    network = Network(thing)
    model = TorchModel(
        network,
        head=head or said.get("head"),
        stages=tuple(stages) if stages is not None else said.get("stages"),
        size=size or said.get("size"),
        said=said,
        file=file,
        embedding=embedding,
    )
    if note:
        model.notes = (*model.notes, note)
    return model


class TorchModel(Model):
    """See `models.base.Model`."""

    framework = "torch"

    def __init__(
        self,
        network: Network,
        *,
        head: str | None,
        stages: tuple[str, ...] | None,
        size: tuple[int, int] | None,
        said: Mapping[str, Any],
        file: Path | None,
        embedding: bool = False,
    ) -> None:
        self.network, self.file, self.embedding = network, file, embedding
        self.trainable = network.kind != "script"  # TorchScript is computed as it was compiled
        self.options: dict[str, Any] = {"head": head, "stages": stages, "size": size}
        with network.untouched():
            self.input, self.look = inputs.input_of(network, size)
            self._trace(head, stages)
        self.used = self.look  # the size of the last batch
        self.class_names = said.get("class_names") or inputs.class_names_of(network.thing, self.capabilities.classes)
        self.preprocess: Preprocess | None = said.get("preprocess") or inputs.preprocess_of(network.thing)
        self._check()

    def _trace(self, head: str | None, stages: tuple[str, ...] | None) -> None:
        """Run one batch and note at which steps head and stages are."""
        n = self.input.batch or LOOK
        x = torch.from_numpy(self._sample(n)).to(self.network.device, self.network.dtype)
        self._layers = self.network.layers()
        recorder = Recorder(x, self.input.layout, self._layers)
        with watching(self.network, recorder, stages or ()) as watched, recorder:
            output = self.network(x)
        self.path = outputs.path_to_scores(output, n, recorder)
        scores = outputs.follow(output, self.path)
        found = Found(None, [], []) if self.embedding else find(recorder, scores, n, head)
        self.head: Head | None = found.head
        self.probabilities = found.probabilities
        self.expected = [(node.name, node.layer) for node in recorder.steps]
        takes = list(found.takes)
        nodes: dict[str, Node]
        if stages is None:
            nodes = {f"stage{i}": node for i, node in enumerate(find_stages(recorder, n), 1)}
        else:
            nodes = named_stages(self.network, recorder, stages, watched)
        for name, node in nodes.items():
            takes.append((node.step or 0, Take(f"stages/{name}", "", pooling(node.layout))))
        self.takes: dict[int, list[Take]] = {}
        for step, take in takes:
            self.takes.setdefault(step, []).append(take)
        self.map_takes = {
            name: (node.step or 0, Take(f"maps/{name}", "", channels_first(node.layout)))
            for name, node in nodes.items()
        }
        self.stage_layers = {
            name: name if stages is not None else describe(node, recorder.steps[: node.step])
            for name, node in nodes.items()
        }
        keys = {take.key for _, take in takes}
        early = tuple(nodes) if stages is not None else tuple(nodes)[:-1]
        kinds = {"probabilities"} | {
            kind
            for kind, there in {
                "logits": found.exact,
                "features": "features" in keys,
                "head": found.head is not None,
                "stages": bool(early),
                "maps": bool(nodes),
                "dropout": any(drops(node.name, node.given) for node in recorder.nodes if node.depends),
            }.items()
            if there
        }
        self.capabilities = Capabilities(frozenset(kinds), scores.numel() // n, early, tuple(nodes))
        where = "; ".join(f"{name}: {node.shape[1:]} {self.stage_layers[name]}" for name, node in nodes.items())
        self.notes = (*found.notes, f"Stages: {where}." if where else "No stages were found.")

    def _sample(self, n: int) -> np.ndarray:
        h, w, k = *self.look, self.input.channels or 3
        shape = (n, h, w, k) if self.input.layout == "NHWC" else (n, k, h, w)
        return np.random.default_rng(0).random(shape, dtype=np.float32)

    def _check(self) -> None:
        """That two passes agree, and that the head gives the logits."""
        x = self._sample(self.input.batch or LOOK)
        with self.network.untouched():
            before = self.network.random_state()
            first, again = self._run(x), self._run(x)
            draws = not all(map(torch.equal, before, self.network.random_state()))
        self.network.draws = draws
        first.check()
        scale = max(1.0, float(np.abs(first.logits).max()))
        if not np.abs(first.logits - again.logits).max() <= self.tolerance * scale:
            raise ModelError(
                "The classifier gives different answers to the same images: something in it is random although it "
                "is in evaluation mode (dropout or noise that does not look at self.training)."
            )
        self._check_head(first)
        if not self.embedding and self.options["head"] is None:
            verify_output(first.logits, self._scores(x), tolerance=max(5e-3, self.tolerance))
        try:
            head, stages = self.options["head"], self.options["stages"]
            self.differentiated = Differentiated(
                network=self.network,
                path=self.path,
                head=head,
                stages=stages,
                sample=x,
                layout=self.input.layout,
                embedding=self.embedding,
            )
            self.gradients, why = offered(self.differentiated, x, first, self.tolerance)
        except Exception as error:  # whatever torch raises where it has no gradient
            why = f"No gradients: {' '.join(str(error).split())[:200]}"
        if why:
            self.notes = (*self.notes, why)
        if self.gradients:
            self.capabilities = replace(self.capabilities, outputs=self.capabilities.outputs | {"gradient"})

    @property
    def tolerance(self) -> float:
        """Of the head against the logits: rounding of the classifier's own type."""
        return max(1e-3, 8 * torch.finfo(self.network.dtype).eps)

    def _check_head(self, batch: Activations) -> None:
        finite = batch.features is not None and np.isfinite(batch.logits).all() and np.isfinite(batch.features).all()
        if self.head is not None and finite:
            verify_head(self.head, batch, tolerance=self.tolerance)

    def forward(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        n, fixed = len(batch), self.input.batch
        if n == 0:
            raise ActivationsError("A batch without images was given; one or more are expected.")
        self.used = self._size_of(batch)
        parts = []
        with self.network.untouched():
            for start in range(0, n, fixed or n):
                part = batch[start : start + (fixed or n)]
                short = (fixed or n) - len(part) if fixed else 0
                if short:
                    part = np.concatenate([part, np.repeat(part[-1:], short, axis=0)])
                parts.append(self._run(part, maps))
        named = [part.named() for part in parts]
        whole = Activations.of({key: np.concatenate([p[key] for p in named])[:n] for key in named[0]})
        self._check_head(whole)  # weights changed since the opening would make a head that is none
        return whole

    def gradient(self, batch: np.ndarray, toward: Mapping[str, np.ndarray]) -> np.ndarray:
        self.known_gradients(toward)
        return self._in_parts(
            lambda part, rows: self.differentiated(part, {k: v[rows] for k, v in toward.items()})[0], batch
        )

    def dropped(self, batch: np.ndarray, seed: int) -> np.ndarray:
        self.shows_or_raise("dropout")

        def run(part: np.ndarray, rows: np.ndarray) -> np.ndarray:
            with self.network.untouched(), Dropping(seed):
                return self._run(part).logits

        return self._in_parts(run, batch)

    def _in_parts(self, run: Callable[[np.ndarray, np.ndarray], np.ndarray], batch: np.ndarray) -> np.ndarray:
        """run(some images, which rows they are), in batches of the fixed size if there is one."""
        n, fixed = len(batch), self.input.batch
        size = fixed or n
        chosen = [np.minimum(np.arange(start, start + size), n - 1) for start in range(0, n, size)]
        return np.concatenate([run(batch[rows], rows) for rows in chosen])[:n]

    def _scores(self, batch: np.ndarray) -> np.ndarray:
        """The classifier's own output of `batch`, [n, c]."""
        with self.network.untouched(), torch.no_grad():
            x = torch.from_numpy(batch.copy()).to(self.network.device, self.network.dtype)
            return _float32(outputs.follow(self.network(x), self.path)).reshape(len(batch), -1)

    def _size_of(self, batch: np.ndarray) -> tuple[int, int]:
        h, w = batch.shape[2:4] if self.input.layout == "NCHW" else batch.shape[1:3]
        return int(h), int(w)

    def _run(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        takes = dict(self.takes)
        for step, take in (self.map_takes[name] for name in maps):
            takes[step] = [*takes[step], take]  # beside the stage's
        try:
            output, found = self._read(batch, takes)
        except ModelError:  # weights may lie elsewhere by now: on another device, say
            self._layers = self.network.layers()
            output, found = self._read(batch, takes)
        kept = {key: _float32(tensor) for key, tensor in found.items()}
        if "logits" not in kept:
            scores = _float32(outputs.follow(output, self.path)).reshape(len(batch), -1)
            kept["logits"] = np.log(np.maximum(scores, np.finfo(np.float32).tiny)) if self.probabilities else scores
        for name, values in kept.items():
            if values.shape[0] != len(batch):
                raise ModelError(f"The classifier gave {values.shape[0]} rows of {name} for {len(batch)} images.")
        return Activations.of({key: kept[key] for key in sorted(kept)})

    def _read(self, batch: np.ndarray, takes: Mapping[int, Sequence[Take]]) -> tuple[Any, dict[str, torch.Tensor]]:
        """(its output, what was kept of the steps) of one pass."""
        own = np.array(batch, dtype=np.float32, order="C")  # a copy: the classifier may change it in place
        x = torch.from_numpy(own).to(self.network.device, self.network.dtype)
        with Reader(self.expected, takes, self._layers) as reader:
            output = self.network(x)
        return output, reader.finish()

    def as_onnx(self, folder: Path, size: tuple[int, int] | None = None) -> Model:
        from ..onnx import opened as opened_onnx
        from . import onnx

        size = size or self.used
        return opened_onnx(onnx.write(self, folder, size), size=size, embedding=self.embedding)

    @property
    def fingerprint(self) -> str:
        return self.network.fingerprint()

    def save(self, folder: Path) -> str:
        name, note = saving.save(self, Path(folder), opened)
        if note:
            self.notes = (*self.notes, note)
        return name


def _float32(tensor: torch.Tensor) -> np.ndarray:
    return np.array(tensor.detach().to("cpu", torch.float32).numpy(), copy=True)

"""A Keras classifier as a `Model`: logits, features and stages from one forward pass over its own layers."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from ...arrays import Activations, Capabilities
from ...errors import ActivationsError, InputError, KnownotError, ModelError, unknown_name
from ..base import Model, probe, verify_head, verify_output
from .backend import abstractly, compiled, eager, to_numpy
from .describe import class_names_of, input_of, own_preprocess, saveable
from .gradient import Pull, drop_units, drops, puller
from .head import MANY, SIGMOID, Tail, find_tail, head_of, is_linear, read_features, read_logits, single
from .stages import Stage, channels_first, find_stages, layout_of_call, pool
from .walk import Call, Instead, run

TINY = float(np.finfo(np.float32).tiny)
# What rounding in half precision leaves of a logit, and of a small probability; (tolerance, smallest probability).
ROUNDING = {"float16": (1e-2, 1e-3), "bfloat16": (5e-2, 1e-2)}


class KerasModel(Model):
    """See `models.base.Model`. The user's model is run as it is; nothing is added to it."""

    framework = "keras"
    trainable = True

    def __init__(
        self,
        model: keras.Model,
        *,
        path: Path | None = None,
        head: str | None = None,
        stages: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        notes: tuple[str, ...] = (),
        embedding: bool = False,
    ) -> None:
        self._model, self._path, self._embedding = model, path, embedding
        self.input, self._rank = input_of(model, size)
        shown = probe(self.input)
        calls, output = self._traced(shown.shape)
        self._classes = int(output.shape[-1])
        if embedding:
            self._tail = Tail(None, False, False, None)
        else:
            self._tail = self._named_head(calls, output, head) if head else find_tail(calls, output)
        if self._classes < 2:
            raise ModelError(
                "The classifier has one output. knownot needs the scores of at least two classes, [n, c]: "
                "a regression, or a yes-or-no of one number, is no such classifier."
            )
        self._stages = (
            self._named_stages(calls, stages or ())
            if stages or embedding
            else find_stages(calls[: self._tail.call], self.input.layout)
        )
        self._paths = [call.path for call in calls]
        self.stage_layers = {f"stage{i}": self._paths[s.call] for i, s in enumerate(self._stages, 1)}
        self._op: Any = None if self._tail.call is None else calls[self._tail.call].op
        self._reads_features = self._tail.call is not None and _features_are_flat(calls[self._tail.call])
        self._reads_head = self._reads_features and (self._tail.clean or head is not None or self._tail.softmax is None)
        if getattr(self._op, "quantization_mode", None):
            self._reads_head = False
            notes += ("The last layer is quantised, so it is no exact linear layer; its weights are not read.",)
        self.preprocess, self.stretches = own_preprocess(calls, self.input), True
        self.class_names, more = class_names_of(model, path, self._classes)
        self.notes = notes + more
        self._make: Callable[[Any], Any] = lambda function: compiled(function, lambda: model.variables)
        self._run = self._make(self._compute)
        self._with_maps: tuple[tuple[str, ...], Callable[[Any], Any]] = ((), self._run)
        self._pulls: dict[tuple[str, ...], Pull] = {}
        self._drops = any(drops(call.op) for call in calls)
        self._quantised = any(getattr(call.op, "quantization_mode", None) for call in calls)
        self._settle(shown, head)
        earlier = tuple(self.stage_layers) if stages else tuple(self.stage_layers)[:-1]
        self.capabilities = Capabilities(self._kinds(bool(earlier)), self._classes, earlier, tuple(self.stage_layers))
        if "gradient" in self.capabilities.outputs:
            features = ("features",) if self._reads_features else ()
            self.gradients = ("logits", *features, *(f"stages/{name}" for name in self.stage_layers))

    # What is there

    def _traced(self, shape: tuple[int, ...]) -> tuple[list[Call], Any]:
        """The calls of one run, and the output that holds the classes."""

        def look(x: Any) -> tuple[list[Call], Any]:
            calls: list[Call] = []
            return calls, run(self._model, self._fed(x), calls.append)

        try:
            calls, output = abstractly(look, shape)
        except Exception:
            calls, output = self._eagerly(look, shape)
        return calls, _classes_among(output)

    def _eagerly(self, function: Any, shape: tuple[int, ...]) -> Any:
        try:
            return eager(function)(np.zeros(shape, np.float32))
        except Exception as error:
            raise ModelError(
                f"The classifier fails on a batch of shape {shape}: {_reason(error)} If that is not the size of "
                "its images, give it with size=(height, width)."
            ) from error

    def _fed(self, x: Any) -> Any:
        return ops.squeeze(x, -1) if self._rank == 3 else x

    def _named_head(self, calls: list[Call], output: Any, name: str) -> Tail:
        linear = [i for i, call in enumerate(calls) if is_linear(call.op)]
        i = _find(calls, name, linear, "linear layer")
        found = find_tail(calls, output)
        return found if found.call == i else Tail(i, None, False, found.before)

    def _named_stages(self, calls: list[Call], names: Sequence[str]) -> list[Stage]:
        usable = [i for i, call in enumerate(calls) if single(call.output) and len(call.output.shape) in (3, 4)]
        found = sorted(_find(calls, name, usable, "layer with maps or tokens") for name in names)
        return [Stage(i, layout_of_call(calls, i, self.input.layout)) for i in found]

    def _settle(self, shown: np.ndarray, head: str | None) -> None:
        """Look once at what comes out; check the head, and learn how the output relates to the logits."""
        try:
            found = self._run(shown)
        except Exception as error:
            self._make = eager
            self._run = self._make(self._compute)
            found = self._eagerly(self._compute, shown.shape)
            why = _reason(error)
            self.notes += (
                f"The classifier cannot be compiled by its backend; it is run layer by layer, more slowly. {why}",
            )
        own = _numpy(found["own"])
        if not (np.isfinite(own).all() and np.isfinite(_numpy(found["logits"])).all()):
            bad = [w.path for w in self._model.weights if not np.isfinite(_numpy(w)).all()]
            why = f"its weights {', '.join(bad[:3])} hold NaN or infinity" if bad else "its values overflow"
            raise ActivationsError(f"The classifier's output for a random image is not finite: {why}.")
        if head is None:
            _settle_layers(own, found, self._tail, self._reads_head)
        if self._reads_head:
            logits, features = _numpy(found["logits"]), _numpy(found["features"])
            if logits.shape != own.shape:
                raise ModelError(
                    f"Layer {self._paths[self._tail.call or 0]!r} gives {logits.shape[1]} values, the classifier "
                    f"{own.shape[1]}, so it is not the classifier's head. Name another layer with head=."
                )
            tolerance, floor = ROUNDING.get(self._op.compute_dtype, (1e-3, 1e-30))
            if self._tail.softmax is None:
                gap = np.abs(_as_logits(own, logits, floor) - logits).max()
                softmax = bool(gap <= tolerance * max(1.0, np.abs(logits).max())) and _is_distribution(own)
                self._tail = Tail(self._tail.call, softmax, self._tail.clean, self._tail.before)
                if not softmax and np.allclose(own, 1 / (1 + np.exp(-logits.astype(np.float64))), atol=1e-5):
                    raise ModelError(SIGMOID.format(of="", what=f"{own.shape[1]} outputs", cure=MANY))
            self.head = head_of(self._op)
            truth = _as_logits(own, logits, floor) if self._tail.softmax else own
            try:
                verify_head(self.head, Activations(truth, features), tolerance=tolerance)
                return
            except ModelError:
                if self._tail.clean or head is not None:
                    raise
        self._reads_head, self.head = False, None
        self._run = self._make(self._compute)
        if self._tail.softmax is None:
            self._tail = Tail(self._tail.call, _is_distribution(own), False, None)
        self.notes += (
            "Something is computed between the last linear layer and the output, so there is no head to read; "
            "detectors that need one are not available.",
        )
        if not self._tail.softmax and ((own >= 0) & (own <= 1)).all():
            self.notes += ("All outputs for a random image lie between 0 and 1 and are no softmax: are they logits?",)

    def _kinds(self, stages: bool) -> frozenset[str]:
        exact = self._reads_head or not self._tail.softmax or self._tail.before is not None
        kinds = {"probabilities", *(["logits"] if exact else []), *(["head"] if self._reads_head else [])}
        kinds |= {"features"} if self._reads_features else set()
        kinds |= {*(["dropout"] if self._drops else []), *([] if self._quantised else ["gradient"])}
        return frozenset(kinds | ({"stages"} if stages else set()) | ({"maps"} if self._stages else set()))

    # What is computed

    def _compute(self, x: Any, maps: tuple[str, ...] = (), instead: Instead = lambda op, args: None) -> dict[str, Any]:
        """{"own", "logits", "features", stage names, "maps/<name>"} of a batch in the classifier's layout."""
        found: dict[str, Any] = {}
        wanted = {stage.call: (name, stage.layout) for name, stage in zip(self.stage_layers, self._stages, strict=True)}
        count = 0

        def see(call: Call) -> None:
            nonlocal count
            i, count = count, count + 1
            if i >= len(self._paths) or call.path != self._paths[i]:
                raise ModelError(
                    f"The classifier does not compute the same way twice: layer {call.path!r} came where another one "
                    "did at first. knownot needs a classifier without branches that depend on its input."
                )
            if i in wanted:
                name, layout = wanted[i]
                found[name] = pool(call.output, layout)
                if name in maps:
                    found[f"maps/{name}"] = channels_first(call.output, layout)
            if i == self._tail.call and self._reads_features:
                found["features"] = read_features(call.op, call.args[0])
            if i == self._tail.call and self._reads_head:
                found["logits"] = read_logits(call.op, found["features"])
            elif i == self._tail.before and not self._reads_head:
                found["logits"] = ops.cast(call.args[0], "float32")

        output = run(self._model, self._fed(x), see, instead)
        found["own"] = ops.cast(_classes_among(output), "float32")
        if "logits" not in found:
            found["logits"] = ops.log(ops.maximum(found["own"], TINY)) if self._tail.softmax else found["own"]
        return found

    def forward(self, batch: np.ndarray, maps: Sequence[str] = ()) -> Activations:
        try:
            found = self._running(tuple(maps))(batch)
        except KnownotError:
            raise
        except Exception as error:
            raise InputError(f"The classifier fails on a batch of shape {batch.shape}: {_reason(error)}") from error
        stages = {name: _numpy(found[name]) for name in self.stage_layers if name in found}
        features = _numpy(found["features"]) if self._reads_features else None
        return Activations(
            _numpy(found["logits"]), features, stages, {name: _numpy(found[f"maps/{name}"]) for name in maps}
        )

    def gradient(self, batch: np.ndarray, toward: Mapping[str, np.ndarray]) -> np.ndarray:
        self.known_gradients(toward)
        names = tuple(sorted(toward))
        if names not in self._pulls:
            own = [name.removeprefix("stages/") for name in names]
            self._pulls[names] = puller(self._compute, own, lambda: self._model.variables)
        return self._pulls[names](np.asarray(batch, np.float32), [np.asarray(toward[n], np.float32) for n in names])

    def dropped(self, batch: np.ndarray, seed: int) -> np.ndarray:
        self.shows_or_raise("dropout")
        found = eager(partial(self._compute, instead=drop_units(seed)))(np.asarray(batch, np.float32))
        return _numpy(found["logits"])

    def _running(self, maps: tuple[str, ...]) -> Callable[[Any], Any]:
        """The function that gives these maps too, compiled when they are first asked for; the last one is kept."""
        if not maps:
            return self._run
        if self._with_maps[0] != maps:
            self._with_maps = (maps, self._make(partial(self._compute, maps=maps)))
        return self._with_maps[1]

    # What stays

    def as_onnx(self, folder: Path, size: tuple[int, int] | None = None) -> Model:
        from ..onnx import opened as opened_onnx
        from .onnx import write

        shown = probe(self.input if size is None else replace(self.input, height=size[0], width=size[1]))
        path = write(self._model, shown, Path(folder))
        h, w = shown.shape[1:3] if self.input.layout == "NHWC" else shown.shape[2:4]
        return opened_onnx(path, size=(h, w), layout=self.input.layout, embedding=self._embedding)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self._model.weights)

    def save(self, folder: Path) -> str:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self._path is not None:
            shutil.copyfile(self._path, folder / self._path.name)
            return self._path.name
        saveable(self._model)
        self._model.save(folder / "model.keras")
        return "model.keras"


def _settle_layers(own: np.ndarray, found: dict[str, Any], tail: Tail, reads_head: bool) -> None:
    """Raise ModelError where the output is a softmax of a softmax, or percentages."""
    logits = _numpy(found["logits"])
    if own.shape == logits.shape and (not reads_head or tail.clean):
        verify_output(logits, own, tolerance=2e-2)


def fingerprint_of(weights: Sequence[Any]) -> str:
    """sha256 over the sorted hashes of (shape, dtype, bytes): the same whatever the layers are called."""

    def one(w: Any) -> bytes:
        dtype = keras.backend.standardize_dtype(w.dtype)
        x = to_numpy(w).astype("float32" if dtype == "bfloat16" else dtype, order="C", copy=False)
        return hashlib.sha256(f"{x.shape} {dtype}".encode() + x.tobytes()).digest()

    return hashlib.sha256(b"".join(sorted(map(one, weights)))).hexdigest()


def _numpy(x: Any) -> np.ndarray:
    return np.asarray(to_numpy(x), dtype=np.float32)


def _features_are_flat(call: Call) -> bool:
    return len(call.args[0].shape) == (4 if len(call.output.shape) == 4 else 2)


def _classes_among(output: Any) -> Any:
    """The one output [n, c]. Raises ModelError when there are several, or none."""
    parts = keras.tree.flatten(output)
    flat = [x for x in parts if len(x.shape) == 2]
    if len(flat) == 1:
        return flat[0]
    shapes = ", ".join(str(tuple(x.shape)) for x in parts)
    if flat:
        raise ModelError(
            f"The classifier has {len(flat)} outputs of the shape [n, c] ({shapes}). Choose one and give the model of "
            "it alone: keras.Model(model.inputs, model.outputs[i])."
        )
    raise ModelError(
        f"The model's output has shape {shapes}; a classifier gives [n, c], one score per class. "
        "Give the whole classifier, with its last layers."
    )


def _find(calls: list[Call], name: str, among: list[int], kind: str) -> int:
    """Index of the last call of the layer `name`, a name or a path. Raises OptionError with the nearest one."""
    found = [i for i in among if name in (calls[i].path, calls[i].name)]
    found = found or [i for i in among if calls[i].path.endswith(f"/{name}")]
    if not found:
        raise unknown_name(kind, name, {calls[i].path for i in among})
    return found[-1]


def _is_distribution(p: np.ndarray) -> bool:
    return bool((p >= 0).all() and np.allclose(p.sum(axis=1), 1, atol=1e-3))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    z = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def _as_logits(own: np.ndarray, logits: np.ndarray, floor: float) -> np.ndarray:
    """The probabilities `own` as logits; the constant per row, and what is below `floor`, taken from `logits`."""
    lost = np.log(np.maximum(own.astype(np.float64), floor)) - _log_softmax(logits)
    return logits + np.where(own > floor, lost, 0.0)


def _reason(error: BaseException) -> str:
    """The beginning of an exception's text, without the colours of a terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).partition("Arguments received")[0]
    return f"{type(error).__name__}: {' '.join(text.split())[:300]}".rstrip(". ") + "."

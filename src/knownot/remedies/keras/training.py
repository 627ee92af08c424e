"""Training Keras models, with Keras' own `fit`, on any of its backends: a copy of the user's."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ...errors import ModelError
from ...models import Model
from ...models.keras.backend import to_numpy
from ...models.keras.steps import made_for_bfloat16
from ..training.fine_tuning import Job
from ..training.loop import RISE, Arrays, Outputs, Tuner
from ..training.losses import namespace
from ..training.memory import Cost, joined, split
from ..training.mixed_precision import FAILS, HEAD, mixed
from .surgery import copied, tap_layer

NORMS = (keras.layers.BatchNormalization,)  # those with running statistics
EPSILON = 1e-8  # of Adam, as in torch


def trainer(opened: Model, job: Job) -> ModelTrainer:
    """Of all weights of a copy of the user's model, with the job's head."""
    return ModelTrainer(opened, job)


def head_trainer(job: Job) -> HeadTrainer:
    """Of a linear layer on features."""
    return HeadTrainer(job)


def with_head(opened: Model, weight: np.ndarray, bias: np.ndarray) -> keras.Model:
    """A copy of the user's model with this head."""
    return copied(opened, weight, bias)[0]


def also_saved(model: keras.Model, folder: Path) -> None:
    """A .keras file is all that is needed."""


class _Tuning(keras.Model):
    """The network with the remedy's loss, so that `fit` trains it. network: x -> (features, logits)."""

    def __init__(self, network: keras.Model, head: keras.layers.Dense, job: Job, parts: int = 1) -> None:
        super().__init__(name="tuning")
        self.parts, self.whole = parts, job.whole
        self.network, self.head, self.job_loss, self.job_remember = network, head, job.loss, job.remember
        self.more = {name: keras.layers.Dense(m, name=name) for name, m in job.extra.items()}
        for i, (name, layer) in enumerate(self.more.items()):
            layer.kernel_initializer = keras.initializers.GlorotUniform(seed=job.settings.seed + i)
            layer.build((None, job.weight.shape[1]))
            setattr(self, f"more_{name}", layer)
        self.own_weights = {name: self._holds(name, x, True) for name, x in job.own.items()}
        self.memory = {name: self._holds(name, x, False) for name, x in job.memory.items()}
        self.built = True

    def _holds(self, name: str, start: np.ndarray, trained: bool) -> Any:
        found = self.add_weight(
            shape=np.shape(start), initializer="zeros", dtype="float32", trainable=trained, name=name
        )
        found.assign(np.asarray(start, np.float32))
        return found

    def call(self, x: Any, training: bool = False) -> Any:
        features, logits = self.network(x, training=training)
        features, logits = (keras.ops.cast(a, "float32") for a in (features, logits))
        return {"features": features, "logits": logits, **{n: layer(features) for n, layer in self.more.items()}}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        extra = {name: y_pred[name] for name in self.more}
        kernel, bias = (keras.ops.cast(w, "float32") for w in (self.head.kernel, self.head.bias))
        own, memory = (
            {n: keras.ops.convert_to_tensor(w) for n, w in of.items()} for of in (self.own_weights, self.memory)
        )
        out = Outputs(y_pred["logits"], y_pred["features"], kernel, bias, extra=extra, own=own, memory=memory)
        batch = joined({name: keras.ops.convert_to_tensor(values) for name, values in y.items()})  # test_on_batch: no
        xp = namespace("keras")
        loss = self.job_loss(xp, out, batch)
        if training:
            for name, x in self.job_remember(xp, out, batch).items():
                self.memory[name].assign(keras.ops.stop_gradient(x))
            loss = loss * self.parts  # the optimiser takes the mean of the parts' gradients
        return loss


class _Rate(keras.optimizers.schedules.LearningRateSchedule):
    """`loop.rate`, as Keras wants it."""

    def __init__(self, learning_rate: float, steps: int, parts: int = 1) -> None:
        self.learning_rate, self.steps, self.parts = learning_rate, steps, parts

    def __call__(self, step: Any) -> Any:
        at = keras.ops.floor(keras.ops.cast(step, "float32") / self.parts)  # Keras counts parts of steps here
        rising = keras.ops.minimum(1.0, (at + 1) / max(1.0, RISE * self.steps))
        return self.learning_rate * rising * 0.5 * (1 + keras.ops.cos(np.pi * at / self.steps))

    def get_config(self) -> dict[str, Any]:
        return {"learning_rate": self.learning_rate, "steps": self.steps, "parts": self.parts}


def adam(
    learning_rate: float, steps: int, betas: tuple[float, float] = (0.9, 0.999), parts: int = 1
) -> keras.optimizers.Adam:
    """As torch has it, at a rate that follows from the step, each of so many parts."""
    added = parts if parts > 1 else None
    return keras.optimizers.Adam(
        _Rate(learning_rate, steps, parts), *betas, epsilon=EPSILON, gradient_accumulation_steps=added
    )


def packed(variables: Sequence[Any]) -> bytes:
    """What they hold, for `unpack`."""
    held = io.BytesIO()
    np.savez(held, *[np.asarray(to_numpy(v)) for v in variables])
    return held.getvalue()


def unpack(state: bytes, variables: Sequence[Any]) -> None:
    with np.load(io.BytesIO(state), allow_pickle=False) as found:
        for i, variable in enumerate(variables):
            variable.assign(found[f"arr_{i}"])


class _Batches(keras.utils.PyDataset):
    """Some steps of the training, each in parts."""

    def __init__(self, steps: range, batch_of: Callable[[int], Arrays], parts: int, whole: Sequence[str]) -> None:
        super().__init__()
        self.steps, self.batch_of, self.parts, self.whole = steps, batch_of, parts, whole
        self._made: tuple[int, list[dict[str, np.ndarray]]] = (-1, [])

    def __len__(self) -> int:
        return len(self.steps) * self.parts

    def __getitem__(self, i: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        step, part = divmod(i, self.parts)
        if self._made[0] != step:
            self._made = step, split(self.batch_of(self.steps[step]), self.parts, self.whole, equal=True)
        return _pair(self._made[1][part])


class _Done(keras.callbacks.Callback):
    """Tells the loss of each step, from Keras' running mean of them."""

    def __init__(self, done: Callable[[float], None], parts: int) -> None:
        super().__init__()
        self.done, self.parts, self.total = done, parts, 0.0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if (batch + 1) % self.parts:
            return
        total = float((logs or {})["loss"]) * ((batch + 1) // self.parts)
        self.done(total - self.total)
        self.total = total


class _Fitting(Tuner):
    """`fit` of a `_Tuning`, some steps at a time."""

    tuning: _Tuning

    def _compiled(self, tuning: _Tuning, optimiser: keras.optimizers.Optimizer) -> None:
        self.tuning = tuning
        tuning.compile(optimizer=optimiser, jit_compile=keras.backend.backend() == "jax")
        optimiser.build(tuning.trainable_variables)

    def run(self, steps: range, batch_of: Callable[[int], Arrays], done: Callable[[float], None]) -> None:
        batches = _Batches(steps, batch_of, self.parts, self.tuning.whole)
        told = _Done(done, self.parts)
        self.tuning.fit(batches, epochs=1, shuffle=False, verbose=0, callbacks=[told])

    def losses(self, batches: Sequence[Arrays]) -> list[float]:
        found = []
        for batch in batches:
            total = 0.0
            for part in split(batch, self.parts, self.tuning.whole, equal=True):
                self.tuning.reset_metrics()
                total += float(self.tuning.test_on_batch(*_pair(part)))
            found.append(total)
        return found

    def dumped(self) -> bytes:
        return packed(self._variables())

    def restore(self, state: bytes) -> None:
        unpack(state, self._variables())

    def weights(self) -> list[np.ndarray]:
        return [np.array(keras.ops.convert_to_numpy(v), np.float32) for v in self._floats()]

    def assign(self, weights: Sequence[np.ndarray]) -> None:
        for variable, new in zip(self._floats(), weights, strict=True):
            variable.assign(new)

    def own(self) -> dict[str, np.ndarray]:
        return {name: np.array(to_numpy(w)) for name, w in self.tuning.own_weights.items()}

    def _floats(self) -> list[Any]:
        return [v for v in self.tuning.weights if keras.backend.is_float_dtype(v.dtype)]

    def _variables(self) -> list[Any]:
        """Weights, the state of dropout layers' random numbers, and the optimiser's."""
        metrics = {id(v) for v in self.tuning.metrics_variables}
        own = [v for v in self.tuning.variables if id(v) not in metrics]
        seen = {id(v) for v in own}
        return own + [v for v in self.tuning.optimizer.variables if id(v) not in seen]


class HeadTrainer(_Fitting):
    """Of the last layer, on features; `finished` gives (weight [m, d], bias [m])."""

    def __init__(self, job: Job) -> None:
        m, d = job.weight.shape
        self.notes = (HEAD,) if job.settings.half else ()
        x = keras.Input((d,))
        head = keras.layers.Dense(m)
        network = keras.Model(x, [x, head(x)])
        head.kernel.assign(np.ascontiguousarray(job.weight.T))
        head.bias.assign(job.bias)
        self._compiled(_Tuning(network, head, job), adam(job.learning_rate, job.steps))

    def finished(self) -> tuple[np.ndarray, np.ndarray]:
        kernel, bias = (np.asarray(keras.ops.convert_to_numpy(w)) for w in self.tuning.head.get_weights())
        return np.ascontiguousarray(kernel.T), bias


class ModelTrainer(_Fitting):
    """Of all weights of a copy of the user's model; `finished` gives another copy, with what was learnt."""

    def __init__(self, opened: Model, job: Job) -> None:
        self.opened, self.job = opened, job
        half, self.notes = mixed(job.settings.half, made_for_bfloat16())
        try:
            self.copy, head = copied(opened, job.weight, job.bias, training=job.settings.seed, half=half)
        except ModelError:
            if not half:
                raise
            self.notes = (FAILS,)
            self.copy, head = copied(opened, job.weight, job.bias, training=job.settings.seed)
        network = tap_layer(self.copy, head)
        for layer in self.copy._flatten_layers():
            layer.trainable = not (job.settings.freeze_norm and isinstance(layer, NORMS))
        if job.rows and not job.memory:  # what is remembered of a step needs all of it at once
            cost = cost_of(self.copy, job)
            self.parts = cost.parts(job.rows, job.settings.memory)
            self.peak = cost.of(job.rows, -(-job.rows // self.parts))
        tuning = _Tuning(network, head, job, self.parts)
        self._compiled(tuning, adam(job.learning_rate, job.steps, parts=self.parts))

    def finished(self) -> Any:
        model, _ = copied(self.opened, self.job.weight, self.job.bias)
        for source, target in zip(self.copy.weights, model.weights, strict=True):
            target.assign(source)
        return model


def cost_of(model: keras.Model, job: Job) -> Cost:
    """From the shapes of what the layers put out; what a layer needs besides is in the same order."""
    values = 0
    for layer in model._flatten_layers():
        if getattr(layer, "_inbound_nodes", None) and not isinstance(layer, keras.Model):
            shapes = [x.shape[1:] for x in keras.tree.flatten(layer.output)] if len(layer._inbound_nodes) == 1 else []
            values += sum(math.prod(side or 1 for side in shape) for shape in shapes)
    weights = sum(math.prod(v.shape) for v in model.trainable_variables)
    return Cost(4 * values, 4 * math.prod(job.shape), 4 * weights)


def _pair(batch: Arrays) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    arrays = {name: np.ascontiguousarray(x, dtype=np.float32) for name, x in batch.items()}
    return arrays.pop("x"), arrays

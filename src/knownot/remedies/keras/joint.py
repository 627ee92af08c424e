"""The joint training of `joint.Joint` in Keras, on any of its backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from ...models import Model
from ...models.keras.steps import Slopes, stepper
from ..training import adversary as against
from ..training.adversary import Against, doublings, pixel_range
from ..training.data import Pool
from ..training.fine_tuning import Job
from ..training.loop import Arrays
from ..training.losses import cross_entropy, from_uniform
from ..training.mlp import Layers
from .training import ModelTrainer, adam, packed, unpack


def joint_trainer(
    opened: Model,
    job: Job,
    pool: Pool,
    scale: tuple[np.ndarray, np.ndarray],
    beta: float,
    hidden: Sequence[int],
) -> JointTrainer:
    """See `frameworks.Trains`. scale: (mean, std) [d] of known features."""
    return JointTrainer(opened=opened, job=job, pool=pool, scale=scale, beta=beta, hidden=hidden)


def build_generator(pool: Pool, channels: int, layout: str) -> keras.Model:
    """Noise [n, NOISE] to images as the classifier takes them: layers that double the size, pixels in [0, 1] by a
    sigmoid, and the classifier's own preprocessing of them."""
    height, width = int(pool.x.shape[1]), int(pool.x.shape[2])
    k, side, form = against.CHANNELS, against.FIRST, "channels_last"
    z = keras.Input((against.NOISE,))
    x = layers.Reshape((side, side, k))(layers.Dense(side * side * k)(z))
    for _ in range(doublings(height, width)):
        x = layers.UpSampling2D(2, data_format=form)(x)
        x = layers.Conv2D(k, 3, padding="same", data_format=form)(x)
        x = layers.GroupNormalization(against.GROUPS, axis=-1, epsilon=against.NORM_EPSILON)(x)
        x = layers.LeakyReLU(negative_slope=against.SLOPE)(x)
    x = layers.Conv2D(channels, 3, padding="same", data_format=form, activation="sigmoid")(x)
    if tuple(x.shape[1:3]) != (height, width):
        x = ops.image.resize(x, (height, width), interpolation="bilinear", data_format=form)
    low, span = (np.asarray(v, np.float32) for v in pixel_range(pool, channels))
    x = x * span + low  # in this order: they are arrays
    return keras.Model(z, x if layout == "NHWC" else ops.transpose(x, (0, 3, 1, 2)))


def build_discriminator(d: int, hidden: Sequence[int]) -> keras.Sequential:
    """Features [n, d] to log-odds [n, 1] of being made."""
    net = keras.Sequential([keras.Input((d,))])
    for units in hidden:
        net.add(layers.Dense(units))
        net.add(layers.LeakyReLU(negative_slope=against.SLOPE))
    net.add(layers.Dense(1))
    return net


class JointTrainer(Against):
    """A copy of the user's model in training, and its two adversaries. scale: (mean, std) [d] of known features."""

    def __init__(
        self,
        opened: Model,
        job: Job,
        pool: Pool,
        scale: tuple[np.ndarray, np.ndarray],
        beta: float,
        hidden: Sequence[int],
    ) -> None:
        self.inner, self.job, self.beta = ModelTrainer(opened, job), job, beta
        self.notes = self.inner.notes
        self.discriminator = build_discriminator(job.weight.shape[1], hidden)
        self.generator = build_generator(pool, opened.input.channels or int(pool.x.shape[-1]), opened.input.layout)
        for i, net in enumerate((self.discriminator, self.generator)):
            drawn(net, np.random.default_rng([job.settings.seed, 51, i]))
        nets = (self.inner.tuning, self.discriminator, self.generator)
        own = [adam(against.RATE, job.steps, against.BETAS) for _ in range(2)]
        self.players = list(zip(nets, (self.inner.tuning.optimizer, *own), strict=True))
        for net, optimiser in self.players[1:]:
            optimiser.build(net.trainable_variables)
        self.mean, self.std = (ops.convert_to_tensor(np.asarray(v, np.float32)) for v in scale)
        self._take = stepper(self._step, self._variables())

    def run(self, steps: range, batch_of: Callable[[int], Arrays], done: Callable[[float], None]) -> None:
        for step in steps:
            batch = {name: np.ascontiguousarray(x, dtype=np.float32) for name, x in batch_of(step).items()}
            done(self._take(batch | self._noise(step, len(batch["x"]))))

    def _noise(self, step: int, n: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.job.settings.seed, step, 52])
        return {f"noise{i}": rng.standard_normal((n, against.NOISE), dtype=np.float32) for i in range(2)}

    def _step(self, slopes: Slopes, batch: dict[str, Any]) -> Any:
        """One step of classifier and discriminator, one of the generator against both as they are then."""
        n = batch["x"].shape[0]
        made = ops.stop_gradient(self.generator(batch["noise0"], training=True))
        both = ops.concatenate([batch["x"], made])

        def classifier() -> tuple[Any, Any]:
            features, logits = self._seen(both)
            known = cross_entropy(ops, logits[:n], batch["targets"], batch["known"])
            return known + self.beta * from_uniform(ops, logits[n:]), features

        def discriminator() -> tuple[Any, Any]:
            odds = self._odds(ops.stop_gradient(features))  # of being made
            return (ops.mean(ops.softplus(odds[:n])) + ops.mean(ops.softplus(-odds[n:]))) / 2, ()

        def generator() -> tuple[Any, Any]:
            features, logits = self._seen(self.generator(batch["noise1"], training=True))
            return ops.mean(ops.softplus(self._odds(features))) + self.beta * from_uniform(ops, logits), ()

        loss, features = self._moved(slopes, 0, classifier)
        self._moved(slopes, 1, discriminator)
        self._moved(slopes, 2, generator)
        return loss

    def _moved(self, slopes: Slopes, player: int, loss: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
        net, optimiser = self.players[player]
        value, more, gradients = slopes(loss, net.trainable_variables)
        optimiser.apply(gradients, net.trainable_variables)
        return value, more

    def _seen(self, x: Any) -> tuple[Any, Any]:
        features, logits = self.inner.tuning.network(x, training=True)
        return ops.cast(features, "float32"), ops.cast(logits, "float32")

    def _odds(self, features: Any) -> Any:
        return self.discriminator((features - self.mean) / self.std, training=True)[:, 0]

    def _variables(self) -> list[Any]:
        found = self.inner._variables()
        for net, optimiser in self.players[1:]:
            found += [*net.variables, *optimiser.variables]
        return found

    def dumped(self) -> bytes:
        return packed(self._variables())

    def restore(self, state: bytes) -> None:
        unpack(state, self._variables())

    def discriminator_layers(self) -> Layers:
        dense = [layer for layer in self.discriminator.layers if isinstance(layer, layers.Dense)]
        pairs = [[np.array(w) for w in layer.get_weights()] for layer in dense]
        return Layers(tuple(w for w, _ in pairs), tuple(b for _, b in pairs), against.SLOPE)


def drawn(net: keras.Model, rng: np.random.Generator) -> None:
    """Weights and biases uniform within 1 / sqrt(inputs), as torch has them, and the same on each backend."""
    for layer in net.layers:
        if hasattr(layer, "kernel"):
            most = 1 / np.sqrt(np.prod(layer.kernel.shape[:-1]))
            for weight in (layer.kernel, layer.bias):
                weight.assign(rng.uniform(-most, most, tuple(weight.shape)).astype(np.float32))

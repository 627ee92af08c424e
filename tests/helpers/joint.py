"""The toy classifier in torch and Keras, trained with a generator and a discriminator."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import helpers.remedies  # noqa: F401  (it chooses Keras' backend)
import knownot
from helpers import toy
from knownot import remedies

LAYERS = (("one", "w1", "b1"), ("two", "w2", "b2"), ("head", "w", "b"))


class Small(nn.Module):
    """The toy classifier as a torch module."""

    def __init__(self):
        super().__init__()
        w = {name: torch.tensor(np.asarray(x).copy()) for name, x in toy.weights().items()}
        self.one, self.two = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 24, 3, 2, 1)
        self.head = nn.Linear(24, 4)
        names = {m: pair for m, *pair in LAYERS}
        self.load_state_dict(
            {f"{m}.{k}": w[x] for m, pair in names.items() for k, x in zip(("weight", "bias"), pair, strict=True)}
        )

    def forward(self, x):
        return self.head(torch.relu(self.two(torch.relu(self.one(x)))).mean(dim=(2, 3)))


def keras_small():
    """The same, of the same weights, in Keras."""
    import keras
    from keras import layers as L

    image = x = keras.Input((16, 16, 3))
    for name, k in (("one", 12), ("two", 24)):
        x = L.ReLU()(L.Conv2D(k, 3, 2, name=name)(L.ZeroPadding2D(1)(x)))
    model = keras.Model(image, L.Dense(4, name="head", activation="softmax")(L.GlobalAveragePooling2D()(x)))
    w = toy.weights()
    for name, kernel, bias in LAYERS:
        own = np.asarray(w[kernel])
        model.get_layer(name).set_weights([own.transpose(2, 3, 1, 0) if own.ndim == 4 else own.T, np.asarray(w[bias])])
    return model


def opened_of(model):
    return knownot.open_model(model) if hasattr(model, "get_weights") else knownot.open_model(model, size=(16, 16))


def joint(model, images, **options):
    x, y = images["validation"]
    settings = {"epochs": 2, "batch_size": 64, "progress": False, "augment": "none", **options}
    return remedies.joint(
        opened_of(model), *images["known"], validation=x, validation_labels=y, preprocess=SCALE,
        **{"tolerance": 0.02, **settings},
    )  # fmt: skip


SCALE = knownot.Preprocess(scale=1 / 255)


def weights(model):
    if hasattr(model, "get_weights"):
        return [np.array(w) for w in model.get_weights()]
    return [x.detach().numpy().copy() for x in model.state_dict().values()]

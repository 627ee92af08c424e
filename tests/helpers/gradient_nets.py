"""One network with dropout in torch and in Keras, whose gradients are known."""

from __future__ import annotations

import os
import sys

if "keras" not in sys.modules:
    os.environ.setdefault("KERAS_BACKEND", "torch")

from helpers import toy

P = 0.4


def torch_net(end: str = "", dropout: bool = True):
    from torch import nn

    ends = {"": [], "softmax": [nn.Softmax(1)], "log-softmax": [nn.LogSoftmax(1)]}[end]
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(12, 24, 3, 2, 1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(P if dropout else 0.0),
        nn.Linear(24, 4),
        *ends,
    )
    import torch

    w = {name: torch.from_numpy(x.copy()) for name, x in toy.weights().items()}
    names = ("w1", "b1", "w2", "b2", "w", "b")
    net.load_state_dict(dict(zip(net.state_dict(), (w[name] for name in names), strict=True)))
    return net.eval()


def keras_net(dropout: str = "Dropout"):
    import keras
    from keras import layers as L

    net = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            L.ZeroPadding2D(1),
            L.Conv2D(12, 3, strides=2, activation="relu"),
            L.ZeroPadding2D(1),
            L.Conv2D(24, 3, strides=2, activation="relu"),
            *([L.SpatialDropout2D(P)] if dropout == "SpatialDropout2D" else []),
            L.GlobalAveragePooling2D(),
            *([L.Dropout(P)] if dropout == "Dropout" else []),
            L.Dense(4, activation="softmax"),
        ]
    )
    w = toy.weights()
    kernels = [w["w1"].transpose(2, 3, 1, 0), w["b1"], w["w2"].transpose(2, 3, 1, 0), w["b2"], w["w"].T, w["b"]]
    values = iter(kernels)
    for variable in net.trainable_variables:
        variable.assign(next(values))
    return net

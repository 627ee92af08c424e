"""Small classifiers of made pictures (`helpers.toy.known`), trained for a moment, in torch and in Keras."""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from helpers.toy import known
from knownot.arrays import Preprocess

if "keras" not in sys.modules:
    os.environ.setdefault("KERAS_BACKEND", "torch")

WAY = Preprocess(scale=1 / 255, mean=(0.5,), std=(0.25,), name="plain")
TRAIN, VALIDATION = known(600, seed=1), known(200, seed=2)


class Net(nn.Module):
    """With everything that makes training differ from inference: batch normalisation and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv1(x)))
        return self.fc(self.drop(torch.relu(self.conv2(x)).mean(dim=(2, 3))))


def inputs(images: np.ndarray, layout: str = "NCHW") -> np.ndarray:
    x = ((images / 255 - 0.5) / 0.25).astype(np.float32)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if layout == "NCHW" else x


@cache
def _weights() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net()
        x, y = torch.from_numpy(inputs(TRAIN[0])), torch.from_numpy(TRAIN[1])
        optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
        for _ in range(60):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimiser.step()
    return net.eval().state_dict()


def torch_net() -> Net:
    """In evaluation mode; about all of `VALIDATION` right."""
    net = Net()
    net.load_state_dict(_weights())
    return net.eval()


def keras_net(*, nested: bool = False, softmax: str = "fused", bias: bool = True) -> Any:
    """The same network with the same weights. softmax: "fused", "layer" or "none"."""
    import keras
    from keras import layers as L

    image = keras.Input((16, 16, 3))
    x = L.ZeroPadding2D(1)(image)
    x = L.ReLU()(L.BatchNormalization(epsilon=1e-5, name="norm")(L.Conv2D(8, 3, 2, use_bias=False, name="conv1")(x)))
    x = L.ReLU()(L.Conv2D(12, 3, 2, name="conv2")(L.ZeroPadding2D(1)(x)))
    x = L.GlobalAveragePooling2D()(x)
    last = L.Dense(4, activation="softmax" if softmax == "fused" else None, name="fc", use_bias=bias)
    top = [L.Dropout(0.2), last, *([L.Softmax()] if softmax == "layer" else [])]
    if nested:
        body = keras.Model(image, x)
        model = keras.Sequential([keras.Input((16, 16, 3)), body, keras.Sequential([keras.Input((12,)), *top])])
    else:
        for layer in top:
            x = layer(x)
        model = keras.Model(image, x)
    own = {name: t.numpy() for name, t in _weights().items()}
    norm = [own[f"norm.{name}"] for name in ("weight", "bias", "running_mean", "running_var")]
    turned = [own[f"conv{i}.weight"].transpose(2, 3, 1, 0) for i in (1, 2)]
    values = [turned[0], *norm, turned[1], own["conv2.bias"], own["fc.weight"].T, own["fc.bias"]]
    model.set_weights(values if bias else values[:-1])
    return model

"""Classifiers of other frameworks by the same path: their own exporter, then knownot's ONNX adapter."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import knownot
from helpers import toy
from knownot.errors import MissingExtraError, ModelError
from knownot.export.onnx import same_places

WAY = knownot.Preprocess(16, 16, scale=1 / 255)
MIXED = np.concatenate([toy.unknown(40), toy.known(40, 9)[0]])


def network() -> nn.Module:
    """The toy classifier in torch, with the same weights."""
    w = {name: torch.from_numpy(x) for name, x in toy.weights().items()}
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(24, 4), nn.Softmax(1),
    )  # fmt: skip
    names = ("w1", "b1", "w2", "b2", "w", "b")
    net.load_state_dict(dict(zip(net.state_dict(), (w[name] for name in names), strict=True)))
    return net.eval()


def fit(model: Any) -> Any:
    known, new = toy.known(600, 2), toy.known(300, 3)
    return knownot.fit(
        model, *known, calibration=new[0], calibration_labels=new[1], preprocess=WAY, guarantee="marginal",
        progress=False, thumbnails=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def osc() -> Any:
    return fit(network())


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Any:
    """What torch's exporter and onnxscript warn about inside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def same(path: Path, osc: Any) -> None:
    ours, theirs = osc.predict(MIXED, gallery=False), knownot.load(path).predict(MIXED)
    np.testing.assert_array_equal(theirs.label, ours.label)
    np.testing.assert_allclose(theirs.score, ours.score, rtol=1e-4, atol=1e-5 * np.ptp(ours.score))
    assert 10 < (ours.label < 0).sum() < 70


def test_torch_in_memory(osc: Any, tmp_path: Path) -> None:
    made = osc.export(tmp_path / "osc.onnx", check=MIXED)
    assert made.facts.classifier == "torch"
    same(tmp_path / "osc.onnx", osc)


def test_torch_from_a_saved_folder(osc: Any, tmp_path: Path) -> None:
    again = knownot.load(osc.save(tmp_path / "osc"))
    again.export(tmp_path / "osc.onnx", check=MIXED)
    same(tmp_path / "osc.onnx", osc)


class Fixed(nn.Module):
    """Takes images of any size, which torch.export cannot say of it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = network()[:4], network()[6]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        x = torch.nn.functional.avg_pool2d(x, x.size(3))
        return self.last(x.view(x.size(0), -1))


def test_torchscript_has_a_program_beside_it_and_without_says_the_cure(osc: Any, tmp_path: Path) -> None:
    net = knownot.open_model(Fixed().eval())
    net.forward(np.zeros((2, 3, 16, 16), np.float32))
    assert net.save(tmp_path) == "model.ts"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["export.pt2", "model.ts"]
    script = knownot.open_model(tmp_path / "model.ts")
    (tmp_path / "onnx").mkdir()
    same_places(net, script.as_onnx(tmp_path / "onnx", (16, 16)), "classifier")
    other = network()
    torch.export.save(torch.export.export(other, (torch.zeros(2, 3, 16, 16),)), tmp_path / "export.pt2")
    with torch.no_grad():
        other[0].weight += 1
    torch.export.save(torch.export.export(other, (torch.zeros(2, 3, 16, 16),)), tmp_path / "export.pt2")
    with pytest.raises(ModelError, match="The program beside this file has other weights"):
        script.as_onnx(tmp_path / "onnx", (16, 16))
    (tmp_path / "export.pt2").unlink()
    with pytest.raises(ModelError, match=r"is TorchScript.*knownot\.load\(folder, model=network\)"):
        script.as_onnx(tmp_path / "onnx", (16, 16))


def test_places_read_elsewhere_are_noticed() -> None:
    one, other = knownot.open_model(toy.graph()), knownot.open_model(toy.graph(), stages=["c1"])
    with pytest.raises(ModelError, match="does not show the same values as stages/stage1"):
        same_places(one, other, "classifier")
    with pytest.raises(ModelError, match=r"does not show stages/stage1 \[24\]"):
        same_places(one, knownot.open_model(toy.graph(), stages=[]), "classifier")


def test_keras_on_torch(tmp_path: Path) -> None:
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    x = keras.Input((16, 16, 3))
    y = keras.layers.Conv2D(12, 3, 2, activation="relu", name="a")(keras.layers.ZeroPadding2D(1)(x))
    y = keras.layers.Conv2D(24, 3, 2, activation="relu", name="b")(keras.layers.ZeroPadding2D(1)(y))
    y = keras.layers.Dense(4, activation="softmax", name="c")(keras.layers.GlobalAveragePooling2D()(y))
    net, w = keras.Model(x, y), toy.weights()
    for name, k, bias, turn in (
        ("a", "w1", "b1", (2, 3, 1, 0)), ("b", "w2", "b2", (2, 3, 1, 0)), ("c", "w", "b", (1, 0)),
    ):  # fmt: skip
        net.get_layer(name).set_weights([w[k].transpose(turn), w[bias]])
    osc = fit(net)
    assert osc.export(tmp_path / "osc.onnx", check=MIXED).facts.classifier == "keras"
    label = osc.predict(MIXED, gallery=False).label
    np.testing.assert_array_equal(knownot.load(tmp_path / "osc.onnx").predict(MIXED).label, label)


def test_a_missing_exporter_is_named(osc: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"onnxscript.*knownot\[export\]"):
        osc.export(tmp_path / "osc.onnx")

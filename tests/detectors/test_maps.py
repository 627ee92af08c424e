"""Raw maps: the same numbers from every adapter as the network computes, and gone when their batch is."""

from __future__ import annotations

import os
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

from helpers import toy
from helpers.onnx import images, model, node, weights
from knownot.arrays import Activations, Capabilities
from knownot.checks.models import check_model
from knownot.detectors.reducing import reducing
from knownot.errors import KnownotError, ModelError, OptionError
from knownot.models import open_model
from knownot.stats import ClassRange, Moments, Reduction, Reservoir, StatisticRequest, gather, maps_of, reduced

# Keras 3.15 on torch with NumPy 2: its own convert_to_numpy calls np.array(tensor). The adapter does not go through it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def pooled(maps: np.ndarray) -> np.ndarray:
    maps = maps.astype(np.float64)
    return np.concatenate([maps.mean(axis=(2, 3)), maps.std(axis=(2, 3))], axis=1)


def agree(opened, x: np.ndarray, expected: dict[str, np.ndarray], tolerance: float = 1e-5) -> None:
    """Maps [n, k, h, w] as expected; everything else as without them; one map alone as among others."""
    assert opened.capabilities.maps == tuple(expected)
    plain, seen = opened.activations(x), opened.activations(x, maps=tuple(expected))
    assert plain.maps == {}
    for name, maps in expected.items():
        assert seen.maps[name].dtype == np.float32
        np.testing.assert_allclose(seen.maps[name], maps, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(pooled(seen.maps[name]), seen.stages[name], rtol=1e-4, atol=1e-5)
    for path, values in plain.named().items():
        np.testing.assert_allclose(values, seen.named()[path], rtol=1e-5, atol=1e-5, err_msg=path)
    last = list(expected)[-1]
    alone = opened.activations(x, maps=(last, last))
    assert list(alone.maps) == [last]
    np.testing.assert_allclose(alone.maps[last], seen.maps[last], rtol=1e-5, atol=1e-5)
    part = opened.activations(x[1:2], maps=tuple(expected))
    for name in expected:
        np.testing.assert_allclose(part.maps[name], seen.maps[name][1:2], rtol=1e-4, atol=1e-5)
    with pytest.raises(OptionError, match="stag"):
        opened.activations(x, maps=("stag1",))
    check_model(opened, x)


# ONNX


def toy_maps(x: np.ndarray) -> dict[str, np.ndarray]:
    """Of `helpers.toy`, in float64; x [n, 16, 16, 3]."""

    def conv(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
        padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
        return np.maximum(np.einsum("nkhwij,okij->nohw", windows, kernel) + bias[:, None, None], 0)

    w = toy.weights()
    one = conv(x.transpose(0, 3, 1, 2), w["w1"], w["b1"])
    return {"stage1": one, "stage2": conv(one, w["w2"], w["b2"])}


@pytest.mark.parametrize("batch", ["n", 3])
def test_onnx(batch: int | str) -> None:
    x = toy.known(5, seed=3)[0] / np.float32(255)
    agree(open_model(toy.graph(batch)), x, toy_maps(x))


def test_onnx_channels_last_maps_come_channels_first() -> None:
    w = weights(a=(6, 3, 1, 1), w=(4, 6), b=(4,))
    nodes = [
        node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t a", "m"),
        node("Transpose", "m", "u", perm=[0, 2, 3, 1]),
        node("Relu", "u", "r"),
        node("ReduceMean", "r", "p", axes=[1, 2], keepdims=0),
        node("Gemm", "p w b", "z", transB=1),
        node("Softmax", "z", "y"),
    ]
    x = images(4, (8, 7, 3))
    expected = np.maximum(np.einsum("nhwk,dk->ndhw", x, w["a"][:, :, 0, 0]), 0)
    agree(open_model(model(nodes, w, shape=("n", 8, 7, 3))), x, {"stage1": expected})


@pytest.mark.parametrize("opset", [11, 17])
def test_onnx_tokens_are_maps_of_one_column(opset: int) -> None:
    w = weights(e=(6, 3, 4, 4), q=(6, 6), w=(4, 6), b=(4,)) | {"s": np.array([0, 6, -1], np.int64)}
    nodes = [
        node("Conv", "x e", "c", strides=[4, 4]),
        node("Reshape", "c s", "f"),
        node("Transpose", "f", "t0", perm=[0, 2, 1]),
    ]
    for i in range(4):
        nodes += [node("MatMul", f"t{i} q", f"m{i}"), node("Add", f"t{i} m{i}", f"t{i + 1}")]
    nodes += [node("ReduceMean", "t4", "p", axes=[1], keepdims=0), node("Gemm", "p w b", "z", transB=1)]
    proto = model([*nodes, node("Softmax", "z", "y", axis=1)], w, opset=opset)
    x = images(3)
    blocks = x.reshape(3, 3, 2, 4, 2, 4)
    tokens = np.einsum("nkaibj,dkij->nabd", blocks, w["e"]).reshape(3, 4, 6)
    expected = {}
    for i in range(4):
        tokens = tokens + tokens @ w["q"]
        expected[f"stage{i + 1}"] = tokens.transpose(0, 2, 1)[:, :, :, None]
    agree(open_model(proto), x, expected, 1e-3)


def test_onnx_maps_of_a_file_that_was_changed_are_refused(tmp_path: Path) -> None:
    path = toy.saved(tmp_path)
    opened = open_model(path)
    x = toy.known(3, seed=3)[0] / np.float32(255)
    import onnx

    proto = toy.graph()
    proto.graph.initializer[0].raw_data = (toy.weights()["w1"] * 2).tobytes()
    onnx.save(proto, path)
    with pytest.raises(ModelError, match="changed since"):
        opened.activations(x, maps=("stage1",))


# PyTorch


def torch_network(last: bool = False):
    import torch
    from torch import nn

    class Net(nn.Module):
        """Works in place where it can, and in channels-last memory."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 7, 3, stride=2, padding=1)
            self.head = nn.Linear(7, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu_(self.b(torch.relu_(self.a(x)))).mean((2, 3)))

    torch.manual_seed(0)
    net = Net().eval()
    return net.to(memory_format=torch.channels_last) if last else net


def torch_maps(net, x: np.ndarray) -> dict[str, np.ndarray]:
    import torch

    with torch.no_grad():
        one = torch.relu(net.a(torch.from_numpy(x)))
        return {"stage1": one.numpy(), "stage2": torch.relu(net.b(one)).numpy()}


@pytest.mark.parametrize("last", [False, True])
def test_torch(last: bool) -> None:
    net = torch_network(last)
    x = images(5, (3, 9, 8))
    agree(open_model(net, size=(9, 8)), x, torch_maps(net, x))


@pytest.mark.parametrize("tokens", [False, True])
def test_torch_channels_last_and_tokens_come_channels_first(tokens: bool) -> None:
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.head = nn.Conv2d(3, 6, 2, stride=2), nn.Linear(6, 4)
            self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

        def maps(self, x: torch.Tensor) -> list[torch.Tensor]:
            x = self.a(x).permute(0, 2, 3, 1)
            x = x.flatten(1, 2) if tokens else x
            found = []
            for block in self.blocks:
                x = x + torch.relu(block(x))
                found.append(x)
            return found

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.maps(x)[-1].mean(1 if tokens else (1, 2)))

    torch.manual_seed(0)
    net = Net().eval()
    x = images(4, (3, 10, 6))
    with torch.no_grad():
        found = [m.numpy() for m in net.maps(torch.from_numpy(x))]
    if tokens:
        expected = {f"stage{i}": m.transpose(0, 2, 1)[:, :, :, None] for i, m in enumerate(found, 1)}
    else:
        expected = {"stage1": found[-1].transpose(0, 3, 1, 2)}
    agree(open_model(net, size=(10, 6)), x, expected)


def test_torch_maps_are_the_same_from_the_saved_file(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(1)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3, padding=1),
        torch.nn.ReLU(inplace=True),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(5, 6, 3, padding=1),
        torch.nn.ReLU(inplace=True),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(6, 4),
    ).eval()
    opened = open_model(net, size=(8, 8))
    x = images(5)
    with torch.no_grad():
        expected = {"stage1": net[:2](torch.from_numpy(x)).numpy(), "stage2": net[:5](torch.from_numpy(x)).numpy()}
    agree(opened, x, expected)
    again = open_model(tmp_path / opened.save(tmp_path))
    assert again.capabilities.maps == opened.capabilities.maps
    for name in expected:
        np.testing.assert_array_equal(
            again.activations(x, maps=(name,)).maps[name], opened.activations(x, maps=(name,)).maps[name]
        )


def test_torch_layers_by_name_are_read_before_the_next_one_works_in_place() -> None:
    import torch

    net = torch_network()
    opened = open_model(net, size=(8, 8), stages=["b", "a"])
    x = images(4)
    with torch.no_grad():
        a = net.a(torch.from_numpy(x))
        b = net.b(torch.relu(a))
    seen = opened.activations(x, maps=("a", "b")).maps
    np.testing.assert_allclose(seen["a"], a.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(seen["b"], b.numpy(), rtol=1e-5, atol=1e-5)
    assert (seen["a"] < 0).any()


# Keras


@pytest.fixture(scope="module")
def keras_network():
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    image = keras.Input((9, 8, 3))
    a = keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="a")(image)
    b = keras.layers.Conv2D(7, 3, strides=2, padding="same", activation="relu", name="b")(a)
    out = keras.layers.Dense(4, activation="softmax")(keras.layers.GlobalAveragePooling2D()(b))
    return keras.Model(image, out)


def keras_maps(model, x: np.ndarray) -> dict[str, np.ndarray]:
    import keras

    inner = keras.Model(model.inputs, [model.get_layer("a").output, model.get_layer("b").output])
    found = inner.predict(x, verbose=0)
    return {f"stage{i}": m.transpose(0, 3, 1, 2) for i, m in enumerate(found, 1)}


def test_keras(keras_network) -> None:
    x = images(5, (9, 8, 3))
    agree(open_model(keras_network), x, keras_maps(keras_network, x))


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_keras_backends(backend: str, keras_network, elsewhere, tmp_path: Path) -> None:
    x = images(5, (9, 8, 3))
    keras_network.save(tmp_path / "net.keras")
    np.save(tmp_path / "x.npy", x)
    code = (
        f"folder = {str(tmp_path)!r}; import numpy as np; from knownot.models import open_model;"
        "opened, x = open_model(folder + '/net.keras'), np.load(folder + '/x.npy');"
        "seen = opened.activations(x, maps=opened.capabilities.maps);"
        "again = opened.activations(x[:3], maps=('stage2',));"
        "np.savez(folder + '/found.npz', again=again.maps['stage2'], logits=seen.logits, **seen.maps);"
    )
    printed = elsewhere(backend).run(code + "import keras; print(keras.backend.backend())")
    assert printed.split() == [backend]
    expected = keras_maps(keras_network, x)
    with np.load(tmp_path / "found.npz") as found:
        for name, maps in expected.items():
            np.testing.assert_allclose(found[name], maps, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found["again"], expected["stage2"][:3], rtol=1e-3, atol=1e-4)


def test_function_shows_no_maps() -> None:
    opened = open_model(lambda x: np.full((len(x), 3), 1 / 3), size=(8, 8))
    assert opened.capabilities.maps == ()
    assert "maps" not in opened.capabilities.outputs
    with pytest.raises(OptionError):
        opened.activations(images(2, (8, 8, 3)), maps=("stage1",))


# Cost


def test_one_forward_pass_with_maps_or_without(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    net, calls = torch_network(), []
    opened = open_model(net, size=(8, 8))
    kept = torch.nn.Conv2d.forward
    monkeypatch.setattr(torch.nn.Conv2d, "forward", lambda self, x: calls.append(len(x)) or kept(self, x))
    opened.activations(images(5), maps=opened.capabilities.maps)
    assert calls == [5, 5]  # two layers, once each


def test_onnx_without_maps_has_no_more_outputs_than_before() -> None:
    opened = open_model(toy.graph())
    x = toy.known(3, seed=3)[0] / np.float32(255)
    opened.activations(x, maps=("stage1",))
    served = [o.name for o in opened._run.get_outputs()]
    assert served
    assert not any("maps" in name for name in served)
    run = opened._with_maps[1]
    opened.activations(x, maps=("stage1",))
    assert opened._with_maps[1] is run, "a session is made anew for every batch"


# Reductions


class Spread(Reduction):
    """Range over space, per channel."""

    def __init__(self, layer: str) -> None:
        object.__setattr__(self, "layer", layer)

    def __repr__(self) -> str:
        return f"Spread({self.layer!r})"

    def __eq__(self, other: object) -> bool:
        return repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    @property
    def maps(self) -> tuple[str, ...]:
        return (self.layer,)

    def of(self, batch: Activations) -> np.ndarray:
        maps = batch.maps[self.layer]
        return maps.max(axis=(2, 3)) - maps.min(axis=(2, 3))


def test_what_is_made_of_maps_takes_their_place() -> None:
    opened = open_model(toy.graph())
    x = toy.known(6, seed=3)[0] / np.float32(255)
    wanted = [Spread("stage1"), Spread("stage2"), Spread("stage1")]
    assert maps_of(wanted) == ("stage1", "stage2")
    shown = reducing(opened, wanted)
    seen = shown.activations(x)
    assert seen.maps == {}
    assert set(seen.reduced) == {"Spread('stage1')", "Spread('stage2')"}
    maps = opened.activations(x, maps=("stage1",)).maps["stage1"]
    expected = maps.max((2, 3)) - maps.min((2, 3))
    for batch in (seen, seen.take(slice(0, 6)), Activations.of(seen.named()), Activations.concat([seen])):
        np.testing.assert_allclose(Spread("stage1").read(batch), expected, rtol=1e-6)
    bare = reduced(opened.activations(x, maps=("stage1",)), [Spread("stage1")])
    assert (bare.maps, list(bare.reduced)) == ({}, ["Spread('stage1')"])
    assert reducing(opened, ()) is opened
    assert shown.fingerprint == opened.fingerprint
    assert shown.capabilities == opened.capabilities
    check_model(shown, x)


def test_no_map_outlives_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, alive = open_model(toy.graph()), []
    forward = opened.forward

    def watched(batch: np.ndarray, maps: tuple[str, ...] = ()) -> Activations:
        seen = forward(batch, maps)
        assert not [ref for ref in alive if ref() is not None], "maps of an earlier batch are still there"
        alive.extend(weakref.ref(x) for x in seen.maps.values())
        return seen

    monkeypatch.setattr(opened, "forward", watched)
    shown = reducing(opened, [Spread("stage1")])
    x, labels = toy.known(60, seed=3)
    x = x / np.float32(255)

    def batches():
        for i in range(0, 60, 10):
            yield shown.activations(x[i : i + 10]), labels[i : i + 10]

    want = StatisticRequest(Moments, Spread("stage1"))
    found = gather(batches(), [want])[want]
    assert len(alive) == 6
    assert found.count == 60


# The statistic


def ranges(rows: np.ndarray, labels: np.ndarray, size: int = 300) -> ClassRange:
    return ClassRange.of(rows, labels=labels, classes=5, size=size)


def same(a: ClassRange, b: ClassRange) -> None:
    for field in ("classes", "low", "high", "count"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    for name in ("row", "class"):
        np.testing.assert_array_equal(a.held.rows[name], b.held.rows[name])


@pytest.mark.parametrize("size", [3, 300])
def test_ranges_merge_in_any_split_and_order(size: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 4)).astype(np.float32)
    labels = rng.integers(-1, 4, 400)  # class 4 never, some of none
    whole = ranges(rows, labels, size)
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(400)
        cuts = np.split(order, [0, 7, 8, 200])
        parts = [ranges(rows[i], labels[i], size) for i in cuts]
        left = parts[0]
        for part in parts[1:]:
            left = left.merge(part)
        same(left, whole)
        right = parts[-1]
        for part in parts[-2::-1]:
            right = part.merge(right)
        same(right, whole)


def test_ranges_are_those_of_the_rows_that_are_not_held_out() -> None:
    rng = np.random.default_rng(1)
    rows, labels = rng.normal(size=(2000, 3)), rng.integers(0, 4, 2000)
    found = ranges(rows, labels, 5000)
    held = {row.tobytes() for row in found.held.rows["row"]}
    assert 150 < len(held) < 260
    inside = np.array([row.tobytes() not in held for row in rows])
    assert found.classes.tolist() == [0, 1, 2, 3]
    assert found.count == 5
    for i, c in enumerate(found.classes):
        mine = rows[inside & (labels == c)]
        np.testing.assert_array_equal(found.low[i], mine.min(axis=0))
        np.testing.assert_array_equal(found.high[i], mine.max(axis=0))
    owners = {row.tobytes(): label for row, label in zip(rows, labels, strict=True)}
    assert all(owners[r.tobytes()] == c for r, c in zip(found.held.rows["row"], found.held.rows["class"], strict=True))


def test_ranges_round_nothing_and_change_no_side() -> None:
    a = ranges(np.array([[1.1, -3]], np.float32), np.array([2]))
    b = ranges(np.array([[0.1, 9]], np.float32), np.array([0]))
    before = a.low.copy()
    both = a.merge(b)
    assert both.low.dtype == np.float32
    assert both.classes.tolist() == sorted({*a.classes, *b.classes})
    np.testing.assert_array_equal(a.low, before)


def test_ranges_are_there_even_if_every_row_was_left_out() -> None:
    """As when all images are the same one, whose checksum leaves it out."""
    row = next(r for r in np.arange(200.0).reshape(100, 2) if not len(ranges(r[None], np.array([1])).classes))
    alone = ranges(np.stack([row] * 5), np.array([1] * 5)).whole
    assert alone.classes.tolist() == [1]
    np.testing.assert_array_equal(alone.low, row[None])
    np.testing.assert_array_equal(alone.high, row[None])


def test_activations_without_maps_say_how_to_have_them() -> None:
    from knownot.detectors.methods.gram import GramRows
    from knownot.errors import InputError

    with pytest.raises(InputError, match=r"stage1.*maps="):
        GramRows("stage1", 5).read(Activations(np.eye(3)))


def test_a_want_of_several_things_is_still_a_mapping() -> None:
    batch = Activations(np.eye(3), np.ones((3, 2)))
    want = StatisticRequest(Reservoir, ("features", "class"))
    assert set(gather([(batch, np.arange(3))], [want])[want].rows) == {"features", "class"}


def test_offers_without_maps_refuse_detectors_of_maps() -> None:
    from knownot.detectors import resolve

    capabilities = Capabilities(frozenset({"probabilities", "logits", "features", "head", "stages"}), 3, ("stage1",))
    for name in ("gram", "rankfeat"):
        with pytest.raises(KnownotError, match="maps"):
            resolve(name, capabilities)

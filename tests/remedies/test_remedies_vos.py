"""VOS in full mode: virtual outliers beside the training, in PyTorch and Keras; and what is trained in bfloat16."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import knownot
from helpers.remedies import TRAIN, VALIDATION, WAY, inputs, keras_net, torch_net
from helpers.retraining import NETS, retrained, same, still, weights
from helpers.toy import unknown
from knownot import remedies
from knownot.arrays import Activations
from knownot.detectors.methods.weighted_energy import WeightedEnergy
from knownot.errors import OptionError
from knownot.measure import auroc
from knownot.models.keras import steps
from knownot.outliers.features import tails
from knownot.remedies.keras import training as keras_training
from knownot.remedies.methods.vos import WINDOW, Virtual
from knownot.remedies.torch import training as torch_training
from knownot.remedies.training import mixed_precision as half
from knownot.remedies.training.batches import Plan

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

MODULES = {"torch": torch_training, "keras": keras_training}


def vos(framework: str, **options: Any) -> remedies.Remedied:
    return retrained("vos", NETS[framework](), **{"mode": "full", **options})


def keep(monkeypatch: pytest.MonkeyPatch, framework: str) -> list[Any]:
    """The trainers that are made."""
    kept: list[Any] = []
    make = MODULES[framework].trainer
    monkeypatch.setattr(MODULES[framework], "trainer", lambda *args: kept.append(make(*args)) or kept[-1])
    return kept


def memory_of(trainer: Any) -> dict[str, np.ndarray]:
    if hasattr(trainer, "tuning"):
        return {name: np.array(w) for name, w in trainer.tuning.memory.items()}
    return {name: x.numpy().copy() for name, x in trainer.memory.named_buffers()}


@pytest.mark.parametrize("framework", NETS)
def test_it_trains_and_gives_a_weighted_energy(framework: str, tmp_path: Path) -> None:
    net = NETS[framework]()
    before = weights(net)
    done = retrained("vos", net, mode="full", epochs=4, learning_rate=1e-3, weight=1.0)
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(net), strict=True))
    assert not np.array_equal(weights(done.model)[0], before[0])
    untrained = retrained("vos", net, mode="full", epochs=1, learning_rate=0.0, weight=1.0)
    assert done.history[-1]["validation_loss"] < untrained.history[0]["validation_loss"] - 2e-3
    assert isinstance(done.detector, WeightedEnergy)
    assert done.detector.weights.mean() == pytest.approx(0, abs=1e-6)
    assert done.detector.weights.any()
    plain = WeightedEnergy(np.zeros(4))
    before, after = (
        auroc(*(np.asarray(by.score(opened.activations(inputs(x)))) for x in (VALIDATION[0], unknown(200))))
        for by, opened in ((plain, knownot.open_model(net)), (done.detector, done.opened))
    )
    assert after > before + 0.05
    osc = knownot.fit(done.save(tmp_path / "new"), *TRAIN, calibration=VALIDATION, progress=False, guarantee="marginal")
    assert osc.detector.members[-1] == "vos"


def test_full_mode_gives_the_same_in_both_frameworks() -> None:
    """The same features, outliers and optimiser: a second source for either."""
    done = [retrained("vos", still(framework), mode="full", epochs=2, learning_rate=1e-3) for framework in NETS]
    for line, other in zip(done[0].history, done[1].history, strict=True):
        assert line == pytest.approx(other, rel=1e-3)
    mine, theirs = (d.detector.weights for d in done)
    np.testing.assert_allclose(mine, theirs, atol=1e-4)


@pytest.mark.parametrize("framework", NETS)
def test_the_gaussians_follow_the_features(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a classifier that stands still, they are what a float64 reference makes of the same batches."""
    kept = keep(monkeypatch, framework)
    starts: list[dict[str, np.ndarray]] = []
    begin = Virtual.memory
    monkeypatch.setattr(
        Virtual, "memory", lambda self, task, known: starts.append(dict(begin(self, task, known))) or starts[-1]
    )
    plans: list[Plan] = []
    drawn = Plan.images
    monkeypatch.setattr(Plan, "images", lambda self, step: plans.append(self) or drawn(self, step))
    net = still(framework)
    retrained("vos", net, mode="full", learning_rate=0.0, augment="none", epochs=1)
    plan = next(p for p in plans if len(p.known) == len(TRAIN[0]))
    means, covariance = starts[0]["means"].copy(), starts[0]["covariance"].copy()
    opened, window = knownot.open_model(net), min(WINDOW, len(TRAIN[0]) / 4)
    for step in range(plan.steps):
        x, _, labels = drawn(plan, step)
        f = opened.activations(inputs(x)).features.astype(np.float64)
        off = f - means[labels]
        for k in range(4):
            means[k] = means[k] + off[labels == k].sum(axis=0) / window
        covariance = covariance + len(f) / (4 * window) * (off.T @ off / len(f) - covariance)
    found = memory_of(kept[0])
    np.testing.assert_allclose(found["means"], means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["covariance"], covariance, rtol=1e-3, atol=1e-5)
    assert not np.allclose(means, starts[0]["means"], atol=1e-4)  # they moved


def test_virtual_outliers_lie_in_the_tails_of_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their squared Mahalanobis distances from their class are those of the tail, beyond the quantile of the share."""
    from scipy.stats import chi2

    found: list[np.ndarray] = []
    matmul = torch.matmul
    seen: dict[str, Any] = {}
    loss = Virtual.loss

    def watched(self: Virtual, xp: Any, out: Any, batch: Any) -> Any:
        seen.update(out=out, batch=batch, share=self.share)
        monkeypatch.setattr(xp, "matmul", lambda a, b: found.append(a.detach().numpy()) or matmul(a, b))
        value = loss(self, xp, out, batch)
        monkeypatch.setattr(xp, "matmul", matmul)
        return value

    monkeypatch.setattr(Virtual, "loss", watched)
    vos("torch", select=20, share=0.01)
    made, around = found[-1], seen["batch"]["around"].numpy()  # what is multiplied by the head
    covariance, means = (seen["out"].memory[name].double().numpy() for name in ("covariance", "means"))
    off = made - around @ means
    squared = np.einsum(
        "nd,de,ne->n", off, np.linalg.inv(covariance + 1e-4 * covariance.diagonal().mean() * np.eye(12)), off
    )
    assert len(made) == 80
    assert (squared > chi2.isf(0.01, 12) * 0.99).all()
    assert squared.max() < chi2.isf(1e-6, 12)
    np.testing.assert_allclose(
        (tails(50, 12, np.random.default_rng(0), 0.01) ** 2).sum(axis=1).min(), chi2.isf(0.01, 12), rtol=0.1
    )


def test_the_loss_does_not_reach_the_features_through_the_gaussians(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep(monkeypatch, "torch")
    vos("torch")
    assert not any(x.requires_grad for x in kept[0].memory.buffers())
    assert all(x.grad is None for x in kept[0].memory.buffers())


@pytest.mark.parametrize("framework", NETS)
@pytest.mark.parametrize("at", [1, 10])
def test_interrupted_and_resumed_is_as_if_it_was_not(
    framework: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gaussians and the parameters of the second loss go on as well; in bfloat16 too."""
    options: dict[str, Any] = {"epochs": 2, "seed": 3, "half": True}
    whole = vos(framework, **options)
    images = Plan.images

    def interrupted(self: Plan, step: int) -> Any:
        if step == at and len(self.known) == len(TRAIN[0]):
            raise KeyboardInterrupt
        return images(self, step)

    kept: dict[str, Any] = {**options, "folder": tmp_path, "save_every": 4}
    with monkeypatch.context() as patch:
        patch.setattr(Plan, "images", interrupted)
        with pytest.raises(KeyboardInterrupt):
            vos(framework, **kept)
    resumed = vos(framework, **kept)
    assert same(resumed.model, whole.model)
    np.testing.assert_array_equal(resumed.detector.weights, whole.detector.weights)


def test_head_mode_leaves_the_classifier_and_full_mode_does_not() -> None:
    head = retrained("vos", torch_net())
    assert head.model is None
    assert vos("torch").model is not None


@pytest.mark.parametrize(
    ("options", "message"), [({"select": 0}, "select=0"), ({"weight": -1}, "weight=-1"), ({"share": 2}, "share=2")]
)
def test_senseless_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        vos("torch", **options)


def test_a_class_without_images_in_the_sample_gets_the_mean_of_all() -> None:
    x, y = TRAIN
    rows = y != 2
    done = remedies.vos(
        torch_net(), x[rows], y[rows], validation=VALIDATION, preprocess=WAY, mode="full",
        epochs=1, batch_size=64, progress=False, tolerance=None, class_names=["0", "1", "2", "3"],
    )  # fmt: skip
    assert np.isfinite(done.detector.weights).all()


# Mixed precision


@pytest.mark.parametrize("framework", NETS)
def test_bfloat16_learns_and_what_comes_out_is_float32(framework: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 4, "learning_rate": 1e-3}
    exact = retrained("rotpred", still(framework), **options)
    done = retrained("rotpred", still(framework), half=True, **options)
    assert half.USED in done.notes
    assert half.USED not in exact.notes
    ours, theirs = ([line["loss"] for line in d.history] for d in (done, exact))
    assert ours[-1] < 0.9 * ours[0]
    assert ours == pytest.approx(theirs, rel=0.02)
    assert not np.allclose(ours, theirs, rtol=1e-6)  # so it was computed otherwise
    assert all(w.dtype == np.float32 for w in weights(done.model) if w.dtype.kind == "f")
    loaded = remedies.load(done.save(tmp_path / "new"))
    x = inputs(VALIDATION[0][:20])
    np.testing.assert_allclose(
        loaded.opened.activations(x).logits, done.opened.activations(x).logits, rtol=1e-4, atol=1e-4
    )
    if framework == "keras":
        assert {layer.dtype_policy.name for layer in done.model._flatten_layers()} == {"float32"}
        assert {layer.compute_dtype for layer in loaded.opened._model._flatten_layers()} == {"float32"}
    else:
        from safetensors.torch import load_file

        state = load_file(tmp_path / "new" / "state_dict.safetensors")
        assert all(w.dtype == torch.float32 for w in state.values() if w.is_floating_point())


@pytest.mark.parametrize("framework", NETS)
def test_convolutions_are_in_bfloat16_and_the_loss_is_not(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep(monkeypatch, framework)
    types: set[str] = set()
    if framework == "torch":
        conv = nn.functional.conv2d
        monkeypatch.setattr(nn.functional, "conv2d", lambda *a, **k: types.add(str((y := conv(*a, **k)).dtype)) or y)
    loss = Virtual.loss
    inner: set[str] = set()

    def watched(self: Virtual, xp: Any, out: Any, batch: Any) -> Any:
        inner.update(str(x.dtype) for x in (out.logits, out.features, out.weight))
        exact = out.features @ out.weight + out.bias  # not rounded to eight bits
        torch.testing.assert_close(out.logits, exact, rtol=1e-5, atol=1e-5)
        return loss(self, xp, out, batch)

    monkeypatch.setattr(Virtual, "loss", watched)
    vos(framework, half=False)
    assert types <= {"torch.float32"}
    vos(framework, half=True)
    if framework == "keras":
        layers = {layer.name: layer for layer in kept[1].copy.layers}
        assert {layers[name].compute_dtype for name in ("conv1", "conv2", "norm")} == {"bfloat16"}
        assert {layers[name].variable_dtype for name in ("conv1", "conv2", "norm")} == {"float32"}
        assert layers["fc"].compute_dtype == "float32"  # the head
    else:
        assert "torch.bfloat16" in types  # and float32, of what looks at the classifier before and after
        assert all(p.dtype == torch.float32 for p in kept[1].holder.parameters())
    assert inner == {"torch.float32"}


@pytest.mark.parametrize("framework", NETS)
def test_where_and_what_is_said(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU when asked for; by itself on a device that is made for it; where it lacks, a note says so."""
    exact = vos(framework, half=False)
    assert same(vos(framework).model, exact.model)
    for made, asked, used, notes in (
        (False, True, False, {half.LACKS}),
        (False, None, False, set()),
        (True, None, True, {half.USED}),
        (True, False, False, set()),
    ):
        monkeypatch.setattr(MODULES[framework], "made_for_bfloat16", lambda *_, made=made: made)
        done = vos(framework, half=asked)
        assert {note for note in done.notes if note in (half.LACKS, half.USED)} == notes
        assert same(done.model, exact.model) != used
    assert half.HEAD in retrained("none-class", NETS[framework](), mode="head", half=True).notes


@pytest.mark.parametrize(
    ("kind", "capability", "made"),
    [("cpu", None, None), ("gpu", "7.5", False), ("gpu", "8.0", True), ("gpu", "10.0", True), ("tpu", None, True)],
)
def test_which_devices_are_made_for_bfloat16(
    kind: str, capability: str | None, made: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of devices that are not here: what their backends say of them."""
    number = {"compute_capability": capability} if capability else {}
    jax = SimpleNamespace(devices=lambda: [SimpleNamespace(platform=kind, **number)])
    monkeypatch.setitem(sys.modules, "jax", jax)
    assert steps._of_jax() is made
    details = {"compute_capability": tuple(map(int, capability.split(".")))} if capability else {}
    config = SimpleNamespace(
        list_logical_devices=lambda what: [0] if kind == what.lower() else [],
        list_physical_devices=lambda what: [0] if kind == what.lower() else [],
        experimental=SimpleNamespace(get_device_details=lambda card: details),
    )
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(config=config))
    assert steps._of_tensorflow() is made
    if kind != "tpu":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: kind == "gpu")
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bool(made))
        assert steps._of_torch() is made
        assert torch_training.made_for_bfloat16(torch.device("cuda" if kind == "gpu" else "cpu")) is made


def test_what_scales_pixels_and_the_users_own_policy_stay() -> None:
    import keras
    from keras import layers as L

    from knownot.remedies.keras.surgery import copied

    image = keras.Input((16, 16, 3))
    x = L.Conv2D(4, 3, name="one", dtype="float64")(L.Rescaling(1 / 255, name="scale")(image))
    inside = keras.Sequential([keras.Input((14, 14, 4)), L.Conv2D(4, 3, name="two")])
    x = L.Dense(3, name="head", activation="softmax")(L.GlobalAveragePooling2D()(inside(x)))
    opened = knownot.open_model(keras.Model(image, x))
    copy, _ = copied(opened, np.ones((3, 4), np.float32), np.zeros(3, np.float32), training=0, half=True)
    found = {layer.name: layer.compute_dtype for layer in copy._flatten_layers() if layer.name in "scale one two head"}
    assert found == {"scale": "float32", "one": "float64", "two": "bfloat16", "head": "float32"}


def test_a_layer_that_cannot_be_half_is_told() -> None:
    import keras

    net = keras_net()
    image = net.input
    x = net.get_layer("conv2").output

    @keras.saving.register_keras_serializable("knownot-tests")
    class Picky(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            if keras.backend.standardize_dtype(x.dtype) != "float32":
                raise ValueError("float32 only")
            return x

    x = keras.layers.GlobalAveragePooling2D()(Picky()(x))
    done = retrained("logitnorm", keras.Model(image, net.get_layer("fc")(x)), half=True, tolerance=None)
    assert half.FAILS in done.notes
    assert half.USED not in done.notes


def test_an_exported_program_is_trained_in_bfloat16_as_well(tmp_path: Path) -> None:
    net = still("torch")
    program = torch.export.export(
        net, (torch.zeros(2, 3, 16, 16),), dynamic_shapes=({0: torch.export.Dim("n", min=1)},)
    )
    torch.export.save(program, tmp_path / "net.pt2")
    done = [retrained("logitnorm", tmp_path / "net.pt2", half=asked) for asked in (True, False)]
    assert half.USED in done[0].notes
    assert done[0].history[0]["loss"] == pytest.approx(done[1].history[0]["loss"], rel=0.1)
    assert done[0].history != done[1].history


def test_joint_is_trained_in_bfloat16_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    from knownot.remedies.training import adversary as against

    monkeypatch.setattr(against, "CHANNELS", 16)
    for framework in NETS:
        done = retrained("joint", NETS[framework](), half=True, tolerance=0.02)
        assert half.USED in done.notes
        assert np.isfinite([line["loss"] for line in done.history]).all()


def test_a_weighted_energy_of_activations_is_finite() -> None:
    done = vos("torch")
    logits = np.array([[1e4, 0, 0, -1e4]], np.float32)
    assert np.isfinite(done.detector.score(Activations(logits))).all()

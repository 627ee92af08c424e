"""Training in torch and Keras: the user's classifier stays, what comes back is right, interruptions leave no trace."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import knownot
from helpers.remedies import TRAIN, VALIDATION, inputs, keras_net, torch_net
from helpers.retraining import COMMON, NETS, retrained, same, weights
from helpers.toy import unknown
from knownot import open_model, remedies
from knownot.errors import ActivationsError, LabelsError, ModelError, OptionError, UnsoundError
from knownot.measure import auroc
from knownot.remedies import REMEDIES, remedy_class, retraining
from knownot.remedies.training.batches import Plan
from knownot.remedies.training.fine_tuning import FineTuning
from knownot.remedies.training.loop import part_way

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
]

TUNED = [name for name in REMEDIES if issubclass(remedy_class(name), FineTuning)]


# What comes back


@pytest.mark.parametrize("framework", NETS)
@pytest.mark.parametrize("remedy", TUNED)
def test_every_remedy_trains_and_leaves_the_classifier_as_it_was(remedy: str, framework: str) -> None:
    net = NETS[framework]()
    before = weights(net)
    done = retrained(remedy, net)
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(net), strict=True))
    assert type(done.model) is type(net)
    assert done.accuracy_after >= done.accuracy_before - 0.005
    assert not np.array_equal(weights(done.model)[0], before[0])  # all weights move, not the last layer only
    assert all(np.isfinite(list(line.values())).all() for line in done.history)
    again = open_model(done.model, none_classes=done.none_classes or None)
    assert again.capabilities.classes == 4
    assert done.scorer in knownot.detectors.DETECTORS


def test_modes_flags_hooks_and_random_numbers_of_torch_stay() -> None:
    net = torch_net()
    net.train()
    net.norm.eval()
    net.conv1.weight.requires_grad_(False)
    flags = [m.training for m in net.modules()]
    state = torch.random.get_rng_state().clone()
    done = retrained("none-class", net)
    assert [m.training for m in net.modules()] == flags
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not net.conv1.weight.requires_grad
    assert not done.model.conv1.weight.requires_grad
    assert done.model.fc.weight.requires_grad
    for model in (net, done.model):
        assert all(p.grad is None for p in model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any(m.training for m in done.model.modules())


@pytest.mark.parametrize("framework", NETS)
def test_batch_normalisation_is_frozen_unless_told_otherwise(framework: str) -> None:
    net = NETS[framework]()

    def norms(model: Any) -> np.ndarray:
        layer = model.norm if framework == "torch" else model.get_layer("norm")
        return np.concatenate([w.ravel() for w in (weights(layer)[:4])])

    assert np.array_equal(norms(net), norms(retrained("outlier-exposure", net).model))
    assert not np.array_equal(norms(net), norms(retrained("outlier-exposure", net, freeze_norm=False).model))


@pytest.mark.parametrize("softmax", ["fused", "layer", "none"])
@pytest.mark.parametrize("nested", [False, True])
def test_keras_models_of_every_build_keep_their_classes(softmax: str, nested: bool) -> None:
    """With a learning rate of 0 the new head says what the old one said, and what it ends in is what it ended in."""
    net = keras_net(nested=nested, softmax=softmax)
    done = retrained("none-class", net, learning_rate=0.0)
    x = inputs(VALIDATION[0][:32], "NHWC")
    old, new = (open_model(m).activations(x).logits for m in (net, done.model))
    np.testing.assert_allclose(new[:, :4] - new[:, :1], old - old[:, :1], rtol=1e-4, atol=1e-4)
    own = np.asarray(done.model.predict(x, verbose=0))
    assert own.shape == (32, 5)
    assert np.allclose(own.sum(axis=1), 1, atol=1e-5) == (softmax != "none")


def test_keras_models_with_a_list_of_inputs_are_trained_without_a_warning() -> None:
    """As files of tf.keras 2 have them; warnings are errors here."""
    import keras

    net = keras_net()
    done = retrained("logitnorm", keras.Model([net.input], net.output), learning_rate=0.0)
    x = inputs(VALIDATION[0][:8], "NHWC")
    np.testing.assert_allclose(done.model.predict([x], verbose=0), net.predict(x, verbose=0), atol=1e-6)


def test_a_head_without_bias_gets_one() -> None:
    done = retrained("none-class", keras_net(bias=False))
    assert done.opened.capabilities.classes == 4
    net = torch_net()
    net.fc.bias = None
    net.fc.register_parameter("bias", None)
    assert retrained("none-class", net).model.fc.bias.shape == (5,)


def test_new_rows_change_hardly_anything_before_training() -> None:
    net = torch_net()
    done = retrained("none-class", net, learning_rate=0.0, none_classes=3)
    x = inputs(VALIDATION[0])
    with torch.no_grad():
        old, new = net(torch.from_numpy(x)), done.model(torch.from_numpy(x))
    assert torch.equal(old, new[:, :4])
    none = new.softmax(dim=1)[:, 4:].sum(dim=1)
    assert float((none > 0.5).float().mean()) < 0.02


@pytest.mark.parametrize("mode", ["head", "full"])
@pytest.mark.parametrize("none_classes", [1, 3])
def test_a_none_class_rejects_what_it_was_not_trained_on(mode: str, none_classes: int) -> None:
    """Trained without any noise; tested on noise and on green pictures."""
    done = retrained("none-class", torch_net(), mode=mode, epochs=8, none_classes=none_classes,
                     outliers="made:all,-uniform,-gaussian,-salt-and-pepper,-noise", learning_rate=3e-3)  # fmt: skip
    assert done.none_classes == none_classes
    seen = [done.opened.activations(inputs(x)) for x in (VALIDATION[0], unknown(200))]
    known, strange = (done.recipe.kind.fit({}, done.opened.head).score(a) for a in seen)
    assert auroc(known, strange) > 0.95


def test_head_mode_gives_the_same_in_both_frameworks() -> None:
    """The same features, losses, outliers and optimiser: a second source for either."""
    done = [retrained("none-class", net(), mode="head", epochs=3) for net in NETS.values()]
    mine, theirs = (d.model for d in done)
    for line, other in zip(done[0].history, done[1].history, strict=True):
        assert line == pytest.approx(other, rel=1e-5)
    np.testing.assert_allclose(mine.fc.weight.detach().numpy(), theirs.get_layer("fc").get_weights()[0].T, atol=0.05)
    assert same(torch_net().conv1, mine.conv1)  # only the head was trained


def test_full_mode_gives_the_same_in_both_frameworks_without_dropout() -> None:
    net, theirs = torch_net(), keras_net()
    net.drop.p = 0.0
    next(layer for layer in theirs.layers if type(layer).__name__ == "Dropout").rate = 0.0
    done = [retrained("energy-margin", model, epochs=2) for model in (net, theirs)]
    for line, other in zip(done[0].history, done[1].history, strict=True):
        assert line["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-3)
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-3)


# Interruptions


TWO_EPOCHS: dict[str, Any] = {"epochs": 2, "patience": 2, "seed": 3}


@functools.cache
def in_one_go(framework: str) -> remedies.Remedied:
    return retrained("none-class", NETS[framework](), **TWO_EPOCHS)


@pytest.mark.parametrize("framework", NETS)
@pytest.mark.parametrize("at", [0, 1, 8, 9, 10, 17])
def test_interrupted_at_any_step_and_resumed_is_as_if_it_was_not(
    framework: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """9 steps an epoch, checkpoints every 4 steps and after each epoch; dropout, augmentation, made outliers, Adam."""
    whole = in_one_go(framework)
    images = Plan.images

    def interrupted(self: Plan, step: int) -> Any:
        if step == at and len(self.known) == len(TRAIN[0]):
            raise KeyboardInterrupt
        return images(self, step)

    kept: dict[str, Any] = {**TWO_EPOCHS, "folder": tmp_path, "save_every": 4}
    with monkeypatch.context() as patch:
        patch.setattr(Plan, "images", interrupted)
        with pytest.raises(KeyboardInterrupt):
            retrained("none-class", NETS[framework](), **kept)
    resumed = retrained("none-class", NETS[framework](), **kept)
    assert same(resumed.model, whole.model)
    for line, other in zip(resumed.history, whole.history, strict=True):
        assert line == pytest.approx(other, rel=1e-5)


def test_resuming_does_not_begin_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = retrained("none-class", torch_net(), folder=tmp_path)
    steps: list[int] = []
    images = Plan.images
    monkeypatch.setattr(Plan, "images", lambda self, step: steps.append(step) or images(self, step))
    again = retrained("none-class", torch_net(), folder=tmp_path)
    assert same(done.model, again.model)
    assert all(step >= 1_000_000 for step in steps)  # validation batches only


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    retrained("none-class", torch_net(), folder=tmp_path)
    with pytest.raises(OptionError, match="another training"):
        retrained("none-class", torch_net(), folder=tmp_path, seed=1)
    with pytest.raises(OptionError, match="another training"):
        retrained("none-class", torch_net(), folder=tmp_path, weight=0.7)
    (tmp_path / "checkpoint.npz").write_bytes(b"no")
    with pytest.raises(OptionError, match="damaged"):
        retrained("none-class", torch_net(), folder=tmp_path)


def test_the_same_seed_gives_the_same_model_and_another_another() -> None:
    one, two, other = (retrained("none-class", torch_net(), seed=seed).model for seed in (0, 0, 1))
    assert same(one, two)
    assert not same(one, other)


def test_patience_stops_and_keeps_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a learning rate that spoils everything later on, the weights of the best epoch come back."""
    options: dict[str, Any] = {"mode": "head", "epochs": 30, "learning_rate": 5.0, "tolerance": None}
    done = retrained("none-class", torch_net(), patience=2, **options)
    losses = [line["validation_loss"] for line in done.history]
    assert len(losses) < 30
    assert losses.index(min(losses)) == len(losses) - 3
    assert done.accuracy_after >= retrained("none-class", torch_net(), **options).accuracy_after - 0.02


# Refusals


def test_a_lower_accuracy_is_refused_with_both_numbers_and_the_cure() -> None:
    spoil: dict[str, Any] = {"learning_rate": 1.0, "mode": "full"}
    with pytest.raises(UnsoundError, match=r"from 100.00% to \d+.\d+%.*learning_rate") as error:
        retrained("none-class", torch_net(), **spoil)
    assert "mode='head'" in str(error.value)
    assert re.search(r"\d+ images became wrong, 0 right", str(error.value))  # all were right before
    done = retrained("none-class", torch_net(), tolerance=None, **spoil)
    assert done.accuracy_after < 0.9


def rights_of(shares: list[float]) -> Any:
    """In the place of `rights`: so many are right, one call after another."""
    calls = iter(shares)
    return lambda *_: np.arange(200) < 200 * next(calls)


@pytest.mark.parametrize("framework", NETS)
@pytest.mark.parametrize(("remedy", "mode"), [("logitnorm", "full"), ("outlier-exposure", "head")])
def test_what_costs_accuracy_goes_back_towards_the_own_weights(
    remedy: str, mode: str, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = NETS[framework]()
    whole = weights(retrained(remedy, net, mode=mode, tolerance=None).model)
    monkeypatch.setattr(retraining, "rights", rights_of([0.9, 0.5, 0.85, 0.895]))
    done = retrained(remedy, net, mode=mode)
    assert (done.share, done.accuracy_before, done.accuracy_after) == (0.6, 0.9, 0.895)
    assert "60% of the way" in done.notes[-1]
    assert "from 90.00% to 50.00%" in done.notes[-1]
    assert any(not np.array_equal(a, b) for a, b in zip(weights(net), whole, strict=True))
    for own, learnt, got in zip(weights(net), whole, weights(done.model), strict=True):
        np.testing.assert_allclose(got, 0.4 * own + 0.6 * learnt, rtol=1e-6, atol=1e-8)
    logits = done.opened.activations(inputs(VALIDATION[0])).logits  # what was opened is what was kept
    np.testing.assert_array_equal(logits, open_model(done.model).activations(inputs(VALIDATION[0])).logits)


def test_going_back_can_be_declined_and_may_not_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retraining, "rights", rights_of([0.9, 0.5]))
    with pytest.raises(UnsoundError, match="refused"):
        retrained("logitnorm", torch_net(), interpolate=False)
    monkeypatch.setattr(retraining, "rights", rights_of([0.9, 0.5, 0.6, 0.7, 0.8, 0.85, 0.89]))
    with pytest.raises(UnsoundError, match=r"from 90.00% to 50.00%.*A tenth of the way there it is 89.00%"):
        retrained("logitnorm", torch_net())
    monkeypatch.setattr(retraining, "rights", rights_of([0.9, 0.5]))
    assert retrained("logitnorm", torch_net(), tolerance=None).share == 1


def test_the_ends_of_the_way_are_exact() -> None:
    rng = np.random.default_rng(0)
    one, other = ([rng.normal(size=(5, 3)).astype(np.float32)] for _ in range(2))
    for share, end in ((0.0, one), (1.0, other)):
        (got,) = part_way(one, other, share)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, end[0])


def test_accuracy_is_counted_on_the_known_classes_only() -> None:
    done = retrained("none-class", torch_net())
    logits = done.opened.activations(inputs(VALIDATION[0])).logits
    assert logits.shape == (200, 4)
    assert done.accuracy_after == pytest.approx((logits.argmax(axis=1) == VALIDATION[1]).mean())


@pytest.mark.parametrize(
    ("remedy", "options", "error", "message"),
    [
        ("none-class", {"outliers": None}, OptionError, "give outliers="),
        ("logitnorm", {"outliers": "made:all"}, OptionError, "without outliers"),
        ("logitnorm", {"tau": 4.0}, OptionError, "cannot fall below"),
        ("none-class", {"none_clases": 3}, OptionError, "Did you mean 'none_classes'"),
        ("none-class", {"outliers": "made:patches"}, OptionError, "There is no kind of outlier 'patches'"),
        ("objectosphere", {"mode": "head"}, OptionError, "concerns the features"),
        ("none-class", {"epochs": 0}, OptionError, "epochs=0"),
        ("none-class", {"augment": "turn"}, OptionError, "augment='turn'"),
        ("energy-margin", {"m_in": -7, "m_out": -25}, OptionError, "lower energy"),
        ("none-clas", {}, OptionError, "Did you mean 'none-class'"),
    ],
)
def test_senseless_options_are_refused_before_training(
    remedy: str, options: dict[str, Any], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("knownot.remedies.training.fine_tuning.train", lambda *a: pytest.fail("it was trained"))
    given = {**COMMON, **({"outliers": "made:noise"} if remedy_class_or_none(remedy) else {}), **options}
    with pytest.raises(error, match=message):
        remedies.retrain(remedy, torch_net(), *TRAIN, **given)


def remedy_class_or_none(name: str) -> bool:
    return name in REMEDIES and remedy_class(name).outliers == "required"


def test_classifiers_whose_weights_are_not_at_hand_are_refused(tmp_path: Path) -> None:
    from helpers.toy import saved

    with pytest.raises(ModelError, match=r"onnx classifier cannot be trained.*keras.Model"):
        retrained("none-class", saved(tmp_path), preprocess=knownot.Preprocess(scale=1 / 255))
    with pytest.warns(DeprecationWarning, match="deprecated"):
        script = torch.jit.trace(torch_net(), torch.zeros(2, 3, 16, 16))
    with pytest.raises(ModelError, match="TorchScript"):
        retrained("none-class", open_model(script, size=(16, 16)))
    done = retrained("none-class", torch_net())
    with pytest.raises(ModelError, match="none-classes already"):
        retrained("none-class", done.opened)


def test_known_images_without_labels_are_refused() -> None:
    with pytest.raises(LabelsError, match="class of each known image"):
        remedies.none_class(torch_net(), TRAIN[0], outliers="made:all", **COMMON)


def test_a_loss_that_is_no_number_stops_the_training() -> None:
    with pytest.raises(ActivationsError, match=r"The loss is (nan|inf) at step \d+.*smaller learning_rate"):
        retrained("outlier-exposure", torch_net(), learning_rate=100.0, epochs=3, weight=1e38)


def test_without_validation_images_some_are_held_out_and_it_is_said() -> None:
    done = remedies.none_class(torch_net(), *TRAIN, outliers="made:noise", **{**COMMON, "validation": None})
    assert not done.validation_is_new
    assert done.accuracy_images == 60
    assert any("held out" in note for note in done.notes)

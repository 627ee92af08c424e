"""Remedies that train small networks on what the classifier computes: the networks, the passes, the outcome."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

import knownot
from helpers import toy
from helpers.networks import of, torch_of
from knownot import remedies
from knownot.arrays import Activations
from knownot.checks.detectors import CHECKS, check_detector, problem
from knownot.detectors import Network, given
from knownot.errors import ActivationsError, InputError, LabelsError, OptionError, UnsoundError
from knownot.measure import auroc
from knownot.remedies.methods import none_head as beside
from knownot.remedies.training import activations as seen
from knownot.remedies.training import mlp as core

HEADS = ("none-head", "discriminator")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return knownot.open_model(toy.saved(tmp_path_factory.mktemp("toy")))


@pytest.fixture(scope="module")
def images():
    return {"known": toy.known(400, 1), "validation": toy.known(200, 2), "test": toy.known(300, 3)}


def remedied(name, model, images, **options):
    x, y = images["validation"]
    settings = {"outliers": "made:noise,-uniform", "epochs": 4, "progress": False, **options}
    return remedies.retrain(name, model, *images["known"], validation=x, validation_labels=y, **settings)


def small(seed=0, sizes=(5, 7, 4, 2), slope=0.2):
    return core.Layers.drawn(sizes, np.random.default_rng(seed), slope, np.float64)


# Networks


def test_layers_and_their_gradients_are_those_of_torch():
    import torch

    rng = np.random.default_rng(1)
    net = small()
    net = net.with_arrays([a + rng.normal(size=a.shape) for a in net.arrays])
    x, d = rng.normal(size=(6, 5)), rng.normal(size=(6, 2))
    values = net.run(x)
    gradients, dx = net.back(values, d)
    other, tx = torch_of(net), torch.tensor(x, requires_grad=True)
    out = other(tx)
    np.testing.assert_allclose(values[-1], out.detach(), rtol=1e-12)
    (out * torch.tensor(d)).sum().backward()
    np.testing.assert_allclose(dx, tx.grad, rtol=1e-10)
    theirs = [p.grad.numpy().T for p in other.parameters()]
    assert len(theirs) == len(gradients) == 6
    for mine, its in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-10)


def test_adam_is_that_of_torch():
    import torch

    rng = np.random.default_rng(0)
    start = [rng.normal(size=(3, 2)), rng.normal(size=2)]
    mine = [a.copy() for a in start]
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in start]
    groups = [{"params": theirs[:1], "weight_decay": 0.1}, {"params": theirs[1:], "weight_decay": 0.0}]
    adam, other = core.Adam(mine, decay=0.1), torch.optim.AdamW(groups, lr=0.01)
    for _ in range(5):
        g = [rng.normal(size=a.shape) for a in mine]
        adam.step(mine, g, 0.01)
        for p, x in zip(theirs, g, strict=True):
            p.grad = torch.tensor(x)
        other.step()
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b.detach(), rtol=1e-9)


def differences(loss, z, target, step=1e-6):
    found = np.zeros_like(z)
    for i in np.ndindex(z.shape):
        pair = [z.copy(), z.copy()]
        pair[0][i] += step
        pair[1][i] -= step
        found[i] = (loss(pair[0], target)[0] - loss(pair[1], target)[0]) / (2 * step)
    return found


@pytest.mark.parametrize("unknown", [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
def test_the_binary_loss(unknown):
    z = np.random.default_rng(0).normal(size=(5, 1)) * 3
    target = np.array(unknown, bool)
    p = 1 / (1 + np.exp(-z[:, 0]))
    terms = [-np.log(p[target]), -np.log(1 - p[~target])]
    value, gradient = core.binary(z, target)
    assert value == pytest.approx(np.mean([t.mean() for t in terms if len(t)]))  # each sort counts the same
    np.testing.assert_allclose(gradient, differences(core.binary, z, target), atol=1e-8)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 3], [0, 1, 2, 0, 0], [3, 3, 3, 3, 3]])
def test_the_loss_of_classes_and_none(labels):
    z, labels = np.random.default_rng(0).normal(size=(5, 4)) * 3, np.array(labels)
    terms = -log_softmax(z, axis=1)[np.arange(5), labels]
    value, gradient = core.classes(z, labels)
    assert value == pytest.approx(np.mean([t.mean() for t in (terms[labels < 3], terms[labels == 3]) if len(t)]))
    np.testing.assert_allclose(gradient, differences(core.classes, z, labels), atol=1e-8)


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_losses_of_huge_outputs_are_finite(size):
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        value, gradient = core.binary(np.array([[size], [-size]]), np.array([False, True]))
        assert value == pytest.approx(size)
        assert np.abs(gradient).max() == pytest.approx(0.5)
        assert core.classes(np.array([[0.0, size]]), np.array([0]))[0] == pytest.approx(size)


def test_the_learning_rate_falls_along_half_a_cosine():
    assert core.decay_rate(2.0, 0, 10) == 2.0
    assert core.decay_rate(2.0, 5, 10) == pytest.approx(1.0)
    assert core.decay_rate(2.0, 10, 10) == pytest.approx(0.0)


# The detector


def network(on, known=0, places=("features", "stages/first", "logits")):
    """Of random weights, but turned so that unknown images score higher."""
    rng = np.random.default_rng(3)
    x = np.concatenate([np.asarray(seen.read(on.train, p)) for p in places], axis=1)
    mean, std = seen.scale_of(x)
    xs, outputs = (x - mean) / std, known + 2 if known else 1
    unknown = np.concatenate([np.asarray(seen.read(on.unknown, p)) for p in places], axis=1)
    net = core.Layers.drawn([x.shape[1], 16, outputs], rng, 0.1)
    target = [on.labels, known] if known else [np.zeros(len(x), bool), True]
    rows = np.concatenate([xs, (unknown - mean) / std]).astype(np.float32)
    wanted = np.concatenate([target[0], np.full(len(unknown), target[1])])
    loss = core.classes if known else core.binary
    if known:
        wanted = np.where(wanted == known, known + 1, wanted)  # the last of c + 2
    trainer = core.LayersTrainer(net, loss, 60, rate=0.01)
    trainer.run(range(60), lambda step: {"x": rows, "targets": wanted}, lambda loss: None)
    return beside.as_detector(trainer.finished(), mean, std, places, known)


@pytest.mark.parametrize("known", [0, 5])
@pytest.mark.usefixtures("quick_graphs")
@pytest.mark.parametrize("name", CHECKS)
def test_the_network_keeps_the_promises_of_a_detector(name, known):
    on = problem()
    check_detector(given(network(on, known)), on=on, only=name)


@pytest.mark.parametrize("known", [0, 5])
def test_the_score_of_a_network(known):
    import torch

    on = problem()
    net = network(on, known)
    x = np.concatenate([on.known.features, on.known.stages["first"], log_softmax(on.known.logits, axis=1)], axis=1)
    z = torch_of(net)(torch.tensor((x - net.mean) / net.std)).detach()
    odds = z[:, 0] if not known else z[:, known:].logsumexp(1) - z[:, :known].logsumexp(1)
    np.testing.assert_allclose(net.score(on.known), odds, rtol=1e-9)
    shifted = replace(on.known, logits=on.known.logits + 7.0)  # known up to a constant
    np.testing.assert_allclose(net.score(shifted), net.score(on.known), rtol=1e-9)


def test_a_network_of_another_classifier_is_told():
    on = problem()
    net = network(on)
    with pytest.raises(InputError, match=r"reads 'stages/first', which these activations lack; they have: logits"):
        net.score(Activations(on.known.logits, on.known.features))
    with pytest.raises(UnsoundError, match="trained with unknown images"):
        Network.fit({}, None)


# Looking once


def test_every_image_is_looked_at_once_and_rows_are_theirs(model, images, monkeypatch, tmp_path):
    passed = []
    forward = type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda self, x, maps=(): (passed.append(len(x)), forward(self, x))[1])
    task = of(model, images, tmp_path)
    drawn = task.outliers.draw(seen.FEWEST, 0, 0, 0)
    passed.clear()
    found = seen.look(task)
    distinct = len(np.unique(drawn.reshape(len(drawn), -1), axis=0))
    assert sum(passed) == 400 + 200 + distinct
    expected = [forward(model, model.input.to_layout(task.known.inputs(x))) for x in (task.known.x[:9], drawn[-9:])]
    np.testing.assert_allclose(found.known["features"][:9], expected[0].features, atol=1e-6)
    np.testing.assert_allclose(found.outliers["stages/stage1"][-9:], expected[1].stages["stage1"], atol=1e-6)
    passed.clear()
    again = seen.look(task)
    assert not passed  # what was computed is in the folder
    np.testing.assert_array_equal(again.outliers["features"], found.outliers["features"])
    passed.clear()
    seen.look(of(toy_of_other_weights(tmp_path), images, tmp_path))
    assert passed  # of another classifier it is computed anew


def toy_of_other_weights(folder):
    import onnx
    from onnx import numpy_helper

    graph = toy.graph()
    for init in graph.graph.initializer:
        if init.name == "b2":
            init.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(init) + np.float32(0.1), "b2"))
    onnx.save(graph, folder / "other.onnx")
    return knownot.open_model(folder / "other.onnx")


def test_nan_is_an_error(model, images, monkeypatch):
    task = of(model, images)
    forward = type(model).forward

    def broken(self, x, maps=()):
        found = forward(self, x)
        return replace(found, features=np.where(found.features > 0, np.nan, found.features))

    monkeypatch.setattr(type(model), "forward", broken)
    with pytest.raises(ActivationsError, match="features are not finite"):
        seen.look(task)


def test_a_place_that_is_not_shown(model, images):
    with pytest.raises(UnsoundError, match=r"does not show 'stages/nine'; it shows: logits, features"):
        seen.look(of(model, images), ["stages/nine"])


def test_columns_that_do_not_vary_are_not_blown_up():
    mean, std = seen.scale_of(np.array([[1.0, 5.0], [3.0, 5.0]]))
    np.testing.assert_array_equal(mean, [2, 5])
    np.testing.assert_array_equal(std, [1, 1])


# The remedies


def test_a_remedy_stays_a_function_when_its_module_is_imported():
    for name in remedies.REMEDIES:
        remedies.remedy_class(name)
        assert getattr(remedies, name.replace("-", "_")).args == (name,)


@pytest.mark.parametrize("name", HEADS)
def test_it_learns_and_the_classifier_stays(name, model, images, tmp_path):
    before = model.fingerprint
    got = remedied(name, model, images)
    assert got.model is None
    assert got.opened is model
    assert model.fingerprint == before
    assert got.accuracy_before == got.accuracy_after > 0.9
    osc = got.fit(*images["known"], calibration=images["validation"][0], progress=False, guarantee="marginal")
    assert osc.detector.members[-1] == name == got.scorer
    alone = knownot.fit(
        got.opened, *images["known"], calibration=images["validation"][0], detector=got.recipe, progress=False,
        guarantee="marginal",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for unknown in (toy.unknown(100)[1::2], rng.integers(0, 256, (50, 16, 16, 3), dtype=np.uint8)):  # a kind left out
        assert auroc(alone.predict(images["test"][0]).score, alone.predict(unknown).score) > 0.97
        assert (osc.predict(unknown).label == -1).mean() > 0.97
    assert (osc.predict(images["test"][0]).label == -1).mean() < 0.12

    loaded = remedies.load(got.save(tmp_path / "saved"))
    batch = model.activations(model.input.to_layout(np.float32(images["test"][0][:20] / 255)))
    np.testing.assert_array_equal(loaded.detector.score(batch), got.detector.score(batch))
    knownot.load(osc.save(tmp_path / "osc"))


def test_flipped_targets_are_seen(model, images, monkeypatch):
    """The tests above can fail: with known and unknown exchanged, noise is what it takes for known."""
    flipped = lambda z, unknown: core.binary(z, ~unknown)  # noqa: E731
    monkeypatch.setattr(beside, "binary", flipped)
    got = remedied("discriminator", model, images)
    acts = [
        model.forward(model.input.to_layout(np.float32(x / 255))) for x in (images["test"][0], toy.unknown(99)[1::2])
    ]
    assert auroc(*(got.detector.score(a) for a in acts)) < 0.2


@pytest.mark.parametrize("name", HEADS)
def test_the_seed_decides(name, model, images):
    one, same, other = (remedied(name, model, images, epochs=1, seed=s).detector for s in (3, 3, 4))
    for a, b in zip(one.weights, same.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(one.weights[0], other.weights[0])


@pytest.mark.parametrize("after", [1, 7, 12])
def test_interrupted_and_resumed_is_as_if_nothing_had_been(after, model, images, tmp_path, monkeypatch):
    whole = remedied("discriminator", model, images, batch_size=64, folder=tmp_path / "whole")
    step, count = core.Adam.step, [0]

    def stopping(self, *args):
        count[0] += 1
        if count[0] == after:
            raise KeyboardInterrupt
        step(self, *args)

    monkeypatch.setattr(core.Adam, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        remedied("discriminator", model, images, batch_size=64, folder=tmp_path / "cut")
    monkeypatch.setattr(core.Adam, "step", step)
    count[0] = 0
    steps = []
    monkeypatch.setattr(core.Adam, "step", lambda self, *a: (steps.append(1), step(self, *a))[1])
    resumed = remedied("discriminator", model, images, batch_size=64, folder=tmp_path / "cut")
    assert len(steps) == 24 - (after - 1) // 6 * 6  # whole epochs are not done again
    assert resumed.history == whole.history
    for a, b in zip(resumed.detector.weights, whole.detector.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_damaged_checkpoint_is_said_and_one_of_another_training_left_alone(model, images, tmp_path):
    first = remedied("discriminator", model, images, folder=tmp_path)
    (file,) = tmp_path.glob("discriminator-*.npz")
    whole = file.read_bytes()
    file.write_bytes(b"no archive")
    with pytest.raises(OptionError, match=r"is no checkpoint, or damaged.* Delete it"):
        remedied("discriminator", model, images, folder=tmp_path)
    file.write_bytes(whole)
    again = remedied("discriminator", model, images, folder=tmp_path)
    np.testing.assert_array_equal(again.detector.weights[0], first.detector.weights[0])
    other = remedied("discriminator", model, images, folder=tmp_path, hidden=(8,))
    assert other.detector.weights[0].shape[1] == 8
    assert len(list(tmp_path.glob("discriminator-*.npz"))) == 2


def test_balanced_classes():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 90 + [1] * 10)
    rows = beside.balanced(beside.by_class(labels), 100, rng)
    assert np.bincount(labels[rows]).tolist() == [50, 50]
    assert len(set(rows[labels[rows] == 1])) == 10
    assert sorted(beside.spread(4, 8, rng)) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_options_are_checked(model, images):
    for options, message in (
        ({"hidden": (5, 0)}, "hidden=0"),
        ({"decay": -1}, "decay=-1"),
        ({"outliers": None}, "learns from outliers"),
        ({"mode": "full"}, "mode='full'"),
        ({"hiden": (3,)}, "Did you mean 'hidden'"),
    ):
        with pytest.raises(OptionError, match=message):
            remedied("discriminator", model, images, **options)
    one = {**images, "known": (images["known"][0][:60], np.zeros(60, int))}
    with pytest.raises(LabelsError, match="two classes"):
        remedied("none-head", model, one)


@pytest.mark.parametrize(("hidden", "layers"), [(0, 1), (7, 2), ((7, 5), 3)])
def test_layers_as_the_command_line_and_python_give_them(hidden, layers, model, images):
    got = remedied("discriminator", model, images, hidden=hidden, epochs=1, places="features,logits")
    assert len(got.detector.weights) == layers
    assert got.detector.places == ("features", "logits")
    assert got.detector.weights[0].shape[0] == 24 + 4


def test_on_the_command_line_the_scorer_comes_along(tmp_path, capsys):
    """retrain, then fit of the folder that it wrote, from the command line and from Python."""
    from knownot.cli import main

    path = toy.saved(tmp_path)
    known = toy.written(tmp_path / "known", *toy.known(150, 1))
    held = toy.written(tmp_path / "held", *toy.known(150, 2))
    names = tmp_path / "names.txt"
    names.write_text("\n".join(toy.CLASSES))
    common = ["-q", "--class-names", str(names)]
    retrain = ["retrain", "discriminator", str(path), str(known), "--outliers", "made:noise", "--validation", str(held)]
    options = ["--epochs", "1", "--hidden", "8", "-o", str(tmp_path / "new")]
    fit = ["fit", str(tmp_path / "new"), str(known), "--calibration", str(held), "-o", str(tmp_path / "osc")]
    for command in ([*retrain, *options, *common], [*fit, "--guarantee", "marginal", *common]):
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert not stop.value.code, capsys.readouterr()
    osc = knownot.load(tmp_path / "osc")
    assert osc.detector.members[-1] == "discriminator"
    loaded = remedies.load(tmp_path / "new")
    assert loaded.detector.weights[0].shape[1] == 8
    x = np.float32(toy.known(9, 4)[0] / 255).transpose(0, 3, 1, 2)
    seen_ = osc.model.forward(np.ascontiguousarray(x))
    np.testing.assert_allclose(osc.scores(seen_)[1][:, -1], loaded.detector.score(seen_), rtol=1e-5)

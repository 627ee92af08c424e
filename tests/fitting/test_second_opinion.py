"""A second opinion: detectors look with the eyes of another network while the classifier decides the class."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import knownot
from helpers import toy
from helpers.saved import edit_manifest
from knownot import Preprocess
from knownot.arrays import Activations
from knownot.benchmark import compare
from knownot.detectors import KNN, SSD, Auto, Detector, Mahalanobis
from knownot.detectors.auto import others
from knownot.detectors.combined import default_recipe
from knownot.errors import (
    ActivationsError,
    ImagesError,
    InputError,
    ModelError,
    OptionError,
    SavedError,
    UnsoundError,
)
from knownot.fitting.auxiliary import open_auxiliary

SIZE = 24  # of the second network's input; the classifier's is 16
ODD = Preprocess(height=SIZE, width=SIZE, scale=1 / 255, mean=(0.4, 0.5, 0.3), std=(0.2, 0.3, 0.25), name="odd")


def other_weights(channels: int = 3, seed: int = 11) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "w1": rng.normal(0, 0.4, (8, channels, 3, 3)).astype(np.float32),
        "b1": rng.normal(0, 0.1, 8).astype(np.float32),
        "w2": rng.normal(0, 0.2, (20, 8, 3, 3)).astype(np.float32),
        "b2": rng.normal(0, 0.1, 20).astype(np.float32),
        "w": rng.normal(0, 1, (7, 20)).astype(np.float32),
        "b": rng.normal(0, 1, 7).astype(np.float32),
    }


def network(end: str, channels: int = 3, batch: int | str = "n") -> onnx.ModelProto:
    """Two convolutions with random filters. end: "pool" (no head), "linear", "softmax", "sigmoid", or "nan" (pool; NaN
    where the image is bright)."""
    conv = {"strides": [2, 2], "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], **conv),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], **conv),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
    ]
    last = "f"
    if end in ("linear", "softmax", "sigmoid"):
        nodes.append(helper.make_node("Gemm", ["f", "w", "b"], ["z"], transB=1))
        last = "z"
    if end in ("softmax", "sigmoid"):
        nodes.append(helper.make_node({"softmax": "Softmax", "sigmoid": "Sigmoid"}[end], ["z"], ["s"]))
        last = "s"
    if end == "nan":  # sqrt(limit - mean of the image)
        nodes += [
            helper.make_node("ReduceMean", ["image"], ["m"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("Flatten", ["m"], ["mf"]),
            helper.make_node("Sub", ["limit", "mf"], ["below"]),
            helper.make_node("Sqrt", ["below"], ["root"]),
            helper.make_node("Add", ["f", "root"], ["out"]),
        ]
        last = "out"
    nodes.append(helper.make_node("Identity", [last], ["embedding"]))
    weights = other_weights(channels) | {"limit": np.array([2.0], np.float32)}
    made = helper.make_graph(
        nodes,
        "other",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, channels, SIZE, SIZE])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(x, name) for name, x in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def features_of(images: np.ndarray) -> dict[str, np.ndarray]:
    """What the other network shows for raw images, in float64 and by another route: Pillow, then NumPy."""
    from PIL import Image

    resized = np.stack([np.asarray(Image.fromarray(i).resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for i in images])
    x = (resized / 255.0 - np.array(ODD.mean)) / np.array(ODD.std)
    seen = toy.reference(x, other_weights())
    return {"features": seen["features"], "logits": seen["logits"], "stage1": seen["stage1"]}


@pytest.fixture(scope="module")
def sets():
    return {"known": toy.known(900, 2), "calibration": toy.known(500, 3), "test": toy.known(400, 4)}


def fitted(sets, features, features_preprocess=ODD, **options):
    given = {"detector": "default", "thumbnails": 4, "progress": False} | options
    return knownot.fit(
        toy.graph(), *sets["known"], calibration=sets["calibration"], features=features,
        features_preprocess=features_preprocess, **given,
    )  # fmt: skip


@pytest.fixture(scope="module")
def osc(sets):
    return fitted(sets, network("softmax"))


# What is shown


def test_the_second_network_sees_the_same_images_preprocessed_its_own_way(osc, sets):
    images = sets["test"][0][:40]
    (batch,) = knownot.open_images(images).batches(40, osc.preprocess, also=osc.second.preprocess)
    shown = osc.second.shown(batch)
    expected = features_of(images)
    assert set(shown) == {"features", "stages/stage1"}
    np.testing.assert_allclose(shown["features"], expected["features"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(shown["stages/stage1"], expected["stage1"], rtol=1e-4, atol=1e-4)


def test_the_default_gets_its_features_and_stages_as_members(osc):
    own = ("gen", "msp", "fdbd", "knn", "mahalanobis++", "mahalanobis++ stage1")
    assert osc.detector.members == (
        *own,
        "second knn",
        "second mahalanobis++",
        "second mahalanobis++ stage1",
    )
    places = [getattr(d, "of", None) for d in osc.detector.detectors]
    assert places[6:] == ["second/features", "second/features", "second/stages/stage1"]


def test_scores_of_its_features_equal_a_float64_reference(sets):
    detectors = {
        "k": KNN.recipe(of="second/features", k=3),
        "m": Mahalanobis.recipe(of="second/features"),
        "s": SSD.recipe(of="second/stages/stage1"),
    }
    osc = fitted(sets, network("softmax"), detector=detectors)
    images = sets["test"][0][:30]
    (batch,) = knownot.open_images(images).batches(30, osc.preprocess, also=osc.second.preprocess)
    from knownot.fitting.extraction import run_batch

    activations, _, _ = run_batch(osc.model, batch, osc.second)
    _, parts = osc.scores(activations)
    (known, labels), new = sets["known"], features_of(images)
    seen = features_of(known)

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    distances = np.linalg.norm(unit(new["features"])[:, None] - unit(seen["features"])[None], axis=2)
    np.testing.assert_allclose(parts[:, 0], np.sort(distances, axis=1)[:, 2], rtol=2e-2, atol=2e-4)

    means = np.stack([seen["features"][labels == c].mean(axis=0) for c in range(4)])
    centred = seen["features"] - means[labels]
    inverse = np.linalg.pinv(centred.T @ centred / len(centred), rcond=1e-10, hermitian=True)  # a dead channel
    gaps = new["features"][:, None] - means[None]
    np.testing.assert_allclose(parts[:, 1], np.einsum("ncd,de,nce->nc", gaps, inverse, gaps).min(axis=1), rtol=1e-2)

    rows, mean = unit(seen["stage1"]), unit(seen["stage1"]).mean(axis=0)
    inverse = np.linalg.pinv(np.cov(rows.T, bias=True), rcond=1e-10, hermitian=True)
    gap = unit(new["stage1"]) - mean
    np.testing.assert_allclose(parts[:, 2], np.einsum("nd,de,ne->n", gap, inverse, gap), rtol=2e-2)


def test_an_embedding_network_shows_its_output(sets):
    osc = fitted(sets, network("pool"))
    assert osc.detector.members[6:] == ("second knn", "second mahalanobis++")
    assert osc.record.second == "a second network (onnx embedding network) looks too, with its features"
    images = sets["test"][0][:20]
    (batch,) = knownot.open_images(images).batches(20, osc.preprocess, also=osc.second.preprocess)
    np.testing.assert_allclose(osc.second.shown(batch)["features"], features_of(images)["features"], rtol=1e-4)


@pytest.mark.parametrize(("embedding", "which"), [(False, "features"), (True, "logits")])
def test_a_linear_end_is_a_head_unless_said_to_be_an_embedding(sets, embedding, which):
    thing = network("linear")
    osc = fitted(sets, knownot.open_model(thing, embedding=True) if embedding else thing)
    images = sets["test"][0][:20]
    (batch,) = knownot.open_images(images).batches(20, osc.preprocess, also=osc.second.preprocess)
    np.testing.assert_allclose(osc.second.shown(batch)["features"], features_of(images)[which], rtol=1e-3, atol=1e-4)
    said = [note for note in osc.record.notes if "open it with embedding=True" in note]
    assert bool(said) != embedding


def test_a_sigmoid_end_is_an_embedding(sets):
    osc = fitted(sets, network("sigmoid"))
    images = sets["test"][0][:20]
    (batch,) = knownot.open_images(images).batches(20, osc.preprocess, also=osc.second.preprocess)
    expected = 1 / (1 + np.exp(-features_of(images)["logits"]))
    np.testing.assert_allclose(osc.second.shown(batch)["features"], expected, rtol=1e-3, atol=1e-5)


def test_named_stages_of_an_embedding_network(sets):
    model = knownot.open_model(network("pool"), embedding=True, stages=["r1"])
    assert model.capabilities.stages == ("stage1",)
    osc = fitted(sets, model)
    assert osc.detector.members[-1] == "second mahalanobis++ stage1"
    images = sets["test"][0][:20]
    (batch,) = knownot.open_images(images).batches(20, osc.preprocess, also=osc.second.preprocess)
    expected = features_of(images)["stage1"]
    np.testing.assert_allclose(osc.second.shown(batch)["stages/stage1"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # Keras 3 on tensorflow, when it saves
def test_torch_and_keras_embedding_networks(sets, tmp_path):
    torch = pytest.importorskip("torch")
    w = {name: torch.from_numpy(x) for name, x in other_weights().items()}

    class Eyes(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w1, self.b1 = torch.nn.Parameter(w["w1"]), torch.nn.Parameter(w["b1"])
            self.w2, self.b2 = torch.nn.Parameter(w["w2"]), torch.nn.Parameter(w["b2"])

        def forward(self, x):
            x = torch.relu(torch.nn.functional.conv2d(x, self.w1, self.b1, stride=2, padding=1))
            return torch.relu(torch.nn.functional.conv2d(x, self.w2, self.b2, stride=2, padding=1)).mean(dim=(2, 3))

    images = sets["test"][0][:20]
    osc = fitted(sets, knownot.open_model(Eyes(), embedding=True, size=(SIZE, SIZE)))
    (batch,) = knownot.open_images(images).batches(20, osc.preprocess, also=osc.second.preprocess)
    np.testing.assert_allclose(osc.second.shown(batch)["features"], features_of(images)["features"], rtol=1e-3)
    before = osc.predict(images)
    loaded = knownot.load(osc.save(tmp_path / "torch"))
    np.testing.assert_array_equal(loaded.predict(images).score, before.score)

    keras = pytest.importorskip("keras")
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(20, 3, activation="relu")(inputs)
    eyes = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    osc = fitted(sets, eyes)  # found by itself to be no classifier
    assert osc.record.second.startswith("a second network (keras embedding network)")
    (batch,) = knownot.open_images(images).batches(20, osc.preprocess, also=osc.second.preprocess)
    expected = keras.ops.convert_to_numpy(eyes(batch.also))
    np.testing.assert_allclose(osc.second.shown(batch)["features"], expected, rtol=1e-4, atol=1e-6)
    before = osc.predict(images)
    loaded = knownot.load(osc.save(tmp_path / "keras"))
    np.testing.assert_array_equal(loaded.predict(images).score, before.score)


# What it is good for


def colours(n, seed, which):
    """Pictures [n, 16, 16, 3] of a brightness pattern per class, all of one hue: that of known images, or another."""
    rng = np.random.default_rng(seed)
    images, labels = toy.known(n, seed)
    grey = images.astype(np.float64).mean(axis=3, keepdims=True)
    tint = {"known": (1.25, 0.875, 0.875), "unknown": (0.7, 1.0, 1.3)}[which]
    tint = tint / (np.array(tint) @ (0.299, 0.587, 0.114))  # of equal luma: a grey copy shows no difference
    return np.clip(np.rint(grey * tint + rng.normal(0, 1, grey.shape)), 0, 255).astype(np.uint8), labels


def colour_blind() -> onnx.ModelProto:
    """The toy classifier behind a grey filter."""
    made = toy.graph()
    grey = np.tile(np.array([0.299, 0.587, 0.114], np.float32)[None, :, None, None], (3, 1, 1, 1))
    made.graph.initializer.append(numpy_helper.from_array(grey, "grey"))
    made.graph.node[0].input[0] = "greyed"
    made.graph.node.insert(0, helper.make_node("Conv", ["image", "grey"], ["greyed"], kernel_shape=[1, 1]))
    return made


@pytest.mark.parametrize(("end", "caught"), [("pool", 0.85), ("softmax", 0.98)])
def test_it_catches_what_the_classifier_cannot_see(end, caught):
    """Unknown: the patterns of the known classes in another colour, of equal luma. The classifier is colour-blind."""
    sets = [colours(n, seed, which) for n, seed, which in SETS]
    known, held, new, unknown = ((x[y < 2], y[y < 2]) for x, y in sets)  # two classes that grey pictures tell apart
    way = Preprocess(scale=1 / 255, name="[0, 1]")
    options = {"calibration": held, "preprocess": way, "thumbnails": 0, "alpha": 0.05, "progress": False}
    alone = knownot.fit(colour_blind(), *known, **options)
    both = knownot.fit(colour_blind(), *known, features=network(end), features_preprocess=ODD, **options)
    assert alone.record.accuracy > 0.95
    assert alone.predict(unknown[0]).unknown.mean() < 0.1
    assert both.predict(unknown[0]).unknown.mean() > caught
    for osc in (alone, both):
        assert osc.predict(new[0]).unknown.mean() < 0.05  # the promise holds as before
    np.testing.assert_array_equal(both.predict(unknown[0]).closed_label, alone.predict(unknown[0]).closed_label)


SETS = ((1200, 2, "known"), (2400, 3, "known"), (1500, 4, "known"), (700, 5, "unknown"))


# Once


def test_one_forward_pass_per_network_and_image(sets):
    seen = []

    def eyes(x):
        seen.append(len(x))
        return x.mean(axis=(1, 2))

    model = knownot.open_model(eyes, embedding=True, size=(SIZE, SIZE))
    classifier = knownot.open_model(toy.graph())
    forward, passed = classifier.forward, []
    classifier.forward = lambda x, *more: passed.append(len(x)) or forward(x, *more)
    seen.clear()
    osc = knownot.fit(
        classifier, *sets["known"], calibration=sets["calibration"], features=model, features_preprocess=ODD,
        preprocess=Preprocess(scale=1 / 255), progress=False,
    )  # fmt: skip
    assert sum(seen) == sum(passed) == 900 + 500
    seen.clear()
    passed.clear()
    osc.predict(sets["test"][0])
    assert sum(seen) == sum(passed) == 400


# Preprocessing


def test_a_classifier_of_the_same_classes_finds_its_preprocessing_by_accuracy(sets):
    osc = fitted(sets, knownot.open_model(toy.graph()), None)
    assert osc.second.preprocess.name == "[0, 1]"
    assert any(note.startswith("Second network: Preprocessing found by accuracy") for note in osc.record.notes)
    assert not any(note.startswith("Second network") for note in [osc.record.preprocessing])


@pytest.mark.parametrize("end", ["pool", "softmax"])
def test_without_preprocessing_it_is_an_error(sets, end):
    with pytest.raises(
        OptionError, match=r"second network \(features=\) expects its images is not known.*features_prep"
    ):
        fitted(sets, network(end), None)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (lambda w: np.random.default_rng(0).normal(size=w.shape), r"right on at most .*features_preprocess="),
        (lambda w: w[[1, 2, 3, 0]], r"could not be found by its accuracy.*features_preprocess=.*another order"),
    ],
)
def test_a_classifier_of_as_many_other_classes_asks_for_preprocessing(sets, weight, message):
    other = toy.graph()
    for tensor in other.graph.initializer:
        if tensor.name in ("w", "b"):
            turned = weight(numpy_helper.to_array(tensor)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(turned, tensor.name))
    with pytest.raises(OptionError, match=message):
        fitted(sets, other, None)


def test_preprocessing_of_another_size_than_its_input(sets):
    with pytest.raises(OptionError, match=r"second network.*features_preprocess= makes images of 20×20"):
        fitted(sets, network("pool"), Preprocess(height=20, width=20))


def test_a_size_has_to_be_known(tmp_path, sets):
    folder = toy.written(tmp_path / "sizes", *(x[:300] for x in sets["known"]))
    from PIL import Image

    Image.new("RGB", (30, 20)).save(folder / "blue" / "0.png")
    with pytest.raises(ImagesError, match=r"second network.*features_preprocess=knownot.Preprocess"):
        knownot.fit(
            toy.graph(), folder, class_names=toy.CLASSES, features=lambda x: x.mean(axis=(1, 2)),
            features_preprocess=Preprocess(scale=1 / 255), progress=False,
        )  # fmt: skip


def test_options_that_belong_together(sets):
    with pytest.raises(OptionError, match="without features="):
        fitted(sets, None)
    with pytest.raises(UnsoundError, match=r"second network.*features=other_network"):
        fitted(sets, None, None, detector=KNN.recipe(of="second/features"))
    with pytest.raises(OptionError, match=r"place in this classifier.*second/features"):
        fitted(sets, network("softmax"), detector=KNN.recipe(of="second/feature"))
    with pytest.raises(ModelError, match="no classes"):
        knownot.fit(knownot.open_model(network("pool"), embedding=True), *sets["known"])
    with pytest.raises(ModelError, match="shows no features"):
        fitted(sets, knownot.open_model(lambda x: np.full((len(x), 3), 1 / 3), size=(SIZE, SIZE)))
    with pytest.raises(ModelError, match="has no head"):
        knownot.open_model(network("linear"), embedding=True, head="z")
    with pytest.raises(ModelError, match="open already"):
        knownot.open_model(knownot.open_model(network("linear")), embedding=True)
    with pytest.raises(ModelError, match="There is no file"):
        fitted(sets, "nowhere.onnx")


# Float arrays


def ready(images):
    return (images / np.float32(255)).astype(np.float32)


def test_float_arrays_go_to_both_unchanged(sets):
    given = []

    def eyes(x):
        given.append(x)
        return x.mean(axis=(1, 2))

    model = knownot.open_model(eyes, embedding=True, size=(16, 16))
    (known, labels), (held, _), (new, _) = sets["known"], sets["calibration"], sets["test"]
    osc = knownot.fit(toy.graph(), ready(known), labels, calibration=ready(held), features=model, progress=False)
    given.clear()
    osc.predict(ready(new))
    np.testing.assert_array_equal(np.concatenate(given), ready(new))
    with pytest.raises(ImagesError, match="fitted on float arrays"):
        osc.predict(new)


def test_float_arrays_that_cannot_be_the_input_of_both(sets):
    (known, labels), _ = sets["known"], None
    with pytest.raises(ImagesError, match=r"16×16×3.*24×24×3.*uint8"):
        knownot.fit(toy.graph(), ready(known), labels, features=network("pool"), progress=False)
    with pytest.raises(OptionError, match="float arrays"):
        knownot.fit(toy.graph(), ready(known), labels, features=lambda x: x.mean((1, 2)), features_preprocess=ODD)


def test_float_arrays_after_a_fit_on_raw_images(osc, sets):
    with pytest.raises(ImagesError, match=r"second network.*another way"):
        osc.predict(ready(sets["test"][0]))
    same = fitted(sets, knownot.open_model(toy.graph()), None)
    raw, own = same.predict(sets["test"][0]), same.predict(ready(sets["test"][0]))
    np.testing.assert_allclose(own.score, raw.score, rtol=1e-3, atol=1e-3)


def test_another_layout_is_turned_and_another_number_of_channels_is_an_error(sets):
    images = sets["test"][0][:10]

    def eyes(x):
        assert x.shape[1:] == (3, SIZE, SIZE)
        return x.mean(axis=(2, 3))

    osc = fitted(sets, knownot.open_model(eyes, embedding=True, size=(SIZE, SIZE), layout="NCHW"))
    assert len(osc.predict(images)) == 10
    with pytest.raises(InputError, match="does not fit"):
        fitted(sets, network("pool", channels=1))
    grey = Preprocess(height=SIZE, width=SIZE, channels="grey", scale=1 / 255)
    assert len(fitted(sets, network("pool", channels=1), grey).predict(images)) == 10


# NaN


def test_nan_embeddings_are_rows_with_a_reason(sets):
    osc = fitted(sets, network("nan"))
    images = sets["test"][0][:12].copy()
    images[[3, 7]] = 255  # bright: the embedding is NaN, the classifier's activations are not
    verdicts = osc.predict(images)
    reasons = [e for e in verdicts.error if e]
    assert [i for i, e in enumerate(verdicts.error) if e] == [3, 7]
    assert set(reasons) == {"the second network computes NaN or infinity for this image"}
    others = np.setdiff1d(np.arange(12), [3, 7])
    np.testing.assert_allclose(verdicts.score[others], osc.predict(images[others]).score, rtol=1e-4)
    with pytest.raises(ActivationsError, match="The second network's features are not finite"):
        osc.predict(np.full((5, 16, 16, 3), 255, np.uint8))


class Blind(Detector):
    """Sees nothing, so that whoever does takes its place."""

    needs = frozenset({"probabilities"})

    @classmethod
    def fit(cls, statistics, head, **options):
        return cls()

    def score(self, batch):
        return batch.logits[:, 0] * 0


def test_auto_chooses_with_the_second_network_in_view():
    """The classifier is colour-blind: made images have to pass both networks to tell."""
    known, held, new, unknown = (colours(n, seed, which) for n, seed, which in SETS)
    known, held, new, unknown = ((x[y < 2], y[y < 2]) for x, y in (known, held, new, unknown))
    start = {"blind": Blind.recipe()}
    other = {"second mahalanobis++": Mahalanobis.recipe(unit=True, of="second/features")}
    passed = []
    eyes = knownot.open_model(network("pool"), embedding=True)
    forward = eyes.forward
    eyes.forward = lambda x, *more: passed.append(x.shape[0]) or forward(x, *more)
    osc = knownot.fit(
        colour_blind(), *known, calibration=held, preprocess=Preprocess(scale=1 / 255, name="[0, 1]"), features=eyes,
        features_preprocess=ODD, detector=Auto.recipe(candidates=start | other, start=1), thumbnails=0, progress=False,
    )  # fmt: skip
    assert sum(passed) == len(known[0]) + len(held[0]) + osc.record.made
    assert osc.record.made == 64 * 19
    by = {c.detector: c for c in osc.record.checks}
    assert set(by) == {*start, *other}
    assert set(by["second mahalanobis++"].auroc) > {"mixup", "solid"}
    assert by["second mahalanobis++"].verdict == "added"
    assert by["blind"].verdict == "dropped"
    assert osc.predict(unknown[0]).unknown.mean() > 0.7
    assert osc.predict(new[0]).unknown.mean() < 0.06


def test_made_images_are_remade_from_the_larger_network_and_each_gets_its_own_preprocessing(monkeypatch):
    from knownot.fitting.auxiliary import Auxiliary
    from knownot.fitting.extraction import Extractor
    from knownot.fitting.remade import pixels_of
    from knownot.fitting.sampling import Subsample
    from knownot.selection import diagnostics as evidence

    images, labels = toy.known(120, 7)
    classifier, other = knownot.open_model(toy.graph()), knownot.open_model(network("pool"), embedding=True)
    way = Preprocess(16, 16, scale=1 / 255)
    cropped = replace(ODD, crop_share=0.875)
    second = Auxiliary(other, cropped)
    seen = Subsample(100, 50, 0)
    walk = Extractor(classifier, way, 64, second)
    source = knownot.open_images(images, labels)
    assert sum(len(a) for a, _ in walk.run(source, "x", (seen,), names=toy.CLASSES)) == 120
    x, _ = seen.pictures()
    assert x.shape[1:] == (SIZE, SIZE, 3)  # the second network's input is the larger one
    pictures, _ = pixels_of(x, cropped)
    monkeypatch.setattr(evidence, "make", lambda kind, n, *, like, labels, seed: like[:10])  # nothing is changed
    found = evidence.answers(walk, x, labels[:100], each=10, seed=0)["uniform"]
    expected = second.model.forward(other.input.to_layout(x[:10])).features
    np.testing.assert_allclose(found.second["features"], expected, rtol=1e-4, atol=1e-5)  # not cropped again
    from knownot.images.preprocess import apply

    own = classifier.activations(np.stack([apply(p, way) for p in pictures[:10]])).features
    np.testing.assert_allclose(found.features, own, rtol=1e-4, atol=1e-5)


def test_the_automatic_choice_has_candidates_that_look_at_the_second_network():
    capabilities = replace(
        knownot.open_model(toy.graph()).capabilities, second=("second/features", "second/stages/stage1")
    )
    capabilities = replace(capabilities, outputs=capabilities.outputs | {"second"})
    members = dict(default_recipe(capabilities)[0].options["members"])
    found = others(capabilities, members)
    assert {n for n in found if n.startswith("second")} == {
        "second mahalanobis", "second relative-mahalanobis", "second rmds++", "second ssd",
    }  # fmt: skip
    assert all(r.options["of"] == "second/features" for n, r in found.items() if n.startswith("second"))
    few = others(capabilities, members, len(members) + 8)
    assert len(few) == 8
    assert len({r.needs() for r in few.values()}) >= 5  # a few of every kind, not the first of the table
    assert others(capabilities, members, 3) == {}


def test_compare_looks_with_the_second_network_too(sets):
    found = compare(
        toy.graph(), *sets["known"], calibration=sets["calibration"], test={"test": sets["test"]},
        unknown={"strange": toy.unknown(100)}, features=network("pool"), features_preprocess=ODD, progress=False,
        detectors={"default": "default", "eyes": Mahalanobis.recipe(unit=True, of="second/features")}, check=False,
    )  # fmt: skip
    assert set(found.false_alarms) == {"default", "eyes"}
    osc = fitted(sets, network("pool"), detector=Mahalanobis.recipe(unit=True, of="second/features"))
    np.testing.assert_allclose(found.scores["strange"]["eyes"], osc.predict(toy.unknown(100)).score, rtol=1e-4)
    with pytest.raises(OptionError, match="features_preprocess= was given without features="):
        compare(
            toy.graph(), *sets["known"], calibration=sets["calibration"], test={"test": sets["test"]},
            unknown={"strange": toy.unknown(100)}, features_preprocess=ODD, detectors=["gen"], progress=False,
        )  # fmt: skip


def test_activations_carry_it_along():
    x = Activations(np.zeros((3, 2)), None, {}, {}, second={"features": np.arange(3.0)[:, None]})
    again = Activations.concat([Activations.of(x.named()), x.take([2])])
    np.testing.assert_array_equal(again.named()["second/features"][:, 0], [0, 1, 2, 2])


def test_unreadable_images_stay_rows(osc, sets, tmp_path):
    folder = toy.written(tmp_path / "in", sets["test"][0][:9])
    (folder / "00004.png").write_bytes(b"no image")
    verdicts = osc.predict(folder)
    assert [bool(e) for e in verdicts.error] == [i == 4 for i in range(9)]
    kept = np.delete(np.arange(9), 4)
    np.testing.assert_allclose(verdicts.score[kept], osc.predict(sets["test"][0][:9][kept]).score, rtol=1e-4)


# Saved


def same_verdicts(after, before):
    for name in ("label", "p_value", "score", "closed_label", "confidence", "member_p_values"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), err_msg=name)


@pytest.fixture(scope="module")
def images(sets):
    return np.concatenate([sets["test"][0][:150], toy.unknown(50)])


@pytest.mark.parametrize("end", ["softmax", "pool", "linear"])
def test_round_trip_is_bit_identical(sets, images, tmp_path, end):
    osc = fitted(sets, knownot.open_model(network(end), embedding=end == "linear"))
    before = osc.predict(images)
    folder = osc.save(tmp_path / "osc")
    loaded = knownot.load(folder)
    same_verdicts(loaded.predict(images), before)
    assert loaded.second.preprocess == osc.second.preprocess
    assert loaded.preprocess == osc.preprocess
    assert loaded.record == osc.record
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert names == ["manifest.json", "model.onnx", "second/model.onnx", "state.safetensors"]
    same_verdicts(knownot.load(loaded.save(tmp_path / "again")).predict(images), before)


def test_left_out_and_given_again(osc, images, tmp_path):
    onnx.save(network("softmax"), tmp_path / "other.onnx")
    folder = osc.save(tmp_path / "osc", include_features=False)
    assert not (folder / "second").exists()
    with pytest.raises(SavedError, match=r"without its second network.*features=…"):
        knownot.load(folder)
    same_verdicts(knownot.load(folder, features=tmp_path / "other.onnx").predict(images), osc.predict(images))
    with pytest.raises(SavedError, match="not the second network that was fitted"):
        knownot.load(folder, features=network("linear", batch=1) and toy.graph())
    with pytest.raises(SavedError, match="not the second network that was fitted"):
        knownot.load(folder, features=knownot.open_model(network("softmax"), embedding=True))
    both = osc.save(tmp_path / "none", include_model=False)
    with pytest.raises(SavedError, match="without its classifier"):
        knownot.load(both, features=network("softmax"))
    with pytest.raises(SavedError, match="not the classifier that was fitted"):
        knownot.load(both, model=network("softmax"), features=network("softmax"))
    same_verdicts(
        knownot.load(both, model=toy.graph(), features=network("softmax")).predict(images), osc.predict(images)
    )


def test_a_function_is_left_out(sets, images, tmp_path):
    def eyes(x):
        return x.mean(axis=(1, 2))

    osc = fitted(sets, eyes)
    with pytest.raises(ModelError, match=r"second network.*include_features=False.*load\(folder, features"):
        osc.save(tmp_path / "osc")
    assert list(tmp_path.iterdir()) == []
    folder = osc.save(tmp_path / "osc", include_features=False)
    same_verdicts(knownot.load(folder, features=eyes).predict(images), osc.predict(images))


def test_a_second_network_that_is_none(sets, tmp_path):
    osc = knownot.fit(toy.graph(), *sets["known"], detector="energy", progress=False)
    folder = osc.save(tmp_path / "osc")
    assert knownot.load(folder).second is None
    with pytest.raises(SavedError, match="fitted without a second network"):
        knownot.load(folder, features=network("pool"))


def edited(folder, change):
    edit_manifest(folder, change)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "second" / "model.onnx").unlink(), "lacks the file 'second/model.onnx'"),
        (lambda f: (f / "second" / "model.onnx").write_bytes(b"x"), "truncated or changed"),
        (lambda f: shutil.copy(f / "model.onnx", f / "second" / "model.onnx"), "truncated or changed"),
        (lambda f: edited(f, lambda m: m["about"].pop("second")), "does not agree with itself on the second"),
        (lambda f: edited(f, lambda m: m["things"].pop("second_preprocess")), "does not agree with itself"),
        (lambda f: edited(f, lambda m: m["things"].update(second_preprocess="odd")), "does not agree with itself"),
        (lambda f: edited(f, lambda m: m["about"].update(second="odd")), "does not agree with itself"),
        (lambda f: edited(f, lambda m: m["about"]["second"].update(model_file="model.onnx")), "not the second network"),
        (lambda f: edited(f, lambda m: m["about"]["second"].update(model_file="../x.onnx")), "outside its folder"),
        (lambda f: edited(f, lambda m: m["files"].update({"second/../../x": "0"})), "outside its folder"),
        (lambda f: edited(f, lambda m: m["files"].update({"second\\..\\x": "0"})), "outside its folder"),
        (lambda f: edited(f, lambda m: m["files"].update({"/etc/hosts": "0"})), "outside its folder"),
        (lambda f: edited(f, lambda m: m["about"]["second"].update(stages=[])), "second network shows the stages"),
    ],
)
def test_damage_is_noticed(osc, tmp_path, damage, message):
    folder = osc.save(tmp_path / "osc")
    damage(folder)
    with pytest.raises(SavedError, match=message):
        knownot.load(folder)


# Told


def test_record_notes_and_report_name_it(osc, images, tmp_path):
    assert osc.record.second == "a second network (onnx classifier) looks too, with its features and 1 earlier stage"
    assert any(note.startswith("A second network (onnx classifier)") for note in osc.record.notes)
    assert any(note == "Second network: Preprocessing as given: odd." for note in osc.record.notes)
    knownot.write_report(osc, osc.predict(images), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "a second network (onnx classifier) looks too" in text
    assert "second knn" in text


def test_the_command_line(sets, tmp_path):
    toy.saved(tmp_path)
    onnx.save(network("linear"), tmp_path / "other.onnx")
    toy.written(tmp_path / "known", *(x[:500] for x in sets["known"]))
    toy.written(tmp_path / "held", *(x[:300] for x in sets["calibration"]))
    toy.written(tmp_path / "in", np.concatenate([sets["test"][0][:20], toy.unknown(20)]))
    (tmp_path / "mine.py").write_text("def eyes(x):\n    return x.mean(axis=(1, 2))\n")

    def run(*arguments):
        command = [sys.executable, "-m", "knownot", *arguments, "-q"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    fit = ("fit", "toy.onnx", "known", "--calibration", "held", "--class-names", "names.txt", "--guarantee", "marginal")
    (tmp_path / "names.txt").write_text("\n".join(toy.CLASSES))
    done = run(
        *fit,
        "--features",
        "other.onnx",
        "--features-preprocess",
        "[0, 1]",
        "--features-embedding",
        "-o",
        "osc",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["second"] == "a second network (onnx embedding network) looks too, with its features"
    assert facts["detectors"][-2:] == ["second knn", "second mahalanobis++"]
    assert knownot.load(tmp_path / "osc").second.model.width == 7
    done = run("predict", "osc", "in", "-o", "one.csv")
    assert done.returncode == 0, done.stderr

    done = run(
        *fit,
        "--features",
        "mine:eyes",
        "--features-preprocess",
        "[0, 1]",
        "--features-size",
        "24",
        "--no-model",
        "-o",
        "two",
    )
    assert done.returncode == 0, done.stderr
    done = run("predict", "two", "in", "--model", "toy.onnx", "-o", "two.csv")
    assert done.returncode == 1
    assert "give load(folder, features=…)" in done.stderr
    done = run("predict", "two", "in", "--model", "toy.onnx", "--features", "mine:eyes", "-o", "two.csv")
    assert done.returncode == 0, done.stderr
    for name in ("one.csv", "two.csv"):
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            status = [row["status"] for row in csv.DictReader(file)]
        assert status[20:].count("unknown") == 20, name
        assert status[:20].count("known") >= 16, name

    done = run(*fit, "--features-size", "24", "-o", "three")
    assert done.returncode == 1
    assert "--features, which is missing" in done.stderr


def test_what_is_opened_as_what():
    assert open_auxiliary(network("softmax")).capabilities.classes == 7
    assert open_auxiliary(network("pool")).capabilities.classes == 0
    assert open_auxiliary(network("linear"), embedding=True).width == 7
    one, other = (knownot.open_model(network("linear"), embedding=e).fingerprint for e in (False, True))
    assert one != other


# Real


def test_resnet20_with_the_eyes_of_resnet8(shared):
    from helpers.resnet import MEAN, STD, resnet20
    from knownot.measure import auroc

    pytest.importorskip("keras")
    known = knownot.open_images(shared / "cifar10" / "train-20000.parquet").sample(400, 1)
    test = knownot.open_images(shared / "cifar10" / "test.parquet").sample(600, 1)
    letters = knownot.open_images(shared / "unknown" / "notmnist.parquet").sample(300, 1)
    way = Preprocess(scale=1 / 255, mean=MEAN, std=STD, name="ImageNet mean/std")
    options = {"guarantee": "marginal", "preprocess": way, "thumbnails": 0, "progress": False}
    model = knownot.open_model(resnet20(shared), size=(32, 32))
    osc = knownot.fit(model, known, features=shared / "models" / "resnet8-cifar10-keras.h5", **options)
    assert osc.second.preprocess.name == "[0, 255]"  # found by its own accuracy; the classifier's is another
    assert any(name.startswith("second mahalanobis++ stage") for name in osc.detector.members)
    inside, outside = osc.predict(test), osc.predict(letters)
    assert inside.unknown.mean() < 0.2  # forty images that the network was trained on set the threshold
    assert auroc(inside.score, outside.score) > 0.85

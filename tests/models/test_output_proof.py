"""torch: an output that is neither logits nor their softmax is said, not read as one."""

import contextlib
import dataclasses
import warnings

import numpy as np
import pytest

from knownot.errors import ModelError
from knownot.models import open_model
from knownot.models.base import verify_output

torch = pytest.importorskip("torch")


class Then(torch.nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, z):
        return self.what(z)


def network(what):
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 4)
    head.weight.data *= 12
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    return torch.nn.Sequential(*net, head, Then(what)).eval()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda z: torch.softmax(torch.softmax(z, 1), 1), "second softmax"),
        (lambda z: 100 * torch.softmax(z, 1), "percentages"),
        (lambda z: -torch.log_softmax(z, 1), "negative logarithms"),
    ],
)
def test_what_is_no_output_of_a_classifier_is_refused(what, says):
    with pytest.raises(ModelError, match=says):
        open_model(network(what), size=(16, 16))


@pytest.mark.parametrize("what", [lambda z: z, lambda z: torch.softmax(z, 1), lambda z: torch.log_softmax(z, 1)])
def test_logits_probabilities_and_their_logarithms_are_read(what):
    opened = open_model(network(what), size=(16, 16))
    assert {"logits", "head"} <= opened.capabilities.outputs


def test_what_proves_an_output():
    z = np.random.default_rng(0).normal(0, 3, (5, 4))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    for own in (z, p, np.log(p), p + 1e-3):
        verify_output(z, own)
    for own in (100 * p, -np.log(p), p**2, 2 * z):
        with pytest.raises(ModelError):
            verify_output(z, own)
    with pytest.raises(ModelError):
        verify_output(100 * p, 100 * p)  # offered as logits


@dataclasses.dataclass
class Wrapped:
    """An output of a class of another library."""

    loss: object
    logits: object


class Wrapping(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = network(lambda z: z)

    def forward(self, x):
        return Wrapped(None, self.inner(x))


def test_what_is_saved_gives_plain_scores(tmp_path):
    """So that it opens where the class of the output is not known."""
    with contextlib.suppress(ValueError):  # registered already
        torch.export.register_dataclass(Wrapped, serialized_type_name="tests.Wrapped")
    opened = open_model(Wrapping().eval(), size=(16, 16))
    name = opened.save(tmp_path)
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        read = torch.jit.load if name.endswith(".ts") else lambda path: torch.export.load(path).module()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates reading TorchScript
            given = read(str(tmp_path / name))(x)
    assert isinstance(given, torch.Tensor)
    np.testing.assert_allclose(given.numpy(), opened.activations(x.numpy()).logits, atol=1e-5)

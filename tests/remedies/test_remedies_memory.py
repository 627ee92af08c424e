"""Training within a given memory: a step in parts is the same step, and no more is computed at once than fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from helpers.remedies import TRAIN, keras_net, torch_net
from helpers.retraining import retrained, still, weights
from knownot.errors import OptionError
from knownot.fitting.extraction import batch_size
from knownot.remedies.training import data, losses
from knownot.remedies.training.data import Pool
from knownot.remedies.training.loop import Steps
from knownot.remedies.training.memory import DEFAULT, PASSING, Cost, bytes_of, estimate, joined, split

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def test_sizes_as_people_write_them():
    assert bytes_of("4GB") == bytes_of("4 gb") == bytes_of("4G") == bytes_of(4e9) == 4_000_000_000
    assert bytes_of("1.5 GiB") == 3 << 29
    assert bytes_of(None) == DEFAULT
    for bad in ("four", "4XB", "-1GB", "", "900", True):
        with pytest.raises(OptionError, match="memory="):
            bytes_of(bad)


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("parts", [1, 2, 3, 7, 40])
def test_the_means_of_the_parts_add_up(parts, equal):
    rng = np.random.default_rng(parts)
    n = 29
    known = (np.arange(n) < 20).astype(np.float32)
    batch = {
        "x": rng.normal(size=(n, 2)), "targets": rng.dirichlet(np.ones(3), n), "known": known, "outlier": 1 - known,
        "tail": rng.normal(size=(29, 5)),
    }  # fmt: skip
    xp = losses.namespace("numpy")

    def loss(part):
        logits = part["x"] @ np.array([[1.0, 2, -1], [0, 1, 3]])
        return losses.cross_entropy(xp, logits, part["targets"], part["known"]) + 0.5 * losses.uniform_cross_entropy(
            xp, logits, part["outlier"]
        )

    cut = split(batch, parts, ("tail",), equal=equal)
    assert all(np.array_equal(part["tail"], batch["tail"]) for part in cut)
    if equal:
        assert len({len(part["x"]) for part in cut}) == 1
    else:
        assert sum(len(part["x"]) for part in cut) == n
    assert sum(loss(joined(part)) for part in cut) == pytest.approx(loss(batch), rel=1e-12)


def test_parts_keep_within_the_budget_whatever_the_size_of_the_input():
    for side in (32, 64, 224, 299):
        cost = Cost(image=1400 * side * side, values=12 * side * side, weights=14_000_000)
        for memory in (None, "1.5GB", "4GB"):
            at_once = -(-192 // cost.parts(192, memory))
            assert at_once == 1 or cost.of(192, at_once) <= bytes_of(memory)
    assert Cost(1000, 10, 1000).parts(192, None) == 1
    assert Cost(image=1400 * 224 * 224, values=12 * 224 * 224, weights=14_000_000).parts(192, None) > 5
    with pytest.raises(OptionError, match="is too little"):
        Cost(image=10**8, values=10**6, weights=10**7).parts(192, "50MB")


def apart(one: Any, other: Any) -> float:
    """The mean difference of the weights of the convolutions, which all have the same shape."""
    pairs = [(a, b) for a, b in zip(weights(one), weights(other), strict=True) if a.ndim == 4]
    return float(np.mean([np.abs(a - b).mean() for a, b in pairs]))


@pytest.mark.parametrize("remedy", ["none-class", "energy-margin", "rotpred", "objectosphere", "vos"])
def test_a_step_in_parts_is_the_same_step_in_torch(remedy, monkeypatch):
    options: dict[str, Any] = {"mode": "full"} if remedy == "vos" else {}
    whole = retrained(remedy, still("torch"), tolerance=None, **options)
    monkeypatch.setattr(Cost, "parts", lambda self, rows, memory: -(-rows // 13))
    parted = retrained(remedy, still("torch"), tolerance=None, **options)
    assert apart(whole.model, parted.model) < 1e-6
    assert apart(torch_net(), whole.model) > 1e-4
    for one, other in zip(whole.history, parted.history, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_a_step_in_parts_is_the_same_step_in_keras(monkeypatch):
    whole = retrained("none-class", still("keras"), tolerance=None)
    monkeypatch.setattr(Cost, "parts", lambda self, rows, memory: 7)
    parted = retrained("none-class", still("keras"), tolerance=None)
    assert apart(whole.model, parted.model) < 1e-6
    assert dict(whole.history[0]) == pytest.approx(dict(parted.history[0]), rel=1e-4)


def test_no_more_is_computed_at_once_than_the_memory_asked_for(monkeypatch):
    from knownot.remedies.torch.training import ModuleTrainer

    seen: list[int] = []
    costs: list[Cost] = []
    run, cost = ModuleTrainer.outputs, ModuleTrainer._cost
    monkeypatch.setattr(
        ModuleTrainer, "outputs", lambda self, x, training: seen.append(len(x)) or run(self, x, training)
    )
    monkeypatch.setattr(ModuleTrainer, "_cost", lambda self: costs.append(cost(self)) or costs[-1])
    retrained("none-class", torch_net(), memory="1.6MB", tolerance=None)
    fixed = costs[0].of(96, 0)
    assert 1 < max(seen) < 96
    assert fixed + PASSING * max(seen) * costs[0].image <= 1.6e6
    x = 12 * 16 * 16  # what the layers of the toy network put out, in float32: 8 × 8 × 8 thrice, 4 × 4 × 12 twice
    assert costs[0].image == pytest.approx(4 * (3 * 512 + 2 * 192) + x, rel=0.35)


def test_the_cost_of_a_keras_network_is_in_the_same_order():
    from knownot.remedies.keras.training import cost_of
    from knownot.remedies.training.fine_tuning import Job

    job = Job(np.zeros((4, 12)), np.zeros(4), lambda *_: 0, None, 0.1, 1, rows=96, shape=(16, 16, 3))  # type: ignore[arg-type]
    cost = cost_of(keras_net(), job)
    assert cost.values == 4 * 16 * 16 * 3
    assert 4 * (3 * 512 + 2 * 192) <= cost.image <= 3 * 4 * (3 * 512 + 2 * 192)


def test_large_images_are_looked_at_in_smaller_batches():
    assert [batch_size(s, s) for s in (32, 96, 224, 299, 2000)] == [256, 256, 32, 16, 8]
    assert [batch_size(s, s, back=True) for s in (32, 224, 299, 2000)] == [256, 8, 4, 2]
    values = {s: s * s * 3 * batch_size(s, s) for s in (128, 224, 299, 500)}
    assert max(values.values()) <= 8e6
    pool = Pool(np.zeros((3, 224, 224, 3), np.uint8), np.zeros(3, np.int64), None)
    assert pool.at_once == 32


def test_images_in_a_file_stay_in_a_file(monkeypatch):
    monkeypatch.setattr(data, "IN_MEMORY", 10_000)
    store = data._Store()
    for i in range(0, 200, 50):
        store.add(TRAIN[0][i : i + 50])
    pool = Pool(store.joined(), TRAIN[1][:200], None)
    rows = np.arange(199, 0, -2)
    some = pool.take(rows)
    assert isinstance(some.x, np.memmap)
    np.testing.assert_array_equal(some.x, TRAIN[0][rows])
    np.testing.assert_array_equal(some.labels, TRAIN[1][rows])


def test_validation_batches_are_made_when_they_are_needed():
    made: list[int] = []
    steps = Steps(lambda i: made.append(i) or {"x": np.zeros(1)}, 3)
    assert len(steps) == 3
    assert not made
    assert len(list(steps)) == 3
    assert made == [0, 1, 2]


def test_what_it_takes_is_said_before(capsys):
    assert estimate(2_100_000_000, 370, 9) == (
        "train: about 2.1 GB and 6 minutes, each step in 9 parts (memory= sets the first)"
    )
    with torch.random.fork_rng():
        retrained("entropic", torch_net(), progress=True, tolerance=None)
    assert "train: about " in capsys.readouterr().err

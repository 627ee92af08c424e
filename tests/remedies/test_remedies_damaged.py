"""Checkpoints that were cut off or changed: one sentence, or computed again; never what zip and zlib say."""

import random
from pathlib import Path
from typing import Any

import numpy as np

from knownot.errors import OptionError
from knownot.remedies.training.activations import Store
from knownot.remedies.training.loop import _Progress, _resume, _save


class Trainer:
    def __init__(self) -> None:
        self.state = bytes(range(256)) * 8

    def dumped(self) -> bytes:
        return self.state

    def restore(self, state: bytes) -> None:
        self.restored = state


def damages(data: bytes, n: int = 150) -> Any:
    rng = random.Random(0)
    for _ in range(n):
        kind, at = rng.randrange(3), rng.randrange(len(data))
        if kind == 0:
            yield data[:at]
        elif kind == 1:
            yield data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        else:
            yield data[:at] + rng.randbytes(40) + data[at + 40 :]


def test_a_damaged_checkpoint_is_one_sentence_or_the_same_state(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.npz"
    _save(file, Trainer(), _Progress(step=3), b"best", "said")  # type: ignore[arg-type]
    said: list[str] = []
    for data in damages(file.read_bytes()):
        file.write_bytes(data)
        trainer = Trainer()
        try:
            at, best = _resume(trainer, file, "said")  # type: ignore[arg-type]
        except OptionError as error:
            said.append(str(error))
        else:
            assert (at.step, best, trainer.restored) == (3, b"best", trainer.state)
    assert len(said) > 100
    assert all("Delete it, or give another folder=" in text for text in said)


def test_damaged_states_of_features_are_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path, "activations", "key")
    store.save({"x": np.arange(500.0)})
    (file,) = tmp_path.iterdir()
    for data in damages(file.read_bytes(), 60):
        file.write_bytes(data)
        found = store.load()
        assert found == {} or np.array_equal(found["x"], np.arange(500.0))

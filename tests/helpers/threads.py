"""One model used by eight threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from knownot.models import Model

THREADS = 8
BATCHES = [np.random.default_rng(i).random((1 + i % 3, 3, 16, 16), dtype=np.float32) for i in range(3 * THREADS)]


def answers(model: Model, batch: np.ndarray) -> np.ndarray:
    own = batch if model.input.layout == "NCHW" else np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
    return model.forward(own).logits


def assert_alike_in_threads(models: Sequence[Model]) -> None:
    """Each batch by some thread, all at once, against the same one by one."""
    alone = [answers(models[i % len(models)], batch) for i, batch in enumerate(BATCHES)]
    gate = threading.Barrier(THREADS)

    def work(i: int) -> np.ndarray:
        if i < THREADS:
            gate.wait()
        return answers(models[i % len(models)], BATCHES[i])

    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(work, range(len(BATCHES))))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)

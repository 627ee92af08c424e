"""How sure a classifier is of noise, in `remedies.compare`."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from knownot.arrays import Activations, InputSpec
from knownot.remedies.comparison.measure import confident
from knownot.remedies.training.data import Pool


def test_many_large_images_go_through_the_network_a_few_at_a_time():
    """200 at 299 px at once took 7 GB."""
    sizes = []

    def forward(x):
        sizes.append(len(x))
        sure = x[:, 0, 0, 0] > 0.5
        return Activations(np.where(sure[:, None], [20.0, 0.0], [0.0, 0.0]))

    opened = SimpleNamespace(input=InputSpec(299, 299, 3, "NHWC"), forward=forward)
    x = np.zeros((70, 299, 299, 3), np.float32)
    x[:21] = 1
    pool = Pool(x[:1], np.zeros(1, np.int64), None)
    assert confident(opened, pool, x) == 0.3
    assert max(sizes) <= pool.at_once < 70
    assert sum(sizes) == 70

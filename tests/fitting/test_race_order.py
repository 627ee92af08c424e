"""Ways are dropped early only among images in an order drawn by chance: a folder gives one class after the other."""

import numpy as np

import knownot
from helpers import toy
from knownot.fitting.race import TrialData, race
from knownot.images import open_images


def test_folders_and_arrays_are_shuffled_before_anything_is_dropped(tmp_path):
    x, y = toy.known(200, 3)
    folder = toy.written(tmp_path / "known", x, y)
    order = np.argsort(y, kind="stable")
    for images in (open_images(folder), open_images(x[order], y[order])):
        some = images.sample(120, 0)
        mixed = some.shuffled(0)
        assert mixed.mixed
        assert not some.mixed
        first, all_ = next(iter(mixed.batches(32, None))), next(iter(mixed.batches(200, None)))
        assert len(set(first.labels.tolist())) == 4, "the first ones are of every class"
        before = next(iter(some.batches(200, None)))
        assert sorted(before.ids) == sorted(all_.ids)
        at = {name: i for i, name in enumerate(before.ids)}
        rows = [at[name] for name in all_.ids]
        np.testing.assert_array_equal(all_.x, before.x[rows])
        np.testing.assert_array_equal(all_.labels, before.labels[rows])


def test_in_the_order_of_the_source_nothing_is_dropped():
    """Those of the first class alone speak for the wrong way, and all together for the right one."""
    x, y = toy.known(400, 3)
    order = np.argsort(y != 2, kind="stable")  # red first
    model = knownot.open_model(toy.graph())
    ways = [knownot.Preprocess(scale=1 / 255), knownot.Preprocess(scale=1.0)]
    source = open_images(x[order], y[order])
    for images, dropped in ((source, False), (source.shuffled(0), True)):
        tried = race(TrialData(model, images, None, 64), ways)
        assert (tried[1].looked < 400) is dropped
        assert tried[0].accuracy > 0.97

"""Sources that shuffle or leave images out say so, at predict too."""

import warnings

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot import open_images
from knownot.errors import LabelsError
from knownot.images.order import order_notes

X, Y = toy.known(60, 3)
READY = (X / 255).astype(np.float32)


def made(name, **attributes):
    """An object of a class of this name, which gives batches of images."""

    def batches(self):
        return iter([READY[i : i + 20] for i in range(0, 60, 20)])

    return type(name, (), {"__iter__": batches, **attributes})()


class Spec:
    def __init__(self, *shape):
        self.shape = shape


def tf_like(*chain, **attributes):
    """Data sets of these names, each the input of the next."""
    source = made(chain[0])
    for name in chain[1:]:
        source = made(name, _inputs=lambda self, inner=source: [inner], **attributes)
    return source


SHUFFLING = {
    "torch": made("DataLoader", sampler=made("RandomSampler")),
    "weighted": made("DataLoader", sampler=made("WeightedRandomSampler")),
    "batch sampler": made("DataLoader", batch_sampler=made("BatchSampler", sampler=made("SubsetRandomSampler"))),
    "distributed": made("DataLoader", sampler=made("DistributedSampler", shuffle=True)),
    "tf.data": tf_like("_TensorSliceDataset", "_ShuffleDataset", "_ParallelMapDataset", "_BatchDataset"),
    "keras": made("DirectoryIterator", shuffle=True),
    "hugging face": made("IterableDataset", _ex_iterable=made("BufferShuffledExamplesIterable")),
    "pipe": made("DataLoader", sampler=None, datapipe=made("ShufflerIterDataPipe")),
}


@pytest.mark.parametrize("name", SHUFFLING)
def test_what_shuffles_is_told(name):
    source = SHUFFLING[name]
    assert any("shuffles: results come in its order" in note for note in order_notes(source))
    with pytest.raises(LabelsError, match="that shuffles"):
        open_images(source, Y)


@pytest.mark.parametrize(
    "source",
    [
        made("DataLoader", sampler=made("SequentialSampler"), shuffle=False, drop_last=False),
        tf_like("_TensorSliceDataset", "_BatchDataset", element_spec=Spec(None, 16, 16, 3)),
        [READY],
        made("RandomForest"),
    ],
)
def test_what_keeps_the_order_is_not(source):
    assert order_notes(source) == ()


@pytest.mark.parametrize(
    "source",
    [
        made("DataLoader", drop_last=True),
        made("DataLoader", batch_sampler=made("BatchSampler", drop_last=True)),
        tf_like("_TensorSliceDataset", "_BatchDataset", element_spec=(Spec(20, 16, 16, 3), Spec(20))),
        tf_like("_TensorSliceDataset", "_ParallelBatchDataset", element_spec={"image": Spec(20, 16, 16, 3)}),
    ],
)
def test_what_leaves_images_out_is_told(source):
    assert any("drop_last=True" in note for note in order_notes(source))


def test_predict_says_so():
    known = (READY, Y)
    osc = knownot.fit(toy.graph(), known, detector="msp", guarantee="marginal", progress=False)
    with pytest.warns(UserWarning, match="shuffles: results come in its order"):
        verdicts = osc.predict(SHUFFLING["tf.data"])
    assert len(verdicts) == 60
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        osc.predict(made("DataLoader"))


def test_a_process_s_share_is_told():
    source = made("DataLoader", sampler=made("DistributedSampler", shuffle=False))
    assert any("one process's share" in note for note in order_notes(source))

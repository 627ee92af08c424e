"""Real classifiers on real images; and Keras on its other backends, in one process each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import knownot
from helpers.resnet import MEAN, STD, cifar10, resnet20
from knownot import remedies
from knownot.outliers import make

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

NOISE = ("uniform", "gaussian", "salt-and-pepper", "noise")
HELD_OUT = "made:all," + ",".join(f"-{kind}" for kind in NOISE)


def classifier(name: str, shared: Path) -> tuple[Any, knownot.Preprocess]:
    if name == "resnet8-keras":
        return shared / "models/resnet8-cifar10-keras.h5", knownot.Preprocess()
    return resnet20(shared), knownot.Preprocess(scale=1 / 255, mean=MEAN, std=STD)


@pytest.mark.parametrize("name", ["resnet20-torch", "resnet8-keras"])
def test_noise_of_kinds_that_were_not_trained_on_is_rejected(name: str, shared: Path) -> None:
    """A none-class on features of 800 images, made outliers without any noise: accuracy within two points (600 images
    tell no less), and 99 of 100 images of each kind of noise, and of np.random.rand, are unknown, at 5 % false alarms.
    """
    model, way = classifier(name, shared)
    train, test = cifar10(shared, 800, "cifar10/train-20000.parquet"), cifar10(shared, 1200)
    validation, calibration = (tuple(x[rows] for x in test) for rows in (slice(600), slice(600, 1200)))
    done = remedies.none_class(
        model, *train, outliers=HELD_OUT, validation=validation, preprocess=way, mode="head", tolerance=0.02,
        progress=False,
    )  # fmt: skip
    osc = done.fit(*train, calibration=calibration, preprocess=way, guarantee="marginal", progress=False, thumbnails=0)
    assert "none-class" in osc.detector.members
    rand = np.random.RandomState(0).rand(100, 32, 32, 3)
    sets = {"np.random.rand": (255 * rand).astype(np.uint8)}
    sets |= {kind: make(kind, 100, like=validation[0], seed=7) for kind in NOISE}
    for kind, images in sets.items():
        assert (osc.predict(images).label < 0).mean() >= 0.99, kind
    assert (osc.predict(validation[0]).label < 0).mean() < 0.12


SCRIPT = """
from helpers.remedies import TRAIN, keras_net
from helpers.retraining import retrained, same
from knownot.remedies.training.batches import Plan

whole = retrained("none-class", keras_net(), epochs=2)
images = Plan.images

def interrupted(self, step):
    if step == 10 and len(self.known) == len(TRAIN[0]):
        raise KeyboardInterrupt
    return images(self, step)

Plan.images = interrupted
try:
    retrained("none-class", keras_net(), epochs=2, folder={folder!r}, save_every=4)
except KeyboardInterrupt:
    Plan.images = images
resumed = retrained("none-class", keras_net(), epochs=2, folder={folder!r}, save_every=4)
import keras
print(keras.backend.backend(), same(resumed.model, whole.model), whole.accuracy_after)
"""


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_other_backends_of_keras_train_and_resume_bit_for_bit(backend: str, elsewhere: Any, tmp_path: Path) -> None:
    printed = elsewhere(backend).run(SCRIPT.format(folder=str(tmp_path)))
    assert printed.split() == [backend, "True", "1.0"]

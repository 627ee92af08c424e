"""How photographs become the classifier's size: the framework's own way, unless another is clearly better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from knownot.arrays import Preprocess, usual_resizing
from knownot.fitting.preprocessing import choose
from knownot.images import open_images
from knownot.models import open_model

SIDE = 16
SAID = Preprocess(SIDE, SIDE, scale=1 / 255, name="said")


def brightest_side(batch):
    """float32 [n, 16, 16, 3] -> softmax of two classes: whether the left or the right half is brighter."""
    left, right = batch[:, :, : SIDE // 2].mean(axis=(1, 2, 3)), batch[:, :, SIDE // 2 :].mean(axis=(1, 2, 3))
    z = 20 * np.stack([left - right, right - left], axis=1)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def pictures(margin, width, n=200, seed=0):
    """uint8 [n, 64, width, 3]: one side a little brighter, and `margin` pixels at both edges that say the contrary."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    x = rng.integers(90, 110, (n, 64, width, 3)).astype(np.int64)
    for image, label in zip(x, labels, strict=True):
        half = np.s_[:, : width // 2] if label == 0 else np.s_[:, width // 2 :]
        image[half] += 8
        edge = np.s_[:, width - margin :] if label == 0 else np.s_[:, :margin]
        image[edge] += 140
    return x.clip(0, 255).astype(np.uint8), labels


def chosen(images, labels, said=SAID):
    model = open_model(brightest_side, size=(SIDE, SIDE))
    model.preprocess = said
    return choose(model, open_images(images, labels), None, None, batch_size=64)


def test_cut_from_a_larger_size_is_found():
    way, trials, _ = chosen(*pictures(margin=4, width=64))
    assert way == replace(SAID, crop_share=0.875, name="said — cut from 8/7 of its size")
    right = {trial.preprocess.name: trial.accuracy for trial in trials}
    assert right[way.name] > right["said"] + 0.3


def test_stretched_is_found_and_cut_where_stretching_was_said():
    images, labels = pictures(margin=30, width=192)
    images[:, :, 64:128] = 100  # the middle says nothing
    images, labels = images[..., ::1], 1 - labels  # the edges are right
    assert chosen(images, labels)[0].fit == "stretch"
    images, labels = pictures(margin=30, width=192)
    assert chosen(images, labels, replace(SAID, fit="stretch"))[0].fit == "crop"


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_what_was_said_stays_where_all_are_as_good(fit):
    """One image more that is right by chance decides nothing."""
    images, labels = pictures(margin=0, width=80)
    images[0] = 100
    images[0][:, 79:] = 255 if labels[0] == 1 else 0  # seen by stretching alone
    way, trials, _ = chosen(images, labels, replace(SAID, fit=fit))
    assert (way.fit, way.crop_share) == (fit, 1.0)
    assert len(trials) >= 3, "the other ways were looked at"


@pytest.mark.parametrize(
    ("stretches", "side", "usual"),
    [
        (True, 299, {"fit": "stretch"}),
        (True, 32, {"fit": "stretch"}),
        (False, 224, {"crop_share": 0.875}),
        (False, 32, {}),
        (False, None, {}),
    ],
)
def test_the_usual_resizing_is_that_of_the_loaders(stretches, side, usual):
    assert usual_resizing(stretches, side, side) == usual


def test_nothing_is_resized_where_nothing_has_to_be():
    images, labels = pictures(margin=0, width=64)
    way, trials, _ = chosen(images[:, ::4, ::4], labels)
    assert way == SAID
    assert len(trials) == 1


@pytest.mark.parametrize(
    ("stretches", "how"),
    [(True, "stretched to 16 × 16"), (False, "scaled to cover 16 × 16, and the middle is cut out")],
)
def test_a_classifier_that_says_nothing_gets_the_resizing_of_its_framework(stretches, how):
    model = open_model(brightest_side, size=(SIDE, SIDE))
    model.stretches = stretches
    way, _, notes = choose(model, open_images(*pictures(margin=0, width=80)), None, None, batch_size=64)
    assert way.fit == ("stretch" if stretches else "crop")
    assert any(how in note for note in notes)

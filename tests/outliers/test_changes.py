"""Usual changes of known images, against other libraries' and by what they must do."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from knownot.outliers.changes import CHANGES, LUMA, blurred, contrasted, grey, sharpened

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
IMAGES = np.stack([np.asarray(Image.fromarray(x).filter(ImageFilter.GaussianBlur(2))) for x in IMAGES])
RNG = np.random.default_rng(1)


@pytest.mark.parametrize("name", CHANGES)
def test_each_changes_images_a_little_and_leaves_them_as_they_were(name):
    before = IMAGES.copy()
    made = CHANGES[name].change(IMAGES, np.random.default_rng(2))
    assert made.shape == IMAGES.shape
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(IMAGES, before)
    difference = np.abs(made.astype(float) - IMAGES).mean()
    assert 0.1 < difference < 60
    wide = CHANGES[name].change(np.repeat(IMAGES, 2, axis=2), np.random.default_rng(2))
    assert wide.shape == (3, 32, 64, 3)


def test_blur_is_scipys():
    from scipy.ndimage import gaussian_filter

    theirs = gaussian_filter(IMAGES.astype(np.float32), (0, 0.8, 0.8, 0), mode="nearest", truncate=3.75)
    assert np.abs(blurred(IMAGES, RNG, sigma=0.8).astype(float) - theirs).max() <= 0.6


def test_grey_and_contrast_are_pillows():
    for image, ours in zip(IMAGES, grey(IMAGES, RNG), strict=True):
        assert np.abs(np.asarray(Image.fromarray(image).convert("L")).astype(int) - ours[..., 0]).max() <= 1
    for image, ours in zip(IMAGES, contrasted(IMAGES, RNG, by=0.6), strict=True):
        theirs = np.asarray(ImageEnhance.Contrast(Image.fromarray(image)).enhance(0.6))
        assert np.abs(theirs.astype(int) - ours).max() <= 1


def test_sharpening_undoes_no_flat_image_and_widens_edges():
    flat = np.full((1, 32, 32, 3), 77, np.uint8)
    np.testing.assert_array_equal(sharpened(flat, RNG, amount=1.0), flat)
    assert sharpened(IMAGES, RNG, amount=1.0).astype(float).std() > IMAGES.astype(float).std()
    assert LUMA.sum() == pytest.approx(1)

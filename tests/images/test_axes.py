"""Grey batches without an axis for colours: the first one decides how all are read, and ambiguity is an error."""

import numpy as np
import pytest

from knownot.errors import ImagesError
from knownot.images import open_images

GREY = np.random.default_rng(0).integers(0, 256, (71, 28, 28), dtype=np.uint8)


def read(source, **options):
    return [image for batch in open_images(source, **options).batches(16, None) for image in batch.x]


@pytest.mark.parametrize("last", [1, 2, 3, 4])
@pytest.mark.parametrize("once", [False, True])
def test_a_last_batch_of_a_few_is_a_batch(last, once):
    images = GREY[: 64 + last]
    batches = [images[:32], images[32:64], images[64:]]
    found = read(iter(batches) if once else batches)
    assert len(found) == len(images)
    for one, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(one[..., 0], image)


def test_labels_tell_that_three_are_a_batch():
    found = read([(GREY[:3], np.array([0, 1, 2])), (GREY[3:6], np.array([0, 1, 2]))])
    np.testing.assert_array_equal(np.stack(found)[..., 0], GREY[:6])
    (one,) = read([(GREY[:3], 1)])
    assert one.shape == (28, 28, 3)


def test_a_loader_says_that_it_gives_batches():
    class Loader:
        batch_size = 3

        def __iter__(self):
            yield from (GREY[i : i + 3] for i in range(0, 9, 3))

    assert len(read(Loader())) == 9


def test_single_images_with_colours_first_are_still_one_each():
    assert len(read([GREY[i : i + 3] for i in range(5)])) == 5


@pytest.mark.parametrize(
    "batches",
    [
        [GREY[:3], GREY[3:35]],
        [GREY[:3], GREY[3:6], GREY[6:8]],
        [GREY[:8, ..., None], GREY[8:11]],
        [GREY[:8], np.zeros((3, 28, 28, 3), np.uint8)],
    ],
    ids=["three, then many", "a rest of two", "with an axis, then without", "without, then with"],
)
def test_arrays_that_contradict_the_first_are_an_error(batches):
    with pytest.raises(ImagesError, match="the first one"):
        read(batches)


def test_a_one_hot_label_that_may_be_labels_is_an_error():
    with pytest.raises(ImagesError, match="one-hot label, or a batch"):
        read([(GREY[:3], np.array([0.0, 1.0, 0.0]))])


@pytest.mark.parametrize("n", [3, 4])
def test_one_array_of_three_or_four_grey_images_is_an_error(n):
    with pytest.raises(ImagesError, match="grey images or as one"):
        open_images(GREY[:n])
    assert len(read(GREY[:n, ..., None])) == n
    assert len(read(GREY[:n], labels=np.arange(n))) == n

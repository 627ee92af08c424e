"""Image lists: OpenOOD's, and plain "path label"."""

import numpy as np
import pytest
from PIL import Image

from knownot.errors import ImagesError, LabelsError
from knownot.images import open_images
from knownot.images.lists import read_list


@pytest.fixture
def data(tmp_path):
    """data/images_classic/set/{0..3}.png and an empty data/benchmark_imglist/set/, as OpenOOD lays them out."""
    images = tmp_path / "data/images_classic/set"
    images.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.full((4, 5, 3), 10 * i, np.uint8)).save(images / f"{i}.png")
    Image.fromarray(np.full((4, 5, 3), 30, np.uint8)).save(images / "a b.png")
    lists = tmp_path / "data/benchmark_imglist/set"
    lists.mkdir(parents=True)
    return lists


def listed(lists, text, **options):
    (lists / "test_set.txt").write_text(text, encoding="utf-8")
    images = open_images(lists / "test_set.txt", **options)
    (batch,) = images.batches(10, None)
    return images, batch


def test_openood_lists_find_their_images_above_them(data):
    images, batch = listed(data, "set/2.png 1\nset/0.png -1\nset/a b.png 0\n\nset/1.png 1\n")
    assert batch.ids == ["set/2.png", "set/0.png", "set/a b.png", "set/1.png"]
    assert batch.labels.tolist() == [1, -1, 0, 1]
    assert batch.x[:, 0, 0, 0].tolist() == [20, 0, 30, 10]
    assert images.labelled
    assert images.count == 4


def test_a_label_may_be_a_dict_as_in_scood(data):
    _, batch = listed(data, "set/2.png {'label': 3, 'sc_label': 1}\nset/0.png {'sc_label': -1}\n")
    assert batch.labels.tolist() == [3, -1]


def test_names_are_numbered_as_the_classifier_numbers_them(data):
    images, batch = listed(data, "set/2.png\tdog\nset/0.png cat\n", class_names=["cat", "bird", "dog"])
    assert batch.labels.tolist() == [2, 0]
    assert images.class_names == ("cat", "bird", "dog")
    with pytest.raises(LabelsError, match="'dog' is none of the 2 classes"):
        listed(data, "set/2.png dog\nset/0.png cat\n", class_names=["cat", "bird"])


def test_a_list_of_unknown_images_has_no_labels(data):
    assert not listed(data, "set/2.png -1\nset/0.png -1\n")[0].labelled
    assert not listed(data, "set/2.png\nset/a b.png\n")[0].labelled


def test_a_missing_image_is_a_row_and_missing_images_an_error(data):
    _, batch = listed(data, "set/2.png 1\nset/none.png 0\n")
    assert batch.errors[0] is None
    assert "no such file" in batch.errors[1].lower()
    assert batch.rows.tolist() == [0]
    with pytest.raises(ImagesError, match=r"'other/2.png' is neither in the current folder, nor.*images_classic"):
        listed(data, "other/2.png 1\n")


def test_root_and_labels_can_be_given(data):
    (data / "own.txt").write_text("2.png 1\n0.png 0\n")
    images = read_list(data / "own.txt", root=data.parents[1] / "images_classic/set", labels={"2.png": 0, "0": 1})
    (batch,) = images.batches(10, None)
    assert batch.labels.tolist() == [0, 1]
    assert batch.errors == [None, None]


def test_a_wrong_line_is_named(data):
    with pytest.raises(LabelsError, match=r"Line 2 of .*ends in \"{'label': 'x'}\", which is no label"):
        listed(data, "set/2.png 1\nset/0.png {'label': 'x'}\n")


def test_other_texts_are_no_lists(tmp_path):
    (tmp_path / "notes.txt").write_text("These images are of last summer.\n")
    (batch,) = open_images(tmp_path / "notes.txt").batches(1, None)
    assert "text, not an image" in batch.errors[0]

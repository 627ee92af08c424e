"""Folders of `save_to_disk` of the library `datasets`: Arrow files, opened by path. Written here as it writes them."""

import json

import numpy as np
import pyarrow as pa
import pytest

from helpers import toy
from helpers.shards import encoded
from knownot.errors import ImagesError
from knownot.images import open_images


def saved(folder, x, y, *, files=2, rows=7, path=None, file_format=False):
    """As `Dataset.save_to_disk(folder, num_shards=files)`: record batches, names in the metadata."""
    folder.mkdir(parents=True)
    features = {"image": {"_type": "Image"}, "label": {"names": list(toy.CLASSES), "_type": "ClassLabel"}}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", kind), ("label", pa.int64())])
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    names = [f"data-{i:05}-of-{files:05}.arrow" for i in range(files)]
    for name, some in zip(names, np.array_split(np.arange(len(x)), files), strict=True):
        opened = (pa.ipc.new_file if file_format else pa.ipc.new_stream)(str(folder / name), schema)
        with opened as writer:
            for chunk in np.split(some, range(rows, len(some), rows)):
                images = [{"bytes": encoded(x[i]), "path": path} for i in chunk]
                writer.write_batch(pa.record_batch([pa.array(images, kind), pa.array(y[chunk])], schema=schema))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder


def rows(images):
    found = list(images.batches(7, None))
    ids = [name for batch in found for name in batch.ids]
    return ids, np.concatenate([batch.labels for batch in found]), np.concatenate([batch.x for batch in found])


@pytest.mark.parametrize("file_format", [False, True])
def test_a_saved_data_set_is_read_with_its_names(tmp_path, file_format):
    x, y = toy.known(40, 1)
    folder = saved(tmp_path / "set", x, y, file_format=file_format)
    images = open_images(folder)
    assert (images.count, images.labelled, images.class_names) == (40, True, toy.CLASSES)
    assert images.size == (toy.SIDE, toy.SIDE)
    ids, labels, pixels = rows(images)
    assert ids[20] == "data-00001-of-00002.arrow#0"
    np.testing.assert_array_equal(labels, y)
    np.testing.assert_array_equal(pixels, x)
    other = open_images(folder, class_names=toy.CLASSES[::-1])
    np.testing.assert_array_equal(rows(other)[1], 3 - y)
    np.testing.assert_array_equal(rows(open_images(f"{folder}/data-00001*.arrow"))[1], y[20:])


def test_parts_have_each_row_once(tmp_path):
    x, y = toy.known(40, 1)
    folder = saved(tmp_path / "set", x, y)
    ids, labels, pixels = rows(open_images(folder))
    parts = [rows(open_images(folder).part(i, 3)) for i in range(3)]
    assert [name for part in parts for name in part[0]] == ids
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), labels)
    np.testing.assert_array_equal(np.concatenate([part[2] for part in parts]), pixels)


def test_stamps_tell_a_data_set_that_changed(tmp_path):
    x, y = toy.known(40, 1)
    images = open_images(saved(tmp_path / "set", x, y))
    before = list(images.stamps())
    assert len(set(before)) == 40
    assert list(open_images(tmp_path / "set").stamps()) == before
    file = tmp_path / "set" / "data-00001-of-00002.arrow"
    file.write_bytes(file.read_bytes())
    after = list(open_images(tmp_path / "set").stamps())
    assert after[:20] == before[:20]
    assert not set(after[20:]) & set(before)


def test_several_splits_missing_and_damaged_files_are_errors(tmp_path):
    x, y = toy.known(20, 1)
    folder = saved(tmp_path / "sets" / "train", x, y)
    (tmp_path / "sets" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    with pytest.raises(ImagesError, match=r"several splits: train, test\. Give that of one, such as '.*/train'"):
        open_images(tmp_path / "sets")
    whole = (folder / "data-00001-of-00002.arrow").read_bytes()
    (folder / "data-00001-of-00002.arrow").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImagesError, match=r"data-00001-of-00002\.arrow' cannot be read as an Arrow file"):
        open_images(folder)
    (folder / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(ImagesError, match=r"is not whole: .*data-00001-of-00002\.arrow' is missing"):
        open_images(folder)


def test_another_programs_state_is_no_data_set(tmp_path):
    toy.written(tmp_path / "f", *toy.known(4, 1))
    (tmp_path / "f" / "state.json").write_text("[1]")
    assert open_images(tmp_path / "f").count == 4

"""Tar shards, files behind URLs, and parts of every source."""

import numpy as np
import pytest

from helpers import toy
from helpers.shards import encoded, shards
from knownot.errors import ImagesError, OptionError
from knownot.images import open_images, remote
from knownot.images.batching import Entries


def rows(images):
    found = list(images.batches(7, None))
    ids = [name for batch in found for name in batch.ids]
    return ids, np.concatenate([batch.labels for batch in found]), np.concatenate([batch.x for batch in found])


@pytest.mark.parametrize("form", ["cls", "json"])
def test_tar_shards_are_read_where_they_lie(tmp_path, form):
    x, y = toy.known(20, 1)
    folder = shards(tmp_path / "t", x, y, form=form)
    for source in (
        f"{folder}/part-{{000..002}}.tar",
        f"{folder}/*.tar",
        [f"{folder}/part-00{i}.tar" for i in range(3)],
    ):
        images = open_images(source)
        ids, labels, pixels = rows(images)
        assert ids[0] == "part-000.tar/s/0000.png"
        assert len(set(ids)) == 20
        assert images.labelled
        np.testing.assert_array_equal(labels, y)
        np.testing.assert_array_equal(pixels, x)
    assert images.sample(6).count == 6
    assert images.size == (toy.SIDE, toy.SIDE)


def test_a_damaged_shard_is_an_error_that_names_it_and_a_damaged_image_a_row(tmp_path):
    x, y = toy.known(20, 1)
    folder = shards(tmp_path / "t", x, y)
    whole = (folder / "part-002.tar").read_bytes()
    (folder / "part-002.tar").write_bytes(whole.replace(encoded(x[-1])[40:80], bytes(40)))
    (batch,) = open_images(f"{folder}/part-002.tar").batches(50, None)
    assert [error is None for error in batch.errors] == [True] * 9 + [False]
    (folder / "part-002.tar").write_bytes(whole[:5000])
    with pytest.raises(ImagesError, match=r"The shard '.*part-002\.tar' cannot be read after \d+ files"):
        rows(open_images(f"{folder}/*.tar"))
    with pytest.raises(ImagesError, match=r"part-009\.tar' cannot be read after 0 files: .*No such file"):
        open_images(f"{folder}/part-{{009..010}}.tar")


class Batches:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __iter__(self):
        return ((self.x[i : i + 6].copy(), self.y[i : i + 6]) for i in range(0, len(self.x), 6))


def as_parquet(folder, x, y):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"image": [{"bytes": encoded(image), "path": None} for image in x], "label": y})
    pq.write_table(table, folder / "all.parquet", row_group_size=5)
    return str(folder / "all.parquet")


@pytest.mark.parametrize("kind", ["array", "folder", "parquet", "tar", "one tar", "batches"])
@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_parts_have_each_image_once_under_its_own_id(tmp_path, kind, of):
    x, y = toy.known(20, 1)
    source = {
        "array": lambda: (x, y),
        "folder": lambda: toy.written(tmp_path / "f", x, y),
        "parquet": lambda: as_parquet(tmp_path, x, y),
        "tar": lambda: f"{shards(tmp_path / 't', x, y)}/*.tar",
        "one tar": lambda: f"{shards(tmp_path / 't', x, y)}/part-002.tar",
        "batches": lambda: Batches(x, y),
    }[kind]()
    ids, labels, pixels = rows(open_images(source))
    whole = {name: (label, image.tobytes()) for name, label, image in zip(ids, labels, pixels, strict=True)}
    found = {}
    for i in range(of):
        part = open_images(source).part(i, of)
        assert isinstance(part, Entries)
        assert part.labelled
        for batch in part.batches(4, None):
            for name, label, image in zip(batch.ids, batch.labels, batch.x, strict=True):
                assert name not in found
                found[name] = (label, image.tobytes())
    assert found == whole
    with pytest.raises(OptionError, match="expected one from 0 to"):
        open_images(source).part(of, of)


def test_a_broken_connection_is_tried_again_then_an_error(monkeypatch):
    monkeypatch.setattr(remote, "WAIT", 0)
    calls = []

    def twice():
        calls.append(1)
        if len(calls) < 3:
            raise OSError("connection reset")
        return b"x"

    assert remote.patiently(twice, "s3://b/x") == b"x"
    with pytest.raises(ImagesError, match="'s3://b/x' cannot be read, tried 4 times: gone"):
        remote.patiently(lambda: (_ for _ in ()).throw(OSError("gone")), "s3://b/x?secret=1")


def test_folders_lists_and_shards_behind_urls(tmp_path):
    x, y = toy.known(20, 1)
    folder = toy.written(tmp_path / "f", x, y)
    here, there = open_images(str(folder)), open_images(f"file://{folder}")
    assert there.class_names == here.class_names
    for a, b in zip(rows(here), rows(there), strict=True):
        np.testing.assert_array_equal(a, b)
    tars = shards(tmp_path / "t", x, y)
    np.testing.assert_array_equal(rows(open_images(f"file://{tars}/part-{{000..002}}.tar"))[2], x)
    (batch,) = open_images([f"file://{tmp_path}/none.png"]).batches(1, None)
    assert batch.errors == ["no such file"]
    with pytest.raises(ImagesError, match="There is no file or folder"):
        open_images(f"file://{tmp_path}/absent")

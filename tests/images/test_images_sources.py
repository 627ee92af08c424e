"""Every kind of source: arrays, folders, lists, globs, parquet, DataLoaders, tf.data, generators."""

from __future__ import annotations

import io
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from knownot.arrays import InputSpec, Preprocess
from knownot.checks.images import check_images, walked
from knownot.errors import ImagesError, InputError, LabelsError, MissingExtraError, OptionError
from knownot.images import open_images

RNG = np.random.default_rng(0)
RAW = RNG.integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)
READY = RNG.normal(size=(7, 6, 5, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 1, 0, -1, 2])


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def everything(images, preprocess=None, spec=None, size=3):
    """(x [m, h, w, k], labels [n], ids) of a whole walk."""
    batches = list(images.batches(size, preprocess, spec=spec))
    return (
        np.concatenate([b.x for b in batches]),
        np.concatenate([b.labels for b in batches]),
        [i for b in batches for i in b.ids],
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes (one with a sub-folder) and some files that are no images."""
    root = tmp_path / "pets"
    for i, name in enumerate(["dog/b.png", "dog/a.png", "cat/10.png", "cat/9.png", "cat/more/x.png", "cat/noending"]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(RAW[i]))
    for name in ["README.md", "cat/labels.csv", "cat/Thumbs.db", "dog/.DS_Store", "dog/.hidden.png", "dog/notes"]:
        (root / name).write_text("no image")
    return root


def parquet(
    path: Path, rows: list, labels=None, metadata: dict | None = None, group: int = 3, struct: bool = True
) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary())
    columns = {"image": image} | ({} if labels is None else {"label": pa.array(labels)})
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, path, row_group_size=group)
    return path


# --- the promises, for every reader ---------------------------------------------------------------------------------


class Loader:
    """An iterable of batches that starts anew."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def _batches(x, labels=LABELS):
    return [(x[i : i + 3], labels[i : i + 3]) for i in range(0, len(x), 3)]


SOURCES = {
    "raw array": lambda folder: (RAW, LABELS),
    "grey array": lambda folder: (RAW[..., 0], None),
    "ready array": lambda folder: (READY, LABELS),
    "ready array, channels first": lambda folder: (READY.transpose(0, 3, 1, 2), None),
    "ready array with a NaN": lambda folder: (np.where(np.arange(7)[:, None, None, None] == 2, np.nan, READY), None),
    "folder of classes": lambda folder: (folder, None),
    "folder without classes": lambda folder: (folder / "dog", None),
    "list with a missing file": lambda folder: ([folder / "dog/a.png", "gone.png", str(folder / "dog/b.png")], None),
    "glob": lambda folder: (f"{folder}/*/*.png", None),
    "bytes": lambda folder: ([png(x) for x in RAW] + [b""], None),
    "parquet": lambda folder: (
        parquet(folder / "x.parquet", [{"bytes": png(x), "path": None} for x in RAW], LABELS),
        None,
    ),
    "parquet of plain bytes, with nulls": lambda folder: (
        parquet(folder / "x.parquet", [png(RAW[0]), None, b"nonsense", png(RAW[1])], struct=False),
        None,
    ),
    "parquet files": lambda folder: (
        [
            parquet(folder / f"{i}.parquet", [{"bytes": png(x), "path": f"{i}.png"} for x in RAW[:4]], [1, 2, 0, 1])
            for i in "ab"
        ],
        None,
    ),
    "list of batches": lambda folder: (_batches(READY), None),
    "iterable of raw batches": lambda folder: (Loader(_batches(RAW)), None),
    "iterable of single images": lambda folder: (Loader(list(zip(RAW, LABELS, strict=True))), None),
    "iterable of Pillow images": lambda folder: (
        Loader([{"image": Image.fromarray(x), "label": 1} for x in RAW]),
        None,
    ),
    "generator": lambda folder: (iter(_batches(READY)), None),
    "generator of paths": lambda folder: (iter(sorted(folder.rglob("*.png"))), None),
    "generator with labels beside": lambda folder: (iter([READY[:4], READY[4:]]), LABELS),
}


@pytest.mark.parametrize("name", SOURCES)
def test_contract(name, folder):
    check_images(lambda: open_images(*SOURCES[name](folder)), inputs=[RAW, READY, LABELS])


def test_contract_can_fail():
    class Skewed(Loader):
        def __iter__(self):
            self.items = self.items[::-1]  # another order each time
            return iter(self.items)

    skewed = Skewed(_batches(RAW))
    with pytest.raises(AssertionError, match="differ"):
        check_images(lambda: open_images(skewed))


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(1, 12),
    start=st.integers(0, 9),
    n=st.integers(1, 7),
    split=st.integers(1, 5),
    thumbs=st.integers(0, 9),
)
def test_batch_size_changes_nothing(size, start, n, split, thumbs):
    x = READY[:n]
    images = open_images([x[i : i + split] for i in range(0, n, split)])
    batches = list(images.batches(size, None, start=start, thumbs=thumbs))
    assert [len(b) for b in batches] == [min(size, n - i) for i in range(start, n, size)]
    assert [i for b in batches for i in b.ids] == [f"#{i}" for i in range(start, n)]
    if batches:
        np.testing.assert_array_equal(np.concatenate([b.x for b in batches]), x[start:])


# --- arrays ---------------------------------------------------------------------------------------------------------


def test_raw_arrays():
    x, labels, ids = everything(open_images(RAW, LABELS))
    np.testing.assert_array_equal(x, RAW)
    np.testing.assert_array_equal(labels, LABELS)
    assert ids == [f"#{i}" for i in range(7)]
    images = open_images(RAW)
    assert (images.count, images.size, images.ready, images.labelled) == (7, (6, 5), False, False)


@pytest.mark.parametrize("shape", ["nhw", "nhw1", "n1hw"])
def test_grey_arrays_are_replicated(shape):
    grey = RAW[..., 0]
    given = {"nhw": grey, "nhw1": grey[..., None], "n1hw": grey[:, None]}[shape]
    x, *_ = everything(open_images(given))
    np.testing.assert_array_equal(x, np.stack([grey] * 3, axis=-1))


def test_raw_channels_first():
    x, *_ = everything(open_images(RAW.transpose(0, 3, 1, 2)))
    np.testing.assert_array_equal(x, RAW)


def test_alpha_is_over_white():
    alpha = RNG.integers(0, 256, (7, 6, 5, 1), dtype=np.uint8)
    x, *_ = everything(open_images(np.concatenate([RAW, alpha], axis=-1)))
    expected = RAW.astype(float) * (alpha / 255) + 255 * (1 - alpha / 255)
    assert np.abs(x - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_ready_arrays_pass_through_in_both_layouts(dtype):
    given = READY.astype(dtype)
    for source in (given, given.transpose(0, 3, 1, 2)):
        images = open_images(source)
        assert images.ready
        assert images.size == (6, 5)
        x, *_ = everything(images, Preprocess(height=3, width=3, scale=9))  # does not apply
        np.testing.assert_array_equal(x, given.astype(np.float32))


def test_ready_arrays_are_checked_against_the_input():
    spec = InputSpec(6, 5, 3, "NCHW")
    x, *_ = everything(open_images(READY), spec=spec)
    np.testing.assert_array_equal(x, READY)
    with pytest.raises(InputError, match="does not fit"):
        everything(open_images(READY), spec=InputSpec(32, 32, 3, "NHWC"))


def test_ambiguous_layout_is_an_error_unless_the_classifier_tells():
    x = RNG.random((2, 3, 5, 3))
    images = open_images(x)
    assert images.size is None
    with pytest.raises(InputError, match="can be read as"):
        everything(images)
    got, *_ = everything(images, spec=InputSpec(3, 5, 3, "NHWC"))
    np.testing.assert_array_equal(got, x.astype(np.float32))


def test_rows_with_nan_are_rows_with_a_reason():
    x = READY.astype(np.float64)
    x[1, 2, 2, 0] = np.nan
    x[4, 0, 0, 0] = 1e300  # beyond float32
    (batch,) = open_images(x).batches(10, None)
    assert [i for i, e in enumerate(batch.errors) if e] == [1, 4]
    assert "not finite" in batch.errors[1]
    np.testing.assert_array_equal(batch.rows, [0, 2, 3, 5, 6])
    np.testing.assert_array_equal(batch.x, READY[[0, 2, 3, 5, 6]])


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (RAW.astype(np.int64), "int64.*astype"),
        (RAW.astype(np.uint32), r"uint32.*uint16 arrays.*astype"),
        (RAW > 9, "bool.*255"),
        (RAW[0], r"single image.*image\[None\]"),
        (READY[0], "single image"),
        (RAW[0, ..., 0], "single image"),
        (RAW[:0], "no images"),
        (RAW[:, :0], "no pixels"),
        (RAW[None], "no batch of images"),
        (np.array([object()]), "object"),
    ],
)
def test_arrays_that_cannot_be_used(x, says):
    with pytest.raises(ImagesError, match=says):
        open_images(x)


def test_read_only_and_foreign_arrays():
    import array_api_strict
    import jax.numpy as jnp
    import torch

    locked = RAW.copy()
    locked.flags.writeable = False
    for source in (locked, torch.from_numpy(RAW.copy()), jnp.asarray(RAW), array_api_strict.asarray(RAW)):
        x, *_ = everything(open_images(source))
        np.testing.assert_array_equal(x, RAW)
    half = torch.from_numpy(READY).permute(0, 3, 1, 2).to(torch.bfloat16).requires_grad_()
    x, *_ = everything(open_images(half))
    assert x.shape == READY.shape
    np.testing.assert_allclose(x, READY, rtol=2**-8)


def test_pair_of_arrays():
    x, labels, _ = everything(open_images((RAW, LABELS)))
    np.testing.assert_array_equal(x, RAW)
    np.testing.assert_array_equal(labels, LABELS)


def test_sample_of_an_array_is_random_and_repeatable():
    x = np.arange(200, dtype=np.uint8)[:, None, None, None].repeat(3, axis=-1)
    ids = [everything(open_images(x).sample(20, seed))[2] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    assert len(set(ids[0])) == 20
    assert ids[0] != [f"#{i}" for i in range(20)]


# --- labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        [2, 0, 1, 1, 0, -1, 2],
        np.array([2, 0, 1, 1, 0, -9, 2], dtype=np.int8),
        np.array([[2.0], [0], [1], [1], [0], [-1], [2]]),
        ["c", "a", "b", "b", "a", None, "c"],
        np.array(["c", "a", "b", "b", "a", "", "c"]),
    ],
)
def test_labels_in_many_forms(labels):
    got = everything(open_images(RAW, labels))[1]
    np.testing.assert_array_equal(got, [2, 0, 1, 1, 0, -1, 2])


def test_one_hot_and_names_in_the_classifiers_order():
    got = everything(open_images(RAW, np.eye(8)[::-1][:7]))[1]
    np.testing.assert_array_equal(got, [7, 6, 5, 4, 3, 2, 1])
    images = open_images(RAW, ["cat", "dog"] * 3 + ["cat"], class_names=["dog", "emu", "cat"])
    np.testing.assert_array_equal(everything(images)[1], [2, 0, 2, 0, 2, 0, 2])
    assert images.class_names == ("dog", "emu", "cat")


@pytest.mark.parametrize(
    ("labels", "names", "says"),
    [
        ([0, 1], None, "2 labels for 7 images"),
        ([0.5] * 7, None, "fractions"),
        (np.full((7, 3), 1 / 3), None, "not one-hot"),
        ([0, 1, 2, 3, 0, 0, 0], ["a", "b", "c"], "label 3, but class_names has 3"),
        (["cat", "dgo"] * 3 + ["cat"], ["cat", "dog"], "Did you mean 'dog'"),
        (["cat", 1] * 3 + ["cat"], None, "names or integers"),
        ([0] * 7, "cat", "a list of texts"),
        ([0] * 7, ["a", "b", "a"], "more than once"),
        ({"a.png": 1}, None, "need images that are files"),
    ],
)
def test_labels_that_do_not_fit(labels, names, says):
    with pytest.raises((LabelsError, OptionError), match=says):
        open_images(RAW, labels, class_names=names)


# --- folders, lists, globs ------------------------------------------------------------------------------------------


def test_folder_of_classes(folder):
    images = open_images(folder)
    assert (images.count, images.size, images.class_names, images.labelled) == (6, (6, 5), ("cat", "dog"), True)
    assert images.skipped == 6
    x, labels, ids = everything(images)
    assert ids == ["cat/10.png", "cat/9.png", "cat/more/x.png", "cat/noending", "dog/a.png", "dog/b.png"]
    np.testing.assert_array_equal(x, RAW[[2, 3, 4, 5, 1, 0]])
    np.testing.assert_array_equal(labels, [0, 0, 0, 0, 1, 1])


def test_folder_in_the_classifiers_order(folder):
    images = open_images(str(folder), class_names=["dog", "emu", "cat"])
    assert images.class_names == ("dog", "emu", "cat")
    np.testing.assert_array_equal(everything(images)[1], [2, 2, 2, 2, 0, 0])
    with pytest.raises(LabelsError, match=r"'dog' is none of the 2 classes.*Did you mean 'dogs'"):
        open_images(folder, class_names=["dogs", "cat"])


def test_a_class_without_images_keeps_its_number(folder):
    (folder / "bee").mkdir()
    images = open_images(folder)
    assert images.class_names == ("bee", "cat", "dog")
    np.testing.assert_array_equal(everything(images)[1], [1, 1, 1, 1, 2, 2])


def test_folder_without_classes(folder):
    images = open_images(folder / "dog")
    assert (images.labelled, images.class_names, images.count) == (False, None, 2)
    (folder / "loose.png").write_bytes(png(RAW[6]))
    images = open_images(folder)
    assert everything(images)[1].tolist() == [0, 0, 0, 0, 1, 1, -1]
    assert "1 images lie beside" in images.label_notes[0]


def test_folder_of_splits_is_not_taken_for_classes(folder):
    (folder / "dog").rename(folder / "train")
    (folder / "cat").rename(folder / "test")
    with pytest.raises(ImagesError, match="parts of a data set, not classes"):
        open_images(folder)


def test_links_are_followed_and_loops_end(folder, tmp_path):
    (folder / "cat" / "loop").symlink_to(folder)
    (folder / "cat" / "self").symlink_to(folder / "cat" / "self")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "y.png").write_bytes(png(RAW[6]))
    (folder / "eel").symlink_to(outside)
    (folder / "dog" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    images = open_images(folder)
    assert images.class_names == ("cat", "dog", "eel")
    (batch,) = images.batches(100, None)
    assert batch.ids[-1] == "eel/y.png"
    assert batch.ids.count("dog/a.png") == 1
    assert batch.errors[batch.ids.index("dog/broken.png")] == "no such file (a broken link)"


def test_lists_globs_and_single_files(folder):
    paths = [folder / "dog/b.png", str(folder / "dog/a.png"), folder / "dog/b.png"]
    x, _, ids = everything(open_images(paths))
    assert ids == [str(p) for p in paths]
    np.testing.assert_array_equal(x, RAW[[0, 1, 0]])
    x, *_ = everything(open_images(np.array([str(p) for p in paths])))
    np.testing.assert_array_equal(x, RAW[[0, 1, 0]])
    x, _, ids = everything(open_images(f"{folder}/*/[ab].png"))
    assert ids == [f"{folder}/dog/a.png", f"{folder}/dog/b.png"]
    assert open_images(f"{folder}/**/*.*").count == 5
    x, *_ = everything(open_images(folder / "dog/a.png"))
    np.testing.assert_array_equal(x, RAW[[1]])
    import pandas as pd

    assert open_images(pd.Series([str(p) for p in paths])).count == 3


def test_labels_by_file_name(folder):
    by_name = {
        "a.png": "x",
        "b.png": "y",
        "cat/9.png": None,
        "10": "x",
        str(folder / "cat/more/x.png"): "z",
        "noending": "x",
    }
    images = open_images(folder, by_name)
    assert images.class_names == ("x", "y", "z")
    assert everything(images)[1].tolist() == [0, -1, 2, 0, 0, 1]
    del by_name["10"]
    with pytest.raises(LabelsError, match=r"1 of 6 images have no entry.*cat/10\.png"):
        open_images(folder, by_name)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p / "nowhere" / "x.png", r"no file or folder.*nor|does not exist either"),
        (lambda p: p, "holds no images"),
        (lambda p: f"{p}/*.png", "matches nothing"),
        (lambda p: [], "list of images is empty"),
        (lambda p: 3, "int is no source"),
        (lambda p: {"a": 1}, "dict is no source"),
        (lambda p: iter([]), "gave no images"),
    ],
)
def test_sources_that_cannot_be_read(make, says, tmp_path):
    with pytest.raises(ImagesError, match=says):
        open_images(make(tmp_path))


def test_folder_with_other_files_only_says_so(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ImagesError, match="1 files are there, but none is an image"):
        open_images(tmp_path)


def test_differing_sizes_need_a_size(tmp_path):
    for i, h in enumerate((6, 6, 7)):
        (tmp_path / f"{i}.png").write_bytes(png(np.zeros((h, 5, 3), np.uint8)))
    images = open_images(tmp_path)
    assert images.size is None
    with pytest.raises(ImagesError, match=r"2\.png.*preprocess=Preprocess\(height"):
        list(images.batches(10, Preprocess()))
    assert [batch.x.shape for batch in images.batches(1, Preprocess())] == [(1, 6, 5, 3), (1, 6, 5, 3), (1, 7, 5, 3)]
    assert everything(images, Preprocess(height=4, width=4))[0].shape == (3, 4, 4, 3)


def test_photos(shared):
    images = open_images(shared / "photos")
    assert (images.count, images.class_names) == (500, ("imagenet", "textures"))
    x, labels, ids = everything(images.sample(20), Preprocess(height=64, width=64))
    assert x.shape == (20, 64, 64, 3)
    assert ids == sorted(ids)
    assert set(labels.tolist()) == {0, 1}
    i = ids.index(ids[3])
    with Image.open(shared / "photos" / ids[i]) as photo:
        w, h = photo.size
        side = (64, h * 64 // w) if w < h else (w * 64 // h, 64)
        small = np.asarray(photo.convert("RGB").resize(side, Image.Resampling.BILINEAR))
    top, left = round((side[1] - 64) / 2), round((side[0] - 64) / 2)
    np.testing.assert_array_equal(x[i], small[top : top + 64, left : left + 64])


# --- parquet --------------------------------------------------------------------------------------------------------


def test_cifar_parquet(shared):
    import pyarrow.parquet as pq

    path = shared / "cifar10" / "test.parquet"
    images = open_images(path)
    assert (images.count, images.size, images.labelled) == (10000, (32, 32), True)
    assert images.class_names is not None
    assert images.class_names[:2] == ("airplane", "automobile")
    table = pq.read_table(path).slice(9990)
    x, labels, ids = [], [], []
    for batch in images.batches(4, None, start=9990):
        x.append(batch.x)
        labels += batch.labels.tolist()
        ids += batch.ids
    assert labels == table["label"].to_pylist()
    assert ids == [row["path"] for row in table["image"].to_pylist()]
    expected = [np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in table["image"].to_pylist()]
    np.testing.assert_array_equal(np.concatenate(x), expected)


def test_start_skips_row_groups_without_reading_them(shared, monkeypatch):
    import pyarrow.parquet as pq

    read = []
    original = pq.ParquetFile.iter_batches

    def counting(self, *args, **kwargs):
        read.extend(kwargs["row_groups"])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counting)
    images = open_images(shared / "cifar10" / "test.parquet")  # ten row groups of 1,000
    assert sum(len(b) for b in images.batches(500, None, start=8500)) == 1500
    assert read == [8, 9]


def test_parquet_ids_names_and_other_metadata(tmp_path):
    rows = [{"bytes": png(x), "path": None} for x in RAW[:4]]
    path = parquet(tmp_path / "x.parquet", rows, [1, 0, None, 1], {"class_names": '["a", "b"]'})
    images = open_images(path)
    _, labels, ids = everything(images)
    assert images.class_names == ("a", "b")
    assert labels.tolist() == [1, 0, -1, 1]
    assert ids == [f"x.parquet#{i}" for i in range(4)]
    images = open_images(path, class_names=["b", "c", "a"])  # the classifier's order
    assert everything(images)[1].tolist() == [0, 2, -1, 0]
    named = parquet(tmp_path / "y.parquet", rows, ["dog", "cat", None, "dog"])
    assert everything(open_images(named))[1].tolist() == [1, 0, -1, 1]
    assert open_images(named).class_names == ("cat", "dog")
    assert everything(open_images(named, class_names=["dog", "cat"]))[1].tolist() == [0, 1, -1, 0]
    assert everything(open_images(named, [3, 2, 1, 0]))[1].tolist() == [3, 2, 1, 0]
    with pytest.raises(LabelsError, match="'dog' is none"):
        everything(open_images(named, class_names=["hound", "cat"]))


def test_parquet_folders_and_files_beside(tmp_path):
    (tmp_path / "a.png").write_bytes(png(RAW[0]))
    for part in "01":
        parquet(
            tmp_path / f"train-{part}.parquet", [{"bytes": None, "path": "a.png"}, {"bytes": png(RAW[1]), "path": "b"}]
        )
    x, *_ = everything(open_images(tmp_path))
    np.testing.assert_array_equal(x, RAW[[0, 1, 0, 1]])
    parquet(tmp_path / "test-0.parquet", [{"bytes": png(RAW[0]), "path": "c"}])
    with pytest.raises(ImagesError, match=r"several parts: test, train"):
        open_images(tmp_path)
    assert open_images(f"{tmp_path}/train*.parquet").count == 4


def test_parquet_memory_does_not_grow_with_the_file(tmp_path):
    """Nor with the row group: what is kept is a page or two of the file."""
    import pyarrow as pa

    peaks = []
    for count in (3000, 12000):  # in one row group each
        rows = [RNG.bytes(1000) for _ in range(count)]  # unreadable, which is quick
        path = parquet(tmp_path / f"{count}.parquet", rows, group=10**6, struct=False)
        del rows
        before, peak, n = pa.total_allocated_bytes(), 0, 0
        for batch in open_images(path).batches(50, Preprocess(height=4, width=4)):
            n += len(batch)
            peak = max(peak, pa.total_allocated_bytes() - before)
        assert n == count
        peaks.append(peak)
    assert peaks[1] < 2 * peaks[0], peaks  # four times the rows


def test_parquet_errors(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(ImagesError, match="cannot be read as a parquet file"):
        open_images(tmp_path / "broken.parquet")
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "table.parquet")
    with pytest.raises(ImagesError, match=r"no column of image bytes.*a: int64"):
        open_images(tmp_path / "table.parquet")
    good = parquet(tmp_path / "good.parquet", [{"bytes": png(x), "path": None} for x in RAW], group=2)
    data = bytearray(good.read_bytes())
    middle = pq.ParquetFile(good).metadata.row_group(2).column(0).data_page_offset
    data[middle : middle + 40] = bytes(40)
    good.write_bytes(data)
    with pytest.raises(ImagesError, match="damaged near row"):
        everything(open_images(good))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"knownot\[parquet\]"):
        open_images(tmp_path / "table.parquet")


# --- iterables ------------------------------------------------------------------------------------------------------


def test_dataloader():
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    x = torch.from_numpy(READY).permute(0, 3, 1, 2)
    data = TensorDataset(x, torch.from_numpy(LABELS))
    images = open_images(DataLoader(data, batch_size=3))
    assert (images.count, images.size, images.ready, images.labelled, images.once) == (7, (6, 5), True, True, False)
    got, labels, _ = everything(images, size=2)
    np.testing.assert_array_equal(got, READY)
    np.testing.assert_array_equal(labels, LABELS)
    check_images(lambda: open_images(DataLoader(data, batch_size=3)), inputs=[READY])
    assert open_images(DataLoader(data, batch_size=3, drop_last=True)).count == 6
    assert "shuffles" in open_images(DataLoader(data, shuffle=True)).notes[0]
    got, labels, _ = everything(open_images(data))  # the data set itself: single images
    np.testing.assert_array_equal(got, READY)
    np.testing.assert_array_equal(labels, LABELS)


def test_tf_data(elsewhere):
    """In another process: TensorFlow starts threads and warns on import."""
    code = """
import numpy as np, tensorflow as tf
from knownot.errors import ImagesError
from knownot.images import open_images
x = np.arange(7 * 6 * 5 * 3, dtype=np.float32).reshape(7, 6, 5, 3)
for one_hot in (False, True):
    labels = np.eye(7, dtype=np.float32) if one_hot else np.arange(7)
    data = tf.data.Dataset.from_tensor_slices((x, labels)).batch(3)
    images = open_images(data)
    assert images.ready and images.size == (6, 5) and not images.once
    for _ in range(2):
        batches = list(images.batches(2, None))
        assert np.array_equal(np.concatenate([b.x for b in batches]), x)
        assert np.concatenate([b.labels for b in batches]).tolist() == list(range(7))
raw = tf.data.Dataset.from_tensor_slices({"image": x.astype(np.uint8)}).batch(2)
images = open_images(raw)
assert not images.ready and not images.labelled
assert np.array_equal(np.concatenate([b.x for b in images.batches(3, None)]), x.astype(np.uint8))
try:
    open_images(raw.repeat())
except ImagesError as e:
    assert "repeats for ever" in str(e)
    print("well")
"""
    assert elsewhere("tensorflow").run(code).strip() == "well"


def test_a_generator_gives_all_its_images_after_a_sample():
    images = open_images(iter(_batches(READY)))
    assert images.once
    assert images.count is None
    sample = images.sample(4)
    assert sample.count == 4
    assert not sample.once
    np.testing.assert_array_equal(everything(sample)[0], READY[:4])
    np.testing.assert_array_equal(everything(sample)[0], READY[:4])
    x, labels, _ = everything(images)
    np.testing.assert_array_equal(x, READY)
    np.testing.assert_array_equal(labels, LABELS)
    with pytest.raises(ImagesError, match="only once"):
        images.batches(2, None)
    with pytest.raises(ImagesError, match="before it is walked"):
        images.sample(2)


def test_an_iterator_without_end_that_has_items_and_a_length():
    """As Keras's `flow_from_directory` gives."""

    class Endless:
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return READY[i * 4 : i * 4 + 4], LABELS[i * 4 : i * 4 + 4]

        def __iter__(self):
            return self

        def __next__(self):
            return self[0]

    images = open_images(Endless())
    assert not images.once
    for _ in range(2):
        np.testing.assert_array_equal(everything(images)[0], READY)


def test_an_array_that_is_filled_again_is_copied():
    def reusing():
        buffer = np.empty((2, 4, 4, 3), np.uint8)
        for i in range(6):
            buffer[:] = i
            yield buffer

    x, *_ = everything(open_images(reusing()), size=5)
    np.testing.assert_array_equal(x[:, 0, 0, 0], np.repeat(np.arange(6), 2))


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([READY.astype(int)], "Batch 0 of the iterable.*int64"),
        ([{"foo": READY}], r"Batch 0.*keys \['foo'\]"),
        ([(READY, READY)], "labels of shape"),
        ([READY, RAW], "mixed"),
        ([READY, READY[:, :5]], "differing sizes"),
        ([(READY, LABELS[:3])], "3 labels for 7 images"),
        ([(READY, ["a"] * 7)], "give class_names"),
        (["x.png", 3], "Batch 1 of the iterable"),
    ],
)
def test_iterables_that_cannot_be_used(items, says):
    with pytest.raises(InputError, match=says):
        everything(open_images(iter(items)))


def test_labels_beside_an_iterable_are_counted():
    for labels in (LABELS[:5], np.append(LABELS, 0)):
        with pytest.raises(LabelsError, match=f"{len(labels)} labels"):
            everything(open_images(iter(_batches(READY)), labels))


# --- ahead, in threads ----------------------------------------------------------------------------------------------


class Counted:
    """Images whose decoding is counted."""

    def __init__(self, monkeypatch, fails_at: int | None = None):
        from knownot.images import batching as rows

        self.done, self.lock, self.more = 0, threading.Lock(), threading.Condition()
        original = rows.pixels

        def counting(image, way=None):
            with self.more:
                self.done += 1
                self.more.notify_all()
                if self.done == fails_at:
                    raise ZeroDivisionError("on purpose")
            return original(image, way)

        monkeypatch.setattr(rows, "pixels", counting)

    def wait_for(self, n: int) -> bool:
        with self.more:
            return self.more.wait_for(lambda: self.done >= n, timeout=20)


def test_images_are_read_while_the_reader_is_busy(monkeypatch):
    counted = Counted(monkeypatch)
    x = np.zeros((400, 4, 4, 3), np.uint8)
    batches = open_images(x).batches(10, None)
    next(batches)
    assert counted.wait_for(25)  # more than the first batch, without asking for the next
    assert counted.done <= 10 + 2 * 10 + 2 * 10  # and bounded: about two batches ahead
    batches.close()
    assert counted.done < 100
    assert not [t for t in threading.enumerate() if t.name.startswith("knownot")]


def test_errors_in_threads_surface(monkeypatch):
    Counted(monkeypatch, fails_at=30)
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        list(open_images(np.zeros((100, 4, 4, 3), np.uint8)).batches(10, None))
    assert not [t for t in threading.enumerate() if t.name.startswith("knownot")]


@pytest.mark.parametrize("way", ["in_order", "fetched", "overlapped"])
def test_a_walk_may_be_closed_by_one_of_its_own_threads(way):
    """As the garbage collector does, wherever it happens to run, with one that an error left open."""
    from knownot.images import prefetch as ahead

    told, given, closed = [], threading.Event(), threading.Event()

    def work(i):
        if i == 1:
            assert given.wait(20)  # the walk stands still at its first item
            try:
                walk.close()
            except BaseException as error:
                told.append(error)
            closed.set()
        return i

    walk = {
        "in_order": lambda: ahead.in_order(work, range(3), ahead=1, workers=1),
        "fetched": lambda: ahead.fetch(map(work, range(3))),
        "overlapped": lambda: ahead.overlap_work(work, (i for i in range(3))),
    }[way]()
    assert next(walk) == 0
    given.set()
    assert closed.wait(20)
    assert told == []
    assert list(walk) == []


def test_parquet_threads_end_with_the_walk(shared):
    batches = open_images(shared / "unknown" / "mnist.parquet").batches(8, None)
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("knownot")]


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": 2, "start": -1}, {"size": 2, "thumbs": -1}])
def test_options(wrong):
    with pytest.raises(OptionError, match="expected size >= 1"):
        open_images(RAW).batches(preprocess=None, **wrong)


def test_thumbnails():
    tall = np.zeros((2, 40, 10, 3), np.uint8)
    (batch,) = open_images(tall).batches(2, None, thumbs=20)
    assert [t.shape for t in batch.thumbs] == [(20, 5, 3)] * 2
    ramp = np.linspace(-3, 5, 16).reshape(1, 8, 2, 1)
    (batch,) = open_images(ramp).batches(2, None, thumbs=20)
    np.testing.assert_array_equal(batch.thumbs[0][..., 1].ravel(), np.round(np.arange(16) * 17.0))
    assert walked(open_images(ramp), None)[3][0].shape == (8, 2, 1)


def test_open_images_are_passed_on():
    images = open_images(RAW)
    assert open_images(images) is images
    with pytest.raises(ImagesError, match="open already"):
        open_images(images, LABELS)

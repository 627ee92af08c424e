"""A broken image is a row with its reason: never an exception, never a warning, never a word on the console."""

from __future__ import annotations

import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from attacks.corpus_images import PHOTO, corpus, good
from knownot.arrays import Preprocess
from knownot.checks.images import check_images
from knownot.images import decode as decode_module
from knownot.images import open_images
from knownot.images.decode import Unreadable, decode

SIZED = Preprocess(16, 16)


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> dict[str, str]:
    return corpus(tmp_path_factory.mktemp("bad"))


def test_there_are_many_kinds(bad):
    assert len(bad) >= 50


def test_each_is_a_row_with_its_reason(bad, capfd, recwarn):
    globals_before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    fine = Path(next(iter(bad))).parent / "fine.png"
    fine.write_bytes(good("PNG"))
    paths = [path for name in bad for path in (name, str(fine))]  # every other one is fine
    batches = list(open_images(paths).batches(7, SIZED, thumbs=8))
    ids = [i for b in batches for i in b.ids]
    errors = [e for b in batches for e in b.errors]
    assert ids == paths
    assert errors[1::2] == [None] * len(bad)
    missed = {
        Path(name).name: error
        for (name, reason), error in zip(bad.items(), errors[::2], strict=True)
        if not error or reason not in error
    }
    assert not missed
    for error in errors[::2]:
        assert len(error) < 200
        assert not re.search(r"Traceback|0x[0-9a-f]{6,}|<.*object|\n", error), error
    assert all((b.x == b.x[0]).all() for b in batches)  # the fine ones, undisturbed
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in recwarn.list] == []
    assert globals_before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    assert not [t for t in threading.enumerate() if t.name.startswith("knownot")]


def test_the_contract_holds_over_them(bad):
    check_images(lambda: open_images([*list(bad)[::2], *list(bad)[1::2]]), preprocess=SIZED, sizes=(5, 100))


def test_as_bytes_and_in_parquet(bad, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = {name: reason for name, reason in bad.items() if os.path.isfile(name)}
    data = [Path(name).read_bytes() for name in files]
    pq.write_table(pa.table({"image": pa.array(data, pa.binary())}), tmp_path / "bad.parquet")
    for source in (data, tmp_path / "bad.parquet"):
        errors = [e for b in open_images(source).batches(10, SIZED) for e in b.errors]
        assert [reason in (e or "") for reason, e in zip(files.values(), errors, strict=True)] == [True] * len(files)


def test_a_folder_of_them(bad, tmp_path):
    """In a folder the same are rows; the broken link, the folder and the pipe too."""
    here = Path(next(iter(bad))).parent
    images = open_images(here)
    assert images.class_names is None
    (batch,) = images.batches(1000, SIZED)
    found = dict(zip(batch.ids, batch.errors, strict=True))
    for name in ("folder.jpg", "pipe.jpg", "broken-link.jpg", "loop.jpg", "empty.jpg"):
        assert bad[str(here / name)] in found[name]


def test_no_permission(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(good("PNG"))

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(decode_module, "open", refused, raising=False)
    (batch,) = open_images(tmp_path).batches(1, None)
    assert batch.errors == ["no permission to read it"]


def test_a_folder_that_may_not_be_listed(tmp_path, monkeypatch):
    import knownot.images.files as files

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(good("PNG"))
    scandir, access = files.os.scandir, files.os.access

    def refused(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(files.os, "scandir", refused)
    monkeypatch.setattr(decode_module.os, "access", lambda path, mode: Path(path).name != "b" and access(path, mode))
    (batch,) = open_images(tmp_path).batches(9, None)
    assert batch.ids == ["a/x.png", "b"]
    assert batch.errors == [None, "a folder that may not be listed"]


def test_files_that_vanish_after_opening(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(good("PNG"))
    images = open_images(tmp_path)
    (tmp_path / "2.png").unlink()
    (batch,) = images.batches(9, None)
    assert batch.errors == [None, None, "no such file", None]
    shutil.rmtree(tmp_path)
    (batch,) = images.batches(9, None)
    assert batch.errors == ["no such file"] * 4
    assert batch.x.shape[0] == 0


def test_out_of_memory_is_a_row(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(good("PNG"))

    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(decode_module, "_pixels", full)
    (batch,) = open_images(tmp_path).batches(1, None)
    assert batch.errors == ["too large for the memory left"]


FORMATS = {name: good(name) for name in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000")}


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(FORMATS)),
    keep=st.floats(0, 1),
    spots=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=6),
)
def test_whatever_is_damaged_decode_gives_pixels_or_a_reason(name, keep, spots):
    data = FORMATS[name]
    data = bytearray(data[: max(1, round(len(data) * keep))])
    for where, new in spots:
        at = int(where * (len(data) - 1))
        data[at : at + len(new)] = new
    try:
        x = decode(bytes(data), limit=10**6)
    except Unreadable:
        return
    assert x.dtype == np.uint8
    assert x.shape == (*x.shape[:2], 3)


def test_the_corpus_starts_from_an_image_that_is_fine():
    np.testing.assert_array_equal(decode(good("PNG")), PHOTO)

"""A page takes the place of another at once: whatever the system refuses, what was there is whole."""

import errno
import os
import stat

import pytest

from knownot.errors import InputError
from knownot.plots import writing
from knownot.plots.page import write
from knownot.plots.writing import put


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_what_was_there_stays_when_the_disk_is_full(tmp_path, monkeypatch, step):
    page = tmp_path / "page.html"
    write(page, "old", "report")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writing.os, step, full)
    with pytest.raises(InputError, match=r"report cannot be written to .*No space left"):
        write(page, "new" * 1000, "report")
    assert page.read_text() == "old"
    assert os.listdir(tmp_path) == ["page.html"]  # no draft


def test_an_interruption_leaves_the_old_one(tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_text("old")

    def interrupted(*_):
        assert page.read_text() == "old"  # while the new one is written
        raise KeyboardInterrupt

    monkeypatch.setattr(writing.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(page, b"new")
    assert page.read_text() == "old"
    assert os.listdir(tmp_path) == ["page.html"]


def test_links_and_permissions_stay(tmp_path):
    page, link = tmp_path / "there" / "page.html", tmp_path / "link.html"
    put(page, b"old")
    page.chmod(0o640)
    link.symlink_to(page)
    put(link, b"new")
    assert link.is_symlink()
    assert page.read_bytes() == b"new"
    assert stat.S_IMODE(page.stat().st_mode) == 0o640


def test_the_mode_of_a_new_one_is_the_umasks(tmp_path):
    put(tmp_path / "a.html", b"")
    (tmp_path / "b.html").write_bytes(b"")
    assert (tmp_path / "a.html").stat().st_mode == (tmp_path / "b.html").stat().st_mode


def test_a_pipe_is_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        put(pipe, b"page")
        assert os.read(reader, 100) == b"page"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_file_that_may_not_be_written_stays(tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_text("old")
    monkeypatch.setattr(writing.os, "access", lambda path, how: False)  # root may write whatever the mode says
    with pytest.raises(PermissionError):
        put(page, b"new")
    assert page.read_text() == "old"

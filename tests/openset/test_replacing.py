"""A saved folder takes the place of another at once, whatever is killed, and nothing is left behind."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from knownot.errors import SavedError, StorageError
from knownot.openset import replacing as module
from knownot.openset.replacing import DRAFT, left_by_a_kill, replacing
from knownot.saving import MANIFEST


def saved(folder, text, **options):
    with replacing(Path(folder)) as draft:
        (draft / "second").mkdir()
        (draft / "second" / "model").write_text(text)
        (draft / MANIFEST).write_text(text)
        (draft / "state").write_text(text)
        (draft / "state").chmod(0o600)  # as safetensors writes it


def read(folder):
    """What the folder says, of all its files the same."""
    found = {Path(folder, name).read_text() for name in (MANIFEST, "state", "second/model")}
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize("swap", ["exchange", "two renames"])
def test_a_folder_takes_the_place_of_another(tmp_path, monkeypatch, swap):
    if swap == "two renames":
        monkeypatch.setattr(module, "_exchange", lambda one, other: False)
    for text in ("one", "two", "three"):
        saved(tmp_path / "osc", text)
        assert read(tmp_path / "osc") == text
        assert os.listdir(tmp_path) == ["osc"]


def test_the_exchange_is_one_step(tmp_path, monkeypatch):
    """No rename at all of a folder that is there: at no moment is nothing at the path."""
    saved(tmp_path / "osc", "one")
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("a rename"))
    if sys.platform not in ("linux", "darwin"):
        pytest.skip("two renames here")
    saved(tmp_path / "osc", "two")
    assert read(tmp_path / "osc") == "two"


KILLED = """
import os, sys
from pathlib import Path
from knownot.openset import replacing as module
step = sys.argv[2]
if step == "between":
    module._exchange = lambda one, other: False
    rename = Path.rename
    def dying(self, target):
        rename(self, target)
        if str(target).endswith("-old"):
            os.kill(os.getpid(), 9)
    Path.rename = dying
if step == "after":
    module.shutil.rmtree = lambda *a, **k: os.kill(os.getpid(), 9)
with module.replacing(Path(sys.argv[1])) as draft:
    (draft / "second").mkdir()
    for name in ("manifest.json", "state", "second/model"):
        (draft / name).write_text("killed")
        if step == "while writing" and name == "state":
            os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("step", "stays"), [("while writing", "old"), ("between", "old"), ("after", "killed")])
def test_what_a_kill_leaves_is_whole_and_goes_with_the_next_save(tmp_path, step, stays):
    saved(tmp_path / "osc", "old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "osc"), step], check=False)
    assert done.returncode == -9
    if step == "between":
        assert not (tmp_path / "osc").exists()
        assert "rename it" in left_by_a_kill(tmp_path / "osc")
        module._clean(tmp_path / "osc")
    assert read(tmp_path / "osc") == stays
    saved(tmp_path / "osc", "new")
    assert read(tmp_path / "osc") == "new"
    assert os.listdir(tmp_path) == ["osc"]


def test_drafts_that_a_living_process_holds_and_folders_of_the_user_stay(tmp_path):
    (tmp_path / ".osc-personal").mkdir()
    with replacing(tmp_path / "osc") as draft:
        (draft / MANIFEST).write_text("first")
        saved(tmp_path / "osc", "second")
        assert draft.exists()
    assert (tmp_path / "osc" / MANIFEST).read_text() == "first"  # the last one to finish, whole
    assert sorted(os.listdir(tmp_path)) == [".osc-personal", "osc"]


def test_one_set_of_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        saved(tmp_path / "osc", "one")
        modes = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "osc").rglob("*") if p.is_file()}
        assert (modes, stat.S_IMODE((tmp_path / "osc").stat().st_mode)) == ({0o640}, 0o750)
        (tmp_path / "osc").chmod(0o700)
        (tmp_path / "osc" / MANIFEST).chmod(0o600)
        saved(tmp_path / "osc", "two")  # a private one stays private
        modes = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "osc").rglob("*") if p.is_file()}
        assert (modes, stat.S_IMODE((tmp_path / "osc").stat().st_mode)) == ({0o600}, 0o700)
    finally:
        os.umask(before)


def test_a_link_stays_a_link(tmp_path):
    saved(tmp_path / "real", "one")
    (tmp_path / "link").symlink_to("real")
    saved(tmp_path / "link", "two")
    assert (tmp_path / "link").is_symlink()
    assert read(tmp_path / "real") == "two"


def test_a_failure_leaves_the_old_one_and_is_explained(tmp_path, monkeypatch):
    saved(tmp_path / "osc", "old")
    full = pytest.raises(StorageError, match=r"Saving .*osc.*No space left on device. Free some space")
    with full, replacing(tmp_path / "osc"):
        raise OSError(28, "No space left on device")
    assert read(tmp_path / "osc") == "old"
    assert os.listdir(tmp_path) == ["osc"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SavedError, match="the folder that knownot runs in"):
        saved(".", "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Something else is in its place"):
        saved(tmp_path / "file" / "osc", "x")


def test_names_with_brackets(tmp_path):
    saved(tmp_path / "o[s]c", "one")
    (tmp_path / f".o[s]c{DRAFT}000000").mkdir()
    (tmp_path / f".osc{DRAFT}000000").mkdir()
    saved(tmp_path / "o[s]c", "two")
    assert sorted(os.listdir(tmp_path)) == [f".osc{DRAFT}000000", "o[s]c"]

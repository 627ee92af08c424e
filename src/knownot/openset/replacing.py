"""One folder in the place of another, at once: what is at the path is the old one or the new one, whole, at any time.

The new folder is written beside the old one, with a name that says so; it is exchanged with it in one step where the
system can (Linux, macOS), otherwise in two renames. Drafts are locked while they are written, so that one that nobody
holds is known to be what a kill left, and goes with the next save.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import SavedError, storage_error
from ..saving import MANIFEST

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DRAFT = ".knownot-draft-"
DAY = 86_400  # seconds, after which a draft is taken for left behind where folders cannot be locked


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A draft folder beside `folder`; what is written into it takes its place, at the end and at once.

    Raises SavedError unless `folder` is absent, empty or holds a saved classifier: any other is left alone.
    StorageError where the system refuses; `folder` is then as it was.
    """
    folder = _place(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clean(folder)
        draft, lock = _draft(folder)
    except OSError as error:
        raise storage_error(error, f"Saving {str(folder)!r}") from error
    try:
        yield draft
        _finish(draft, folder)
        _put(draft, folder)
    except OSError as error:
        raise storage_error(error, f"Saving {str(folder)!r}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # the old one by now, or what was not finished
        if lock is not None:
            os.close(lock)


def _place(folder: Path) -> Path:
    place = Path(os.path.realpath(folder))
    if place in (Path.cwd(), *Path.cwd().parents):
        raise SavedError(f"{str(folder)!r} is the folder that knownot runs in, or above it: give a folder in it.")
    if place.exists() and not place.is_dir():
        raise SavedError(f"{str(folder)!r} is a file; give a folder.")
    if os.path.ismount(place):
        raise SavedError(f"{str(folder)!r} is the root of a disk, which cannot be replaced: give a folder in it.")
    try:
        strange = place.is_dir() and any(place.iterdir()) and not (place / MANIFEST).is_file()
    except OSError as error:
        raise storage_error(error, f"Saving {str(folder)!r}") from error
    if strange:
        raise SavedError(f"{str(folder)!r} is not empty and holds no saved classifier: it is left as it is.")
    return place


def _draft(folder: Path) -> tuple[Path, int | None]:
    """A new folder beside `folder`, with its mode or that of the user's umask, and what holds it locked, or None."""
    mode = folder.stat().st_mode & 0o777 if folder.exists() else 0o777
    while True:
        draft = folder.with_name(f".{folder.name}{DRAFT}{secrets.token_hex(6)}")
        draft.mkdir(mode)
        lock = _locked(draft, wait=True)
        if draft.exists():  # not taken for left behind before it was locked
            return draft, lock
        if lock is not None:
            os.close(lock)


def _locked(folder: Path, wait: bool = False) -> int | None:
    """A hold on a folder that ends with this process; None where another has it, it is gone, or there is no such."""
    if fcntl is None:
        return None
    try:
        file = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file


def left_by_a_kill(folder: Path) -> str:
    """A sentence on what a kill between two renames left of `folder`, which is not there; mostly none."""
    found = () if folder.exists() else folder.parent.glob(f".{_literal(folder.name)}{DRAFT}*-old")
    return next((f" A save was killed here: what was at this place is {str(p)!r}; rename it." for p in found), "")


def _clean(folder: Path) -> None:
    """Remove the drafts of `folder` that no living process holds, but put a whole one back where the folder is gone
    (a kill between two renames)."""
    for draft in sorted(folder.parent.glob(f".{_literal(folder.name)}{DRAFT}*")):
        lock = _locked(draft)
        if lock is None and (fcntl is not None or time.time() - draft.stat().st_mtime < DAY):
            continue
        if not folder.exists() and draft.name.endswith("-old"):
            with suppress(OSError):
                draft.rename(folder)
        else:
            shutil.rmtree(draft, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _finish(draft: Path, folder: Path) -> None:
    """One set of permissions, those of the folder to be replaced or of the umask, and everything on the disk."""
    mode = draft.stat().st_mode & 0o777
    files = mode & 0o666
    if (folder / MANIFEST).is_file():
        mode, files = folder.stat().st_mode & 0o777, (folder / MANIFEST).stat().st_mode & 0o777
    inside = sorted(draft.rglob("*"))
    for path in (*(p for p in inside if p.is_file()), *(p for p in inside if p.is_dir()), draft):
        if not path.is_symlink():
            _sync(path)
            path.chmod(files if path.is_file() else mode)


def _sync(path: Path) -> None:
    if path.is_dir() and fcntl is None:
        return  # Windows opens no folders
    file = os.open(path, os.O_RDONLY if fcntl is not None else os.O_RDWR)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without it
            raise
    finally:
        os.close(file)


def _put(draft: Path, folder: Path) -> None:
    """`draft` to the path `folder`, and what was there to that of the draft."""
    if not folder.exists():
        draft.rename(folder)
    elif not _exchange(draft, folder):
        old = draft.with_name(draft.name + "-old")
        folder.rename(old)
        try:
            draft.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    with suppress(OSError):
        _sync(folder.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one step: renameat2 of Linux, renamex_np of macOS. False where the system cannot."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE; RENAME_SWAP of macOS is 2 too
    paths = os.fsencode(one), os.fsencode(other)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            failed = library.renamex_np(*paths, ctypes.c_uint(exchange))
        else:
            failed = library.renameat2(here, paths[0], here, paths[1], ctypes.c_uint(exchange))
    except (AttributeError, OSError, TypeError):  # no such function, or no such library
        return False
    return failed == 0

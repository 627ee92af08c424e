"""An open-set classifier in other processes: pickled as the files of its saved form; what fork does is told."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError

FORKED = (
    "This open-set classifier was opened in process {} and came into this one, {}, by fork. A fork leaves the "
    "threads of its framework behind, and PyTorch would wait for them for ever. Start processes with 'spawn' or "
    "'forkserver' (multiprocessing.get_context('spawn'), joblib's default) and give them the classifier, which is "
    "pickled then, or open it there: knownot.load(folder)."
)


def as_files(write: Callable[[Path], None]) -> dict[str, bytes]:
    """What `write` writes into a folder, by name."""
    with tempfile.TemporaryDirectory(prefix="knownot-") as home:
        write(Path(home))
        return {p.relative_to(home).as_posix(): p.read_bytes() for p in Path(home).rglob("*") if p.is_file()}


def from_files(load: Callable[[Path], Any], files: Mapping[str, bytes]) -> Any:
    """The `OpenSetClassifier` in these files. They are kept as long as its classifier, which may read them again."""
    from multiprocessing.util import Finalize  # which the workers of pools heed as well, unlike atexit

    home = Path(tempfile.mkdtemp(prefix="knownot-"))
    try:
        for name, data in files.items():
            (home / name).parent.mkdir(exist_ok=True)
            (home / name).write_bytes(data)
        osc = load(home)
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    Finalize(osc.model, shutil.rmtree, (home, True), exitpriority=0)
    return osc


def check_process(opened_in: int) -> None:
    """Raise ModelError in a process that fork made after the classifier was opened."""
    if opened_in != os.getpid():
        raise ModelError(FORKED.format(opened_in, os.getpid()))

"""`predict --parts`: a file for each part, each image in one of them, once, whoever is killed meanwhile."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engines import each
from ..errors import OptionError, SavedError, as_storage_errors
from ..progress import bar

COUNTS = ("known", "unknown", "unreadable", "images")


@dataclass(frozen=True)
class Task:
    """One part of a `predict`, as plain values. options: of `load`, as the command line has them."""

    saved: str
    images: tuple[str, ...]
    folder: str
    number: int  # from 1 on
    of: int
    alpha: float | None = None
    batch_size: int | None = None
    networks: tuple[str | None, str | None] = (None, None)

    @property
    def file(self) -> Path:
        return Path(self.folder) / f"part-{self.number:05}-of-{self.of:05}.parquet"

    @property
    def receipt(self) -> Path:
        """Is written when the file is whole: what it is of, and its counts."""
        return self.file.with_suffix(".json")


def predict_parts(tasks: list[Task], *, engine: str, workers: int | None, quiet: bool) -> dict[str, Any]:
    """Verdicts of all parts into files of one folder; those that are there already, of the same classifier and images,
    stay. Counts over all."""
    folder = Path(tasks[0].folder)
    with as_storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    others = [file for file in folder.glob("part-*-of-*.parquet") if not file.stem.endswith(f"-of-{tasks[0].of:05}")]
    if others:
        raise OptionError(f"{str(folder)!r} holds {others[0].name}, of another number of parts. Give another folder.")
    total = dict.fromkeys((*COUNTS, "there"), 0)
    with bar("parts", len(tasks), not quiet) as advance:
        for _, counts in each(predict_part, tasks, engine=engine, workers=workers):
            for name, n in counts.items():
                total[name] += n
            advance(1)
    return total


def words(total: dict[str, Any], parts: int, output: Path) -> str:
    """For people."""
    there = f" {total['there']:,} were there already." if total["there"] else ""
    return (
        f"{total['images']:,} images in {parts:,} parts: {total['known']:,} known, {total['unknown']:,} unknown, "
        f"{total['unreadable']:,} unreadable. Written to {output}.{there}"
    )


def predict_part(task: Task) -> dict[str, int]:
    """Its counts; "there": 1 where nothing had to be done."""
    predict_to = importlib.import_module(".predict", __package__).predict_to  # which asks this module for all parts

    osc, source = opened(task)
    key = _key(osc, source)
    if (counts := _receipt(task, key)) is not None:
        return {**counts, "there": 1}
    run = predict_to(osc, list(task.images), task.file, batch_size=task.batch_size, quiet=True, source=source)
    counts = {name: int(getattr(run, name)) for name in COUNTS}
    draft = task.receipt.with_name(f"{task.receipt.name}.{os.getpid()}")
    with as_storage_errors(task.receipt):
        draft.write_text(json.dumps({"key": key, "bytes": task.file.stat().st_size, **counts}))
        os.replace(draft, task.receipt)
    return {**counts, "there": 0}


def opened(task: Task) -> tuple[Any, Any]:
    """(the classifier, the part of the images)."""
    from ..images import open_images

    source = open_images(task.images[0] if len(task.images) == 1 else list(task.images))
    return _loaded(task.saved, task.alpha, task.networks), source.part(task.number - 1, task.of)


def _receipt(task: Task, key: str) -> dict[str, int] | None:
    try:
        found = json.loads(task.receipt.read_text())
        whole = found["key"] == key and task.file.stat().st_size == found["bytes"]
        return {name: int(found[name]) for name in COUNTS} if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _key(osc: Any, source: Any) -> str:
    """Of the classifier and of the images, as far as the source can tell these."""
    digest = hashlib.blake2b(osc.digest.encode(), digest_size=16)
    for stamp in source.stamps() or ():
        digest.update(stamp)
    return digest.hexdigest()


@functools.lru_cache(maxsize=1)
def _loaded(saved: str, alpha: float | None, networks: tuple[str | None, str | None]) -> Any:
    """The classifier, once in each process."""
    from ..export import load
    from .common import networks_of

    osc = load(Path(saved), **networks_of(*networks))
    if alpha is None:
        return osc
    if not hasattr(osc, "with_alpha"):
        raise SavedError("--alpha is for saved folders; an exported file has its threshold inside. Export it anew.")
    return osc.with_alpha(alpha)

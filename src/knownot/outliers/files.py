"""Made images as files: PNG, with a manifest that says how each can be made again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Preprocess
from ..errors import ImagesError, OptionError, SavedError
from ..images import open_images
from ..version import __version__
from .make import make, size_of
from .table import OUTLIERS, kinds_named

MANIFEST = "outliers.json"
FORMAT = 1
BLOCK = 1 << 24  # most pixels that are made at once


@dataclass(frozen=True)
class Like:
    """Known images that outliers are made from."""

    images: np.ndarray  # [m, h, w, 3] uint8
    labels: np.ndarray  # [m] int64, -1 where there is none
    unreadable: int
    source: str


def write(
    kinds: str | Iterable[str],
    folder: str | Path,
    *,
    like: Any = None,
    count: int = 100,
    size: int | tuple[int, int] | None = None,
    seed: int = 0,
    add: bool = False,
    advance: Callable[[int], None] = lambda images: None,
) -> dict[str, Any]:
    """Make `count` images of each kind and write them as PNG files; the same ones for the same arguments.

    kinds: names of `OUTLIERS`, families, or "all" (see `kinds_named`); of "all" and of families, those made from known
        images are left out when there is no `like`.
    folder: gets `<kind>-seed<seed>-<number>.png` and `outliers.json`, which holds for each file the numbers for which
        it is `make(kind, of, seed=seed, …)[place]`, and what the images were made from.
    like: known images, whatever `open_images` reads; a sample of 2 * count of them (64 at least) is used. Labels, as of
        sub-folders, let mixtures be of two classes. size: (height, width) or one number; known images are cropped and
        resized to it.
    add: write into a folder that is not empty; files of the same name are replaced.
    advance: called with the number of images just written.

    Returns the manifest. Raises OptionError for unknown kinds and senseless numbers, ImagesError when known images
    cannot be read or are of several sizes, SavedError when the folder is not empty, or is a file.
    """
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise OptionError(f"count={count!r}: expected how many images of each kind, a whole number of at least 1.")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise OptionError(f"seed={seed!r}: expected a whole number of at least 0.")
    chosen, _ = plan(kinds, like is not None)
    if like is None and size is None:
        raise OptionError("How large are the images to be? Give size= (--size), or like= (--like) known images.")
    folder = _allowed(Path(folder), add)
    known = None if like is None else read_like(like, max(2 * int(count), 64), size, int(seed))
    h, w = size_of(size, None if known is None else known.images)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for kind in chosen:
        for begin, n, own in _blocks(int(count), max(1, BLOCK // (h * w)), int(seed)):
            given: dict[str, Any] = (
                {"size": (h, w)} if known is None else {"like": known.images, "labels": known.labels}
            )
            for place, image in enumerate(make(kind, n, seed=own, **given)):
                name = f"{kind}-seed{seed}-{begin + place:05d}.png"
                _save(folder / name, image)
                files.append({"file": name, "kind": kind, "seed": own, "of": n, "place": place})
                advance(1)
    manifest = _manifest(chosen, files, known, (h, w), folder if add else None)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return manifest


def plan(kinds: str | Iterable[str], known: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The kinds to make, and those to leave out as there are no known images to make them from.

    known: whether there are. Raises OptionError for unknown kinds, and when a kind asked for by its name is left out.
    """
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    chosen = kinds_named(kinds)
    left = () if known else tuple(kind for kind in chosen if OUTLIERS[kind].altered)
    named = {part.strip() for kind in kinds for part in kind.split(",")}
    if any(kind in named for kind in left) or len(left) == len(chosen):
        raise OptionError(f"Made from known images: {', '.join(left)}. Give like= (--like), a folder of them.")
    return tuple(kind for kind in chosen if kind not in left), left


def read_like(like: Any, most: int, size: int | tuple[int, int] | None = None, seed: int = 0) -> Like:
    """Up to `most` known images, of one size. See `write`."""
    source = open_images(like)
    if source.ready:
        raise ImagesError("Outliers are made from raw images, uint8 or files; these are float arrays.")
    way = Preprocess() if size is None else Preprocess(*size_of(size, None))
    found, labels, bad = [], [], 0
    try:
        for batch in source.sample(most, seed).batches(64, replace(way, name="as they are")):
            found.append(np.clip(np.rint(batch.x), 0, 255).astype(np.uint8))
            labels.append(batch.labels[batch.rows])
            bad += len(batch) - len(batch.rows)
    except ImagesError as error:
        if size is None and "size" in str(error):
            what = str(error).partition(" Give ")[0]
            raise ImagesError(f"{what} Give size= (--size): known images are then cropped and resized.") from error
        raise
    images = np.concatenate(found) if found else np.empty((0, 1, 1, 3), np.uint8)
    if len({x.shape[1:] for x in found if len(x)}) > 1:
        shapes = ", ".join(sorted({f"{x.shape[1]}x{x.shape[2]}" for x in found if len(x)})[:3])
        raise ImagesError(f"The known images are of several sizes ({shapes}): give size= (--size).")
    if not len(images):
        raise ImagesError(f"None of the {bad} known images could be read: there is nothing to make outliers from.")
    return Like(images, np.concatenate(labels), bad, str(like) if isinstance(like, str | Path) else type(like).__name__)


def _blocks(count: int, most: int, seed: int) -> Iterator[tuple[int, int, int]]:
    """(first, how many, seed) of what is made at once; the first block has the seed itself."""
    for block, begin in enumerate(range(0, count, most)):
        own = int(np.random.SeedSequence([seed, block]).generate_state(1)[0]) if block else seed
        yield begin, min(most, count - begin), own


def _allowed(folder: Path, add: bool) -> Path:
    if folder.exists() and not folder.is_dir():
        raise SavedError(f"{str(folder)!r} is a file; give a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not add:
        raise SavedError(
            f"{str(folder)!r} is not empty: made images would be mixed with what is there. Give another folder, or "
            "add=True (--add)."
        )
    return folder


def _save(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(image).save(path, "PNG")


def _manifest(
    kinds: Iterable[str], files: list[dict[str, Any]], known: Like | None, size: tuple[int, int], before: Path | None
) -> dict[str, Any]:
    run = {
        "size": list(size),
        "like": None if known is None else {
            "source": known.source,
            "images": len(known.images),
            "labelled": int((known.labels >= 0).sum()),
            "unreadable": known.unreadable,
        },
    }  # fmt: skip
    told = {k: {name: x for name, x in asdict(OUTLIERS[k]).items() if name != "function"} for k in kinds}
    files = [{**row, "run": 0} for row in files]
    runs = [run]
    if before is not None and (before / MANIFEST).is_file():
        old = _read(before / MANIFEST)
        new = {row["file"] for row in files}
        files = [*(r for r in old["files"] if r["file"] not in new), *({**r, "run": len(old["runs"])} for r in files)]
        runs, told = [*old["runs"], run], {**old["kinds"], **told}
    return {"format": FORMAT, "knownot": __version__, "runs": runs, "kinds": told, "files": files}


def _read(path: Path) -> dict[str, Any]:
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        if old["format"] == FORMAT:
            return {"runs": list(old["runs"]), "kinds": dict(old["kinds"]), "files": list(old["files"])}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise SavedError(
            f"{path} is no list of made images that can be added to: {error!r}. Give another folder."
        ) from error
    raise SavedError(
        f"{path} is of format {old['format']!r}; this knownot writes format {FORMAT}. Give another folder."
    )
